"""The gRPC server: Ingest, Fleet and Control on one port, with health."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from roofleet_collector.errors import (
    AddressInUse,
    CallRefused,
    CollectorBusy,
    JobRefused,
    NoSuchJob,
    RejectedBatch,
)
from roofleet_collector.fleet import Connection, Roster
from roofleet_collector.ingest import Ingest
from roofleet_collector.jobs.service import JobService
from roofleet_collector.keys.gate import caller
from roofleet_collector.keys.keeper import Keys
from roofleet_collector.limits import USUAL, Senders
from roofleet_collector.metrics import Metrics
from roofleet_collector.presence import address_text
from roofleet_collector.pushing import Pushes
from roofleet_proto import __version__, services
from roofleet_proto.codec import MalformedMessage
from roofleet_proto.records import (
    BackupDone,
    CollectorInfo,
    CollectorMessage,
    Heartbeat,
    Hello,
    JobProgress,
    Offer,
    Renewal,
    RunChange,
    RunIds,
)
from roofleet_proto.services import Method

log = logging.getLogger(__name__)

RETRY_AFTER_MS = 2_000
"""When an agent is to come back that was told that the collector is busy."""

_OPTIONS = [
    ("grpc.max_receive_message_length", services.MAX_MESSAGE_BYTES),
    ("grpc.so_reuseport", 0),  # a second collector on the port must fail, not share it
    # a connection that was cut without a word is let go, with what it counts for in the limits of its caller
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),  # agents ping every 30 s
    ("grpc.keepalive_permit_without_calls", 1),
    # gRPC measures the bandwidth of a busy stream by pings of its own: an agent is not cut off for them
    ("grpc.http2.max_ping_strikes", 0),
]


class GrpcServer:
    """Serves agents and clients until stopped."""

    def __init__(
        self,
        ingest: Ingest,
        roster: Roster,
        jobs: JobService,
        catalogs: Catalogs,
        sql_port: int,
        backups: Path,
        keys: Keys | None = None,
        metrics: Metrics | None = None,
        senders: Senders = USUAL.senders,
    ) -> None:
        """`backups` is the folder that copies of what is stored are made in. Without `keys` nobody is asked
        who they are, and nothing is encrypted."""
        self._ingest, self._roster, self._jobs = ingest, roster, jobs
        self._catalogs, self._keys = catalogs, keys
        self._metrics = metrics or Metrics()
        self._pushes = Pushes(ingest, self._metrics, senders)
        self._backups, self._one_backup = backups, asyncio.Lock()
        self._about = CollectorInfo(__version__, sql_port)
        self._server = grpc.aio.server(options=_OPTIONS, interceptors=[keys.gate] if keys else [])
        self._health = health.aio.HealthServicer()
        self._stopping = asyncio.Event()
        self._named: tuple[str, ...] = ()
        self.port = 0

    async def start(self, host: str, port: int) -> None:
        """Listens; AddressInUse if something else does there already. Port 0 takes a free one."""
        handlers = {
            services.PUSH: grpc.stream_stream_rpc_method_handler(self._push),
            services.ATTACH: grpc.stream_stream_rpc_method_handler(self._attach),
            services.GET_COLLECTOR: _answer(services.GET_COLLECTOR, lambda _: self._about),
            services.LIST_AGENTS: _answer(services.LIST_AGENTS, lambda _: self._roster.agents()),
            services.LIST_MODELS: _answer(services.LIST_MODELS, lambda f: self._catalogs.models(f.text)),
            services.LIST_HARDWARE: _answer(
                services.LIST_HARDWARE, lambda f: self._catalogs.hardware(f.text)
            ),
            services.CHANGE_RUN: _answer_later(services.CHANGE_RUN, self._change_run),
            services.DELETE_RUNS: _answer_later(services.DELETE_RUNS, self._delete_runs),
            services.BACKUP: _answer_later(services.BACKUP, self._backup),
            services.SUBMIT_JOB: _answer_later(services.SUBMIT_JOB, self._jobs.submit),
            services.CANCEL_JOB: _answer_later(services.CANCEL_JOB, self._jobs.cancel),
            services.LIST_JOBS: _answer_later(services.LIST_JOBS, self._jobs.listed),
            services.LABEL_HOST: _answer_later(services.LABEL_HOST, self._jobs.label),
        }
        if self._keys is not None:
            handlers[services.JOIN] = _answer(services.JOIN, self._keys.join)
        by_service: dict[str, dict[str, Any]] = {}
        for method, handler in handlers.items():
            by_service.setdefault(f"{services.PACKAGE}.{method.service}", {})[method.name] = handler
        self._server.add_generic_rpc_handlers(
            [grpc.method_handlers_generic_handler(name, methods) for name, methods in by_service.items()]
        )
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        try:
            self.port = self._listen(address_text(host, port))
        except RuntimeError as error:
            raise AddressInUse(f"{host}:{port} is in use or not ours: {_os_reason(host, port)}") from error
        await self._server.start()
        self._named = ("", *by_service)
        await self.can_store(True)

    async def can_store(self, whether: bool) -> None:
        """Says by gRPC's health service whether rows can be stored."""
        self._metrics.can_store.set(whether)
        health = health_pb2.HealthCheckResponse
        for name in self._named:
            await self._health.set(name, health.SERVING if whether else health.NOT_SERVING)

    def _listen(self, address: str) -> int:
        credentials = self._keys.grpc_credentials() if self._keys else None
        if credentials is None:
            return int(self._server.add_insecure_port(address))
        return int(self._server.add_secure_port(address, credentials))

    async def stop(self, grace_s: float) -> None:
        """Takes no new calls, lets the ones under way end for so long, then ends them."""
        await self._health.enter_graceful_shutdown()
        self._stopping.set()  # attached agents would stay for ever
        await self._server.stop(grace_s)
        self._pushes.close()

    # -- Control

    async def _change_run(self, change: RunChange) -> bool:
        return await asyncio.wrap_future(self._ingest.change_run(change))

    async def _delete_runs(self, runs: RunIds) -> RunIds:
        there: list[str] = await asyncio.wrap_future(self._ingest.delete_runs(runs.run_ids))
        return RunIds(tuple(there))

    async def _backup(self, _: None) -> BackupDone:
        async with self._one_backup:
            to = self._backups / f"roofleet-{datetime.now(UTC):%Y%m%dT%H%M%S%fZ}.duckdb"
            batches = await asyncio.to_thread(self._ingest.backup, to)
        return BackupDone(str(to), batches)

    # -- Ingest.Push

    async def _push(self, requests: AsyncIterator[bytes], context: Any) -> None:
        try:
            await self._pushes.serve(requests, context)
        except (RejectedBatch, MalformedMessage, CollectorBusy, CallRefused) as error:
            self._metrics.ended(error)
            await _refuse(context, error)
        except Exception as error:
            self._metrics.ended(error)
            await _not_stored(context, error)

    # -- Fleet.Attach

    async def _attach(self, requests: AsyncIterator[bytes], context: Any) -> None:
        connection: Connection | None = None
        stopping = asyncio.create_task(self._stopping.wait())
        out: asyncio.Queue[CollectorMessage] = asyncio.Queue()
        writing = asyncio.create_task(_write_out(out, context))
        send = out.put_nowait
        try:
            while True:
                reading = asyncio.ensure_future(context.read())
                await asyncio.wait((reading, stopping, writing), return_when=asyncio.FIRST_COMPLETED)
                if not reading.done():
                    reading.cancel()
                    return
                data = reading.result()
                if data == grpc.aio.EOF:
                    return
                message = services.ATTACH.decode_request(data)
                if isinstance(message, Hello):
                    caller().must_be(message)
                    if connection is not None:
                        self._roster.leave(connection)
                    connection = self._roster.join(message, send)
                    _say_of(connection.hello, "attached", context)
                elif connection is None:
                    raise MalformedMessage("an agent says hello before anything else")
                elif isinstance(message, Heartbeat):
                    self._roster.heard(connection, message)
                elif isinstance(message, Offer):
                    self._jobs.attach(connection.hello, message, send)
                elif isinstance(message, Renewal):
                    send(self._jobs.renew(connection.hello.agent_id, message))
                elif isinstance(message, JobProgress):
                    self._jobs.hear(connection.hello.agent_id, message)
                self._jobs.heard(connection.hello.agent_id)
        except MalformedMessage as error:
            await _refuse(context, error)
        finally:
            stopping.cancel()
            writing.cancel()
            if connection is not None:
                self._jobs.detach(connection.hello.agent_id, send)
                self._roster.leave(connection)
                _say_of(connection.hello, "left", context)


