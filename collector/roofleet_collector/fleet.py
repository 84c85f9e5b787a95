"""Which agents are attached, and the hosts' `last_seen_at` that follows from their heartbeats."""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from roofleet_collector.store import Store
from roofleet_proto.records import AgentStatus, Heartbeat, Hello


@dataclass(frozen=True)
class _Attached:
    hello: Hello
    last_seen: datetime
    spooled_batches: int = 0
    connections: int = 1


class Roster:
    """The attached agents. Heartbeats are gathered here and written together by `flush`."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._attached: dict[str, _Attached] = {}
        self._seen: dict[str, datetime] = {}

    def join(self, hello: Hello) -> None:
        """An agent attached; one that comes again before its old connection was missed counts once."""
        with self._lock:
            before = self._attached.get(hello.agent_id)
            connections = before.connections + 1 if before else 1
            self._attached[hello.agent_id] = _Attached(hello, self._note(hello), connections=connections)

    def heard(self, agent_id: str, heartbeat: Heartbeat) -> None:
        """An agent said that it is alive."""
        with self._lock:
            agent = self._attached.get(agent_id)
            if agent is not None:
                self._attached[agent_id] = replace(
                    agent, last_seen=self._note(agent.hello), spooled_batches=heartbeat.spooled_batches
                )

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
        """Writes when hosts were last heard of, all that is new in one transaction."""
        with self._lock:
            seen, self._seen = self._seen, {}
        if seen:
            self._store.touch_hosts(seen).result()

    def _note(self, hello: Hello) -> datetime:
        now = datetime.now(UTC)
        self._seen[hello.host_id] = now
        return now
