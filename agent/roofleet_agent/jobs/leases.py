"""Leases as the agent keeps them: until when each job may run, by the agent's own clock.

A lease counts from when its renewal was sent, which is before the collector received it and began to count.
So the agent's ends first, however long the answer took; a share is kept back for clocks that run unlike.
"""

from __future__ import annotations

from collections.abc import Iterable

from roofleet_proto.records import Lease, Renewal, Renewed

HELD_SHARE = 0.8
"""Share of a lease that a job may use."""
ENDING_SHARE = 0.5
"""Share after which a job is asked to end, so that it is gone by then."""


class Leases:
    """The leases that an agent holds, or asks for. Not safe for several threads."""

    def __init__(self) -> None:
        self._number = 0
        self._asked: dict[int, tuple[float, tuple[Lease, ...]]] = {}
        self._sent: dict[Lease, tuple[float, float]] = {}

    def ask(self, leases: Iterable[Lease], now: float) -> Renewal:
        """The renewal to be sent for these, counted from now."""
        self._number += 1
        wanted = tuple(leases)
        self._asked[self._number] = (now, wanted)
        for number in sorted(self._asked)[:-100]:  # of a connection that is gone
            del self._asked[number]
        return Renewal(self._number, wanted)

    def take(self, answer: Renewed) -> tuple[Lease, ...]:
        """Takes what a renewal was answered with; the leases that were asked for and have ended."""
        if answer.number not in self._asked:
            return ()
        sent, wanted = self._asked.pop(answer.number)
        held = set(answer.leases)
        for lease in held.intersection(wanted):
            before = self._sent.get(lease, (sent, 0.0))[0]
            self._sent[lease] = (max(sent, before), answer.lease_ms / 1000)
        return tuple(lease for lease in wanted if lease not in held)

    def until(self, lease: Lease) -> float | None:
        """Until when a job may run; None before its lease was renewed once."""
        if lease not in self._sent:
            return None
        sent, length = self._sent[lease]
        return sent + length * HELD_SHARE

    def ending(self, lease: Lease) -> float | None:
        """From when on it is to be ended, if the lease is not renewed by then."""
        if lease not in self._sent:
            return None
        sent, length = self._sent[lease]
        return sent + length * ENDING_SHARE

    def shortest_s(self) -> float | None:
        """The shortest lease that is held, in seconds; None without one."""
        return min((length for _, length in self._sent.values()), default=None)

    def drop(self, lease: Lease) -> None:
        """Forgets a lease."""
        self._sent.pop(lease, None)
