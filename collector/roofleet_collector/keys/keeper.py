"""The keys of one running collector: its gate, its door for SQL, its audit, and their upkeep."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import Any

from roofleet_collector.errors import TooMuch
from roofleet_collector.keys.audit import Audit
from roofleet_collector.keys.gate import Gate, caller
from roofleet_collector.keys.identity import check_id
from roofleet_collector.keys.limits import Limits
from roofleet_collector.keys.opening import Protection
from roofleet_collector.keys.sql_door import SqlDoor
from roofleet_collector.keys.tls import authority_of, grpc_credentials
from roofleet_collector.keys.tokens import Tokens
from roofleet_collector.limits import USUAL, Callers
from roofleet_collector.store import Store
from roofleet_proto.records import Joined, JoinRequest

log = logging.getLogger(__name__)

FLUSH_S = 1.0
"""How long refusals of one kind are gathered into one row of the audit."""


class Keys:
    """What stands at the doors of a collector."""

    def __init__(
        self, store: Store, tokens: Tokens, protection: Protection, callers: Callers = USUAL.callers
    ) -> None:
        self.tokens, self.protection = tokens, protection
        self.audit = Audit(store, tokens)
        limits = Limits(callers.calls_per_s, callers.burst, callers.streams)
        self.gate = Gate(tokens, self.audit, limits)
        self.sql_door = SqlDoor(tokens, self.audit, limits)
        self._said = ""
        self._joining = Limits(calls_per_s=2, burst=20)

    def grpc_credentials(self) -> Any:
        """Credentials of the gRPC server; None without TLS."""
        files = self.protection.certificates
        return None if files is None else grpc_credentials(files)

    def join(self, request: JoinRequest) -> Joined:
        """Exchanges a code for a token; CallRefused if it is none, or many were tried."""
        who = caller()
        check_id(request.agent_id, "agent_id")
        with self.gate.recorded(who, request.agent_id):
            try:
                self._joining.begin("")
            except TooMuch:
                raise TooMuch("many codes were tried just now; wait a minute") from None
            token, name = self.tokens.join(request.code, request.agent_id)
        files = self.protection.certificates
        return Joined(token, name, authority_of(files.cert.read_text()) if files else "")

    async def keep(self) -> None:
        """Ends what may no longer stay and writes the audit, until it is cancelled."""
        watching = asyncio.create_task(self.gate.watch())
        try:
            while True:
                await asyncio.sleep(FLUSH_S)
                await asyncio.to_thread(self._write)
        finally:
            watching.cancel()
            self._write()

    def _write(self) -> None:
        self.sql_door.look()
        try:
            self.audit.flush()
        except Exception as error:
            if str(error) != self._said:
                log.error("the audit could not be written: %s", error)
            self._said = str(error)
        else:
            self._said = ""


@contextlib.asynccontextmanager
async def kept(keys: Keys) -> Any:
    """Keeps keys up to date while the block runs."""
    keeping = asyncio.create_task(keys.keep())
    try:
        yield
    finally:
        keeping.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await keeping
