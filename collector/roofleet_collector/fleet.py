"""Which agents are attached, and what follows of their hosts: when they were last seen, and their clocks."""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from roofleet_collector.store import Seen, Store
from roofleet_proto.ranges import MOST
from roofleet_proto.records import AgentStatus, Heartbeat, Hello

MOST_AHEAD_US = MOST // 1000
"""A clock that is further off, a hundred days, tells nothing."""


@dataclass(frozen=True)
class _Attached:
    hello: Hello
    since: datetime
    last_seen: datetime
    spooled_batches: int = 0
    connections: int = 1


class Roster:
    """The attached agents. Heartbeats are gathered here and written together by `flush`."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._attached: dict[str, _Attached] = {}
        self._seen: dict[str, Seen] = {}

    def join(self, hello: Hello) -> None:
        """An agent attached; one that comes again before its old connection was missed counts once."""
        with self._lock:
            before = self._attached.get(hello.agent_id)
            connections = before.connections + 1 if before else 1
            now = datetime.now(UTC)
            joined = _Attached(hello, since=now, last_seen=now, connections=connections)
            self._attached[hello.agent_id] = joined
            self._note(joined, hello.sent_unix_us)

    def heard(self, agent_id: str, heartbeat: Heartbeat) -> None:
        """An agent said that it is alive."""
        with self._lock:
            agent = self._attached.get(agent_id)
            if agent is not None:
                heard = replace(agent, last_seen=datetime.now(UTC), spooled_batches=heartbeat.spooled_batches)
                self._attached[agent_id] = heard
                self._note(heard, heartbeat.sent_unix_us)

    def leave(self, agent_id: str) -> None:
        """A connection of an agent ended."""
        with self._lock:
            agent = self._attached.get(agent_id)
            if agent is not None and agent.connections > 1:
                self._attached[agent_id] = replace(agent, connections=agent.connections - 1)
            else:
                self._attached.pop(agent_id, None)

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
                for a in self._attached.values()
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

    def _note(self, agent: _Attached, sent_unix_us: int) -> None:
        ahead_us = sent_unix_us - int(agent.last_seen.timestamp() * 1e6)
        told = sent_unix_us > 0 and abs(ahead_us) <= MOST_AHEAD_US
        self._seen[agent.hello.host_id] = Seen(
            agent.last_seen, ahead_us * 1000 if told else None, agent.since, agent.spooled_batches
        )