def _say_of(hello: Hello, what: str, context: Any) -> None:
    about = {"agent_id": hello.agent_id, "peer": context.peer()}
    log.info("the agent on %s %s", hello.hostname, what, extra=about)


async def _write_out(out: asyncio.Queue[CollectorMessage], context: Any) -> None:
    """Sends what an attached agent is to hear, in order."""
    while True:
        await context.write(services.ATTACH.encode_reply(await out.get()))


class Catalogs:
    """What Control lists; a class so that the server knows no catalogue."""

    def __init__(self, models: Callable[[str], list[str]], hardware: Callable[[str], list[str]]) -> None:
        self.models, self.hardware = models, hardware


async def _refuse(context: Any, error: Exception) -> None:
    """Ends a stream over a message; a batch that can never be taken is named."""
    if isinstance(error, CallRefused):
        raise error
    if isinstance(error, RejectedBatch):
        # an identity that nobody has looked at may be long, or write over the log's other lines
        log.warning(
            "batch %s of agent %.80r: %.500s",
            *(error.batch.sequence, error.batch.agent_id, error),
            extra={"agent_id": f"{error.batch.agent_id:.80}", "peer": context.peer()},
        )
        trailing = (
            (services.REJECTED_EPOCH, str(error.batch.epoch)),
            (services.REJECTED_SEQUENCE, str(error.batch.sequence)),
        )
        await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error), trailing)
    if isinstance(error, CollectorBusy):
        later = ((services.RETRY_AFTER_MS, str(RETRY_AFTER_MS)),)
        await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, f"the collector is busy: {error}", later)
    await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))


