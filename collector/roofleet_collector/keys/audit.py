"""What was refused and what was changed, as rows of the table `audit`, few however many there are."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import pyarrow as pa

from roofleet_collector.keys.tokens import Tokens
from roofleet_collector.store import Append, Store
from roofleet_proto.tables import TABLES

log = logging.getLogger(__name__)

MOST_KINDS = 64
"""Refusals of different kinds that are written one by one in a second; the rest is one row."""
MOST_KEPT = 10_000
"""Rows that wait while nothing can be stored; later ones are counted in the log only."""
MOST_CHARACTERS = 300


@dataclass(frozen=True)
class Entry:
    """A row of the table."""

    happened_at: datetime
    identity: str
    role: str | None
    what: str
    target: str | None
    outcome: str
    reason: str | None
    peer: str | None
    times: int = 1


class Audit:
    """Gathers entries from any thread; `flush` writes them."""

    def __init__(
        self, store: Store, tokens: Tokens, clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self._store, self._tokens, self._clock = store, tokens, clock
        self._lock = threading.Lock()
        self._done: list[Entry] = []
        self._refused: dict[tuple[object, ...], Entry] = {}
        self._lost = 0

    def did(self, identity: str, role: str | None, what: str, target: str | None, peer: str | None) -> None:
        """Somebody did something."""
        entry = Entry(self._clock(), _cut(identity), role, what, _target(target), "allowed", None, peer)
        with self._lock:
            self._keep(entry)

    def refused(
        self,
        identity: str,
        role: str | None,
        what: str,
        target: str | None,
        reason: str,
        peer: str | None,
    ) -> None:
        """Somebody was refused; the same again until the next flush is counted."""
        entry = Entry(
            self._clock(), _cut(identity), role, what, _target(target), "refused", _cut(reason), _host(peer)
        )
        kind: tuple[object, ...] = (entry.identity, entry.what, entry.reason, entry.peer)
        with self._lock:
            if kind not in self._refused and len(self._refused) >= MOST_KINDS:
                kind = ()
                entry = replace(entry, identity="others", role=None, what="others", target=None, peer=None)
            before = self._refused.get(kind)
            self._refused[kind] = entry if before is None else replace(before, times=before.times + 1)

    def flush(self) -> None:
        """Writes what was gathered, and what commands did to the tokens. What cannot be stored is kept."""
        changes = self._tokens.changes()
        with self._lock:
            refused = list(self._refused.values())
            for entry in refused:
                self._keep(entry)
            self._refused = {}
            entries, self._done = self._done, []
            lost, self._lost = self._lost, 0
        for entry in refused:
            log.info(
                "refused %s to %s (%d times): %s",
                *(entry.what, entry.identity, entry.times, entry.reason),
                extra={"identity": entry.identity, "peer": entry.peer},
            )
        if lost:
            log.error("%d rows of the audit were lost: nothing could be stored", lost)
        for change in changes:
            at = datetime.fromtimestamp(change.at, UTC)
            entries.append(
                Entry(at, change.who, None, change.what, _cut(change.target), "allowed", None, None)
            )
        if not entries:
            return
        try:
            self._store.append(Append({"audit": _rows(entries)})).result()
        except BaseException:
            with self._lock:
                kept, self._done = self._done, []
                for entry in [*entries[: len(entries) - len(changes)], *kept]:
                    self._keep(entry)
            raise
        if changes:
            self._tokens.forget_changes(changes[-1].change_id)

    def _keep(self, entry: Entry) -> None:
        if len(self._done) < MOST_KEPT:
            self._done.append(entry)
        else:
            self._lost += 1


def _rows(entries: list[Entry]) -> pa.Table:
    return pa.Table.from_pylist([vars(entry) for entry in entries], schema=TABLES["audit"].schema)


def _cut(text: str) -> str:
    """Text of a caller as one printable line."""
    line = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text[:MOST_CHARACTERS])
    return line.encode("utf-8", "replace").decode()


def _target(text: str | None) -> str | None:
    return None if text is None else _cut(text)


def _host(peer: str | None) -> str | None:
    """Where a call came from without its port, so that a flood of connections is one."""
    return peer.rpartition(":")[0] if peer and peer.count(":") > 1 else peer
