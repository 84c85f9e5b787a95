"""The open jobs and the agents that are there for them: who runs what, until when, and what is next.

Nothing here waits, stores or sends. What has changed is gathered in `changes`: rows to be stored, runs of old
leases to be kept out, and messages that may be sent once those are stored.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from roofleet_collector.jobs.selector import Place, Selector, parse
from roofleet_proto.jobs import ENDED, LOG_TAIL_BYTES, RETURNED, parse_request, run_id_of
from roofleet_proto.records import (
    Assignment,
    Cancellation,
    CollectorMessage,
    Hello,
    JobProgress,
    Lease,
    Offer,
    Settled,
)

MOST_LOSSES = 3
"""Agents that a job may be lost with: one that takes them along must not go round the whole fleet."""


@dataclass
class JobRow:
    """A row of `jobs`."""

    job_id: str
    request: str
    submission_id: str | None
    selector: str | None
    model_name: str | None
    submitted_at: datetime
    status: str = "queued"
    sweep_id: str | None = None
    host_id: str | None = None
    agent_id: str | None = None
    device_id: str | None = None
    run_id: str | None = None
    token: int = 0
    started_at: datetime | None = None
    finished_at: datetime | None = None
    stage: str | None = None
    fraction: float | None = None
    error: str | None = None
    log_tail: str | None = None

    def as_row(self) -> dict[str, Any]:
        """The row as it is stored."""
        return dataclasses.asdict(self)


@dataclass
class _Open:
    """A job that has not ended."""

    row: JobRow
    selector: Selector
    expires: float | None = None
    was_renewed: bool = False
    losses: int = 0
    refusals: dict[str, str] = field(default_factory=dict)

    @property
    def is_leased(self) -> bool:
        return self.expires is not None


@dataclass
class _Agent:
    hello: Hello
    offer: Offer
    heard_at: float


@dataclass
class Changes:
    """What is to be stored, in any order but together, and what may be said afterwards."""

    rows: dict[str, JobRow] = field(default_factory=dict)
    fenced: list[str] = field(default_factory=list)
    messages: list[tuple[str, CollectorMessage]] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.rows or self.fenced or self.messages)

    def before(self, later: Changes) -> Changes:
        """Both, where what changed later stands."""
        return Changes(self.rows | later.rows, self.fenced + later.fenced, self.messages + later.messages)


class Board:
    """Times are seconds of one clock that never goes back, given with each call."""

    def __init__(self, lease_s: float, open_jobs: Iterable[JobRow] = (), now: float = 0.0) -> None:
        """Jobs that were leased when the collector ended may still run: their leases begin anew."""
        self.lease_s = lease_s
        self.labels: dict[str, dict[str, str]] = {}
        """The operator's, by host id."""
        self._jobs: dict[str, _Open] = {}
        self._agents: dict[str, _Agent] = {}
        self.changes = Changes()
        for row in sorted(open_jobs, key=lambda row: (row.submitted_at, row.job_id)):
            leased = row.status in ("running", "cancelling")
            self._jobs[row.job_id] = _Open(
                row, parse(row.selector or "all"), now + lease_s if leased else None
            )

    # -- agents

    def attach(self, hello: Hello, offer: Offer, now: float) -> None:
        """An agent takes jobs; what it offered before stands no more."""
        self._agents[hello.agent_id] = _Agent(hello, offer, now)
        for job in self._jobs.values():
            job.refusals.pop(hello.agent_id, None)  # its rules may be others by now

    def detach(self, agent_id: str) -> None:
        """Its connection ended; its leases go on until they end."""
        self._agents.pop(agent_id, None)

    def heard(self, agent_id: str, now: float) -> None:
        """An agent said something, whatever it was: one that is silent is given nothing."""
        if agent_id in self._agents:
            self._agents[agent_id].heard_at = now

    def places(self) -> list[tuple[str, Place]]:
        """Every device that takes jobs, with its agent's id."""
        found = []
        for agent_id, agent in self._agents.items():
            labels = {label.name: label.value for label in agent.offer.labels}
            labels |= self.labels.get(agent.hello.host_id, {})
            for device in agent.offer.devices:
                place = Place(device, agent.hello.hostname, agent.hello.host_id, labels)
                found.append((agent_id, place))
        return found

    # -- jobs

    def add(self, rows: Iterable[JobRow]) -> None:
        """New jobs, last in the queue."""
        for row in rows:
            self._jobs[row.job_id] = _Open(row, parse(row.selector or "all"))
            self._changed(row)

    def forget(self, job_ids: Iterable[str]) -> None:
        """Takes jobs out as if they had never been there."""
        for job_id in job_ids:
            self._jobs.pop(job_id, None)
            self.changes.rows.pop(job_id, None)

    def row(self, job_id: str) -> JobRow | None:
        """An open job."""
        job = self._jobs.get(job_id)
        return job.row if job else None

    def open_rows(self) -> list[JobRow]:
        """All open jobs, in the order in which they were submitted."""
        return [job.row for job in self._jobs.values()]

    def cancel(self, job_id: str) -> JobRow | None:
        """Ends a job that waits; tells the agent of one that runs. None if there is no such open job."""
        job = self._jobs.get(job_id)
        if job is None:
            return None
        if job.is_leased:
            job.row.status = "cancelling"
            self._changed(job.row)
            self._tell_to_cancel(job.row)
        else:
            self._end(job, "cancelled")
        return job.row

    def renew(self, agent_id: str, leases: Iterable[Lease], now: float) -> tuple[Lease, ...]:
        """Those of an agent's leases that hold, from now on for another while."""
        held = []
        for lease in leases:
            job = self._leased(agent_id, lease.job_id, lease.token)
            if job is None or now > job.expires:  # type: ignore[operator]
                continue
            job.expires, job.was_renewed = now + self.lease_s, True
            held.append(lease)
            if job.row.status == "cancelling":
                self._tell_to_cancel(job.row)
        return tuple(held)

    def hear(self, agent_id: str, said: JobProgress, now: float) -> None:
        """What an agent says of a job; under an old token it is refused."""
        job = self._leased(agent_id, said.job_id, said.token)
        ends = said.status in (*ENDED, RETURNED)
        if ends:
            settled = Settled(said.job_id, said.token, job is not None)
            self.changes.messages.append((agent_id, settled))
        if job is None or (not ends and said.status != "running"):
            return
        row = job.row
        row.stage = said.message[:200] or row.stage
        row.fraction = min(max(said.fraction, 0.0), 1.0) if said.fraction == said.fraction else row.fraction
        row.log_tail = said.log_tail[-LOG_TAIL_BYTES:] or row.log_tail
        if said.run_id:
            row.run_id = run_id_of(row.job_id, row.token)
        self._changed(row)
        if said.status == RETURNED:
            self._hand_on(job, "its agent ended")
        elif said.status == "refused":
            self._refused(job, said.error)
        elif ends:
            self._end(job, said.status, said.error)

    def tick(self, now: float) -> None:
        """Ends leases that were not renewed, and hands out what can be."""
        for job in list(self._jobs.values()):
            if job.expires is not None and now > job.expires:
                job.losses += job.was_renewed
                lost = self._agents.get(job.row.agent_id or "")
                if lost is not None and lost.heard_at < now:
                    lost.heard_at = -math.inf  # it is given nothing until it is heard again
                self._hand_on(job, f"its agent was not heard of for {self.lease_s:g} s")
        self._assign(now)

    def next_due(self) -> float | None:
        """When the next lease ends; None if there is none."""
        return min((job.expires for job in self._jobs.values() if job.expires is not None), default=None)

    def take_changes(self) -> Changes:
        """What has changed since the last call."""
        changes, self.changes = self.changes, Changes()
        return changes

    # -- within

    def _leased(self, agent_id: str, job_id: str, token: int) -> _Open | None:
        job = self._jobs.get(job_id)
        if job is None or not job.is_leased or job.row.agent_id != agent_id or job.row.token != token:
            return None
        return job

    def _changed(self, row: JobRow) -> None:
        self.changes.rows[row.job_id] = row

    def _tell_to_cancel(self, row: JobRow) -> None:
        assert row.agent_id is not None
        self.changes.messages.append((row.agent_id, Cancellation(row.job_id, row.token)))

    def _end(self, job: _Open, status: str, error: str = "") -> None:
        row = job.row
        row.status, row.error, row.finished_at = status, error or None, datetime.now(UTC)
        if status == "done":
            row.fraction = 1.0
        self._changed(row)
        del self._jobs[row.job_id]

    def _hand_on(self, job: _Open, why: str) -> None:
        """Takes a job from an agent that is lost; what this had of a run is kept out."""
        row = job.row
        self.changes.fenced.append(run_id_of(row.job_id, row.token))
        row.run_id = None
        job.expires = None
        if row.status == "cancelling":
            self._end(job, "cancelled", why)
        elif job.losses >= MOST_LOSSES:
            self._end(
                job, "failed", f"{why}; it was lost with {job.losses} agents and is not handed out again"
            )
        else:
            self._wait(job)

    def _refused(self, job: _Open, rule: str) -> None:
        row = job.row
        agent = self._agents.get(row.agent_id or "")
        name = agent.hello.hostname if agent else str(row.agent_id)
        job.refusals[row.agent_id or ""] = f"{name}: {rule}"
        job.expires = None
        if row.status == "cancelling":
            self._end(job, "cancelled")
            return
        left = [
            agent_id
            for agent_id, place in self.places()
            if job.selector.fits(place) and agent_id not in job.refusals
        ]
        if left:
            self._wait(job)
        else:
            self._end(job, "refused", "; ".join(job.refusals.values()))

    def _wait(self, job: _Open) -> None:
        row = job.row
        row.status, row.stage, row.fraction = "queued", None, None
        row.agent_id = row.device_id = row.host_id = row.started_at = None
        self._changed(row)

    def _assign(self, now: float) -> None:
        waiting = [job for job in self._jobs.values() if job.row.status == "queued"]
        if not waiting:
            return
        busy = {job.row.device_id for job in self._jobs.values() if job.is_leased}
        free = [
            (agent_id, place)
            for agent_id, place in self.places()
            if place.device.device_id not in busy and now - self._agents[agent_id].heard_at < self.lease_s
        ]
        for job in waiting:
            fitting = (
                (agent_id, place)
                for agent_id, place in free
                if agent_id not in job.refusals and job.selector.fits(place)
            )
            if (found := next(fitting, None)) is not None:
                self._lease(job, *found, now)
                taken = found[1].device.device_id  # two agents of one host have the same devices
                free = [(agent_id, place) for agent_id, place in free if place.device.device_id != taken]

    def _lease(self, job: _Open, agent_id: str, place: Place, now: float) -> None:
        row = job.row
        row.status, row.agent_id, row.host_id = "running", agent_id, place.host_id
        row.device_id, row.token = place.device.device_id, row.token + 1
        row.started_at, row.stage, row.fraction = datetime.now(UTC), "handed out", 0.0
        row.error = row.log_tail = None
        job.expires, job.was_renewed = now + self.lease_s, False
        self._changed(row)
        assignment = Assignment(row.job_id, row.request, row.token, place.device.device_id)
        self.changes.messages.append((agent_id, assignment))


def row_of(values: Mapping[str, Any]) -> JobRow:
    """A stored row; one of an older version lacks what it did not know."""
    known = {name: values[name] for name in JobRow.__dataclass_fields__ if name in values}
    known["token"] = known.get("token") or 0
    if known.get("model_name") is None:
        known["model_name"] = parse_request(known["request"]).model
    return JobRow(**known)
