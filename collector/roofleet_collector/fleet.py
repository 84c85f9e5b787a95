"""Which agents are attached, and what follows of their hosts: when they were last seen, and their clocks."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from roofleet_collector.store import Seen, Store
from roofleet_proto import __version__
from roofleet_proto.ranges import MOST
from roofleet_proto.records import AgentStatus, CollectorMessage, Heartbeat, Hello, Separation, Welcome
from roofleet_proto.services import HEARTBEAT_MS

log = logging.getLogger(__name__)

_WELCOME = Welcome(__version__, HEARTBEAT_MS)

MOST_AHEAD_US = MOST // 1000
"""A clock that is further off is said to be so far, a hundred days: more cannot be stored."""


@dataclass(eq=False)
class Connection:
    """One connection of an agent; `tell` says something on it."""

    hello: Hello
    tell: Callable[[CollectorMessage], None]
    since: datetime
    last_seen: datetime
    spooled_batches: int = 0
    outlived_at: float | None = None
    """When it was first heard of after another came under its identity."""
    told_apart: bool = False


class Roster:
    """The attached agents. Heartbeats are gathered here and written together by `flush`.

    An agent has one connection. One that comes before its old one is missed counts once; but where the old
    one goes on talking there are two of one identity, and the later is told to take another.
    """

    def __init__(self, store: Store, clock: Callable[[], float] = time.monotonic) -> None:
        self._store, self._clock = store, clock
        self._lock = threading.Lock()
        self._attached: dict[str, list[Connection]] = {}
        self._seen: dict[str, Seen] = {}

    def join(self, hello: Hello, tell: Callable[[CollectorMessage], None]) -> Connection:
        """An agent attached: welcomes it."""
        with self._lock:
            now = datetime.now(UTC)
            joined = Connection(hello, tell, since=now, last_seen=now)
            others = self._attached.setdefault(hello.agent_id, [])
            for other in others:
                other.outlived_at = None
            others.append(joined)
            self._note(joined, hello.sent_unix_us)
        tell(_WELCOME)
        return joined

    def heard(self, connection: Connection, heartbeat: Heartbeat) -> None:
        """An agent said that it is alive."""
        with self._lock:
            connection.last_seen = datetime.now(UTC)
            connection.spooled_batches = heartbeat.spooled_batches
            self._note(connection, heartbeat.sent_unix_us)
            last = self._attached[connection.hello.agent_id][-1]
            twin = last is not connection and not last.told_apart and self._outlives(connection)
            last.told_apart |= twin
        if twin:
            old, new = connection.hello, last.hello
            log.warning(
                "%s and %s go by one identity (%s): is one a copy of the other? The second takes another",
                *(old.hostname, new.hostname, old.agent_id),
            )
            last.tell(Separation())

    def _outlives(self, connection: Connection) -> bool:
        """Whether it talks on; what was on its way when it was given up comes all at once."""
        if connection.outlived_at is None:
            connection.outlived_at = self._clock()
        return self._clock() - connection.outlived_at >= HEARTBEAT_MS / 1000

    def leave(self, connection: Connection) -> None:
        """A connection of an agent ended. Where another was there before it, that is welcomed again, so that
        it says again what it offers."""
        with self._lock:
            left = self._attached[connection.hello.agent_id]
            was_last = left[-1] is connection
            left.remove(connection)
            if not left:
                del self._attached[connection.hello.agent_id]
        if left and was_last:
            left[-1].tell(_WELCOME)

    def agents(self) -> list[AgentStatus]:
        """The attached agents, by host name."""
        with self._lock:
            listed = [
                AgentStatus(
                    a.hello.agent_id,
                    a.hello.host_id,
                    a.hello.hostname,
                    a.hello.agent_version,
                    int(a.last_seen.timestamp() * 1e6),
                    a.spooled_batches,
                )
                for a in (connections[-1] for connections in self._attached.values())
            ]
        return sorted(listed, key=lambda agent: (agent.hostname, agent.agent_id))

    def flush(self) -> None:
        """Writes when hosts were last heard of, all that is new in one transaction; raises what the store
        does, and keeps what could not be written."""
        with self._lock:
            seen, self._seen = self._seen, {}
        if seen:
            try:
                self._store.touch_hosts(seen).result()
            except BaseException:
                with self._lock:
                    self._seen = {**seen, **self._seen}
                raise

    def _note(self, agent: Connection, sent_unix_us: int) -> None:
        ahead_us = sent_unix_us - int(agent.last_seen.timestamp() * 1e6)
        ahead_us = max(-MOST_AHEAD_US, min(MOST_AHEAD_US, ahead_us))
        self._seen[agent.hello.host_id] = Seen(
            agent.last_seen, ahead_us * 1000 if sent_unix_us > 0 else None, agent.since, agent.spooled_batches
        )