async def _not_stored(context: Any, error: Exception) -> None:
    """Ends a call whose rows could not be committed: a full disk, or a store that closes."""
    log.error("rows could not be stored: %s", error)
    await context.abort(grpc.StatusCode.UNAVAILABLE, f"the collector could not store that: {error}")


def _answer(method: Method, reply: Callable[[Any], Any]) -> Any:
    async def handle(data: bytes, context: Any) -> bytes:
        try:
            request = method.decode_request(data)
            return method.encode_reply(reply(request))
        except MalformedMessage as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
            raise

    return grpc.unary_unary_rpc_method_handler(handle)


def _answer_later(method: Method, reply: Callable[[Any], Awaitable[Any]]) -> Any:
    """The same for an answer that is there when the store has committed it."""

    async def handle(data: bytes, context: Any) -> bytes:
        try:
            request = method.decode_request(data)
        except MalformedMessage as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
            raise
        try:
            return method.encode_reply(await reply(request))
        except JobRefused as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
            raise
        except NoSuchJob as error:
            await context.abort(grpc.StatusCode.NOT_FOUND, str(error))
            raise
        except Exception as error:
            await _not_stored(context, error)
            raise

    return grpc.unary_unary_rpc_method_handler(handle)


def _os_reason(host: str, port: int) -> str:
    """What the system says when the port is asked for plainly; gRPC does not pass it on."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        try:
            probe.bind((host, port))
        except OSError as error:
            return error.strerror or str(error)
    return "gRPC could not listen there"
