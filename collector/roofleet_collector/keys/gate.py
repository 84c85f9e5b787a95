"""The gate of the gRPC doors: who calls and what they may is settled before the first message is read."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import grpc
import grpc.aio

from roofleet_collector.errors import CallRefused, TooMuch, UnknownCaller
from roofleet_collector.keys.audit import Audit
from roofleet_collector.keys.identity import LOCAL, NOBODY, PUBLIC, Identity, Role, check_id, may
from roofleet_collector.keys.limits import Limits
from roofleet_collector.keys.tokens import Tokens, bearer_token
from roofleet_proto import services
from roofleet_proto.codec import MalformedMessage
from roofleet_proto.records import Hello

WATCH_S = 0.5
RETRY_AFTER_MS = 1_000
"""When a caller at its limit is to come back."""
"""How often those who are in are looked at again."""
OPEN_LIMITS = (2_000.0, 10_000.0, 4_096)
"""Calls a second, at once, and streams from one address where nobody is asked for a token: a whole fleet may
be behind it."""
MOST_CONTROL_BYTES = 1024 * 1024
"""The largest message of a call that carries no rows."""
ANYBODY = Identity("anybody", Role.agent)
"""Who calls what needs no token; limits count them by where they call from."""


@dataclass(frozen=True)
class Caller:
    """A caller at the gate: who it is, where from, and what it was let in for."""

    identity: Identity
    peer: str
    what: str
    gate: Gate | None = None

    def must_own(self, agent_id: str) -> None:
        """CallRefused if this caller may not speak as that agent, MalformedMessage if that is no id."""
        check_id(agent_id, "agent_id")
        if self.gate is not None:
            with self.gate.recorded(self, agent_id):
                self.gate.tokens.must_own(self.identity, agent_id)

    def must_be(self, hello: Hello) -> None:
        """The same for an agent that says who it is."""
        for what in ("host_id", "hostname", "agent_version"):
            check_id(getattr(hello, what), what)
        self.must_own(hello.agent_id)


_NO_CALL = Caller(NOBODY, "", "")
_CALLER: ContextVar[Caller] = ContextVar("caller", default=_NO_CALL)


def caller() -> Caller:
    """Who makes the call that is being answered."""
    return _CALLER.get()


class Gate(grpc.aio.ServerInterceptor):  # type: ignore[misc]
    """Stands before every method of a server, and ends streams of those who may no longer stay."""

    def __init__(self, tokens: Tokens, audit: Audit, limits: Limits) -> None:
        self.tokens, self._audit, self._limits = tokens, audit, limits
        self._wide_limits = Limits(*OPEN_LIMITS)
        self._staying: dict[asyncio.Future[str], Identity] = {}

    async def intercept_service(self, continuation: Callable[[Any], Awaitable[Any]], details: Any) -> Any:
        """See grpc.aio.ServerInterceptor."""
        handler = await continuation(details)
        if handler is None:
            return None
        what, metadata = details.method, details.invocation_metadata
        if handler.request_streaming and not handler.response_streaming:
            return None  # no such method here
        kind = "unary_unary"
        if handler.response_streaming:
            kind = "stream_stream" if handler.request_streaming else "unary_stream"
        inner = getattr(handler, kind)

        async def guarded(request: Any, context: Any) -> Any:
            try:
                who = self._admit(what, metadata, context.peer())
                with self.recorded(who), self._counted(who, stays=handler.response_streaming):
                    _CALLER.set(who)
                    if handler.response_streaming:
                        return await self._stay(who, inner, request, context)
                    return await self._once(who, inner, request, context)
            except CallRefused as error:
                await refuse(context, error)

        make = getattr(grpc, f"{kind}_rpc_method_handler")
        return make(guarded, handler.request_deserializer, handler.response_serializer)

    async def watch(self) -> None:
        """Looks after those who are in, until it is cancelled."""
        while True:
            await asyncio.sleep(WATCH_S)
            for ended, identity in list(self._staying.items()):
                why = self.tokens.refusal(identity)
                if why is not None and not ended.done():
                    ended.set_result(why)

    @contextmanager
    def recorded(self, who: Caller, target: str | None = None) -> Iterator[None]:
        """Notes in the audit what is refused inside the block."""
        try:
            yield
        except CallRefused as error:
            if not getattr(error, "recorded", False):
                error.recorded = True  # type: ignore[attr-defined]
                self._note_refusal(who, target, error)
            raise

    def _note_refusal(self, who: Caller, target: str | None, error: CallRefused) -> None:
        named = error.name if isinstance(error, UnknownCaller) else who.identity.name
        role = None if isinstance(error, UnknownCaller) else who.identity.role.value
        self._audit.refused(named, role, _name(who.what), target, str(error), who.peer)

    def _admit(self, what: str, metadata: Any, peer: str) -> Caller:
        if what in PUBLIC:
            return Caller(ANYBODY, peer, what, self)
        with self.recorded(Caller(ANYBODY, peer, what, self)):
            identity = self.tokens.identify(bearer_token(metadata))
        who = Caller(identity, peer, what, self)
        with self.recorded(who):
            if not may(identity.role, what):
                raise CallRefused(f"the role {identity.role} may not call {_name(what)}")
        return who

    @contextmanager
    def _counted(self, who: Caller, *, stays: bool) -> Iterator[None]:
        if who.identity == LOCAL:
            yield
            return
        unnamed = who.identity in (NOBODY, ANYBODY)
        name = who.peer.rpartition(":")[0] if unnamed else who.identity.name
        limits = self._wide_limits if who.identity == NOBODY else self._limits
        limits.begin(name)
        if not stays:
            yield
            return
        with limits.opened(name):
            yield

    async def _once(self, who: Caller, inner: Any, request: Any, context: Any) -> Any:
        if isinstance(request, bytes) and len(request) > MOST_CONTROL_BYTES:
            raise TooMuch(f"a message of {len(request)} bytes; {MOST_CONTROL_BYTES} is the most here")
        reply = await inner(request, context)
        if who.what not in PUBLIC and not may(Role.reader, who.what) and not may(Role.agent, who.what):
            self._audit.did(
                who.identity.name,
                who.identity.role.value,
                _name(who.what),
                _target(who.what, request),
                who.peer,
            )
        return reply

    async def _stay(self, who: Caller, inner: Any, request: AsyncIterator[Any], context: Any) -> Any:
        """A stream, which ends when its caller may no longer stay."""
        ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        work = asyncio.ensure_future(inner(request, context))
        self._staying[ended] = who.identity
        try:
            await asyncio.wait((work, ended), return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                return work.result()
            raise UnknownCaller(ended.result(), who.identity.name)
        finally:
            del self._staying[ended]
            ended.cancel()
            if not work.done():
                work.cancel()
                await asyncio.wait((work,))


async def refuse(context: Any, error: CallRefused) -> None:
    """Ends a call with what the error means in gRPC."""
    code = grpc.StatusCode.PERMISSION_DENIED
    if isinstance(error, UnknownCaller):
        code = grpc.StatusCode.UNAUTHENTICATED
    elif isinstance(error, TooMuch):
        # without a time to come back an agent takes it for a batch that is too large
        later = ((services.RETRY_AFTER_MS, str(RETRY_AFTER_MS)),)
        await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, str(error), later)
    await context.abort(code, str(error))


def _name(path: str) -> str:
    """`Push` of `/roofleet.v1.Ingest/Push`."""
    return path.rpartition("/")[2]


def _target(path: str, request: Any) -> str | None:
    """What a call that changes something was about."""
    for method in vars(services).values():
        if isinstance(method, services.Method) and method.path == path:
            try:
                about = method.decode_request(request)
            except MalformedMessage:
                return None
            for field in ("run_ids", "run_id", "job_id", "agent_id", "request"):
                if found := getattr(about, field, None):
                    return found if isinstance(found, str) else ", ".join(found)
    return None
