"""Jobs of a collector: what clients ask and agents say, stored before anything is answered or handed out.

All of it runs on the collector's event loop. One task stores what has changed and then sends what follows, so
that no agent ever holds a lease that a restarted collector would not know.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, Self

import pyarrow as pa

from roofleet_collector.errors import JobRefused, NoSuchJob
from roofleet_collector.jobs.board import Board, Changes, row_of
from roofleet_collector.jobs.submitting import check_same, rows_of
from roofleet_collector.store import Append, Store
from roofleet_proto.jobs import OPEN
from roofleet_proto.records import (
    CollectorMessage,
    Hello,
    HostLabels,
    Job,
    JobId,
    JobProgress,
    JobsAsked,
    Label,
    Offer,
    Renewal,
    Renewed,
    Submission,
)
from roofleet_proto.tables import TABLES

log = logging.getLogger(__name__)

LEASE_S = 20.0
"""How long an agent may not be heard of before its jobs are handed on."""
LISTED = 200
_PAUSE_S = 1.0
"""How long is waited after what could not be stored."""
_GATHER_S = 0.25
"""Progress is written so often at most."""

_ID_LENGTH = 36

Send = Callable[[CollectorMessage], None]


class JobService:
    """See the module; works while its `async with` lasts."""

    def __init__(
        self, store: Store, lease_s: float = LEASE_S, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._store, self._clock = store, clock
        self._board = Board(lease_s)
        self._ways: dict[str, Send] = {}
        self._wake = asyncio.Event()
        self._failed: Changes = Changes()
        self._settling: list[asyncio.Future[None]] = []
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        """Goes on with the jobs that are stored and have not ended."""
        found = await self._query("SELECT * FROM jobs WHERE list_contains(?, status)", list(OPEN))
        self._board = Board(self._board.lease_s, map(row_of, found), self._clock())
        for row in await self._query("SELECT * FROM host_labels"):
            self._board.labels.setdefault(row["host_id"], {})[row["name"]] = row["value"]
        if found:
            log.debug("%d jobs have not ended and go on", len(found))
        self._task = asyncio.create_task(self._serve())
        return self

    async def __aexit__(self, *error: object) -> None:
        """Ends the work; what is leased goes on where it runs."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    # -- agents

    def attach(self, hello: Hello, offer: Offer, send: Send) -> None:
        """An agent takes jobs; `send` reaches it."""
        self._ways[hello.agent_id] = send
        self._board.attach(hello, offer, self._clock())
        self._wake.set()

    def detach(self, agent_id: str, send: Send) -> None:
        """The connection ended that `send` belongs to."""
        if self._ways.get(agent_id) is send:
            del self._ways[agent_id]
            self._board.detach(agent_id)

    def heard(self, agent_id: str) -> None:
        """An agent said something."""
        self._board.heard(agent_id, self._clock())

    def hear(self, agent_id: str, said: JobProgress) -> None:
        """See Board.hear."""
        self._board.hear(agent_id, said, self._clock())
        self._wake.set()

    def renew(self, agent_id: str, renewal: Renewal) -> Renewed:
        """The answer to an agent that wants to keep its leases."""
        held = self._board.renew(agent_id, renewal.leases, self._clock())
        if self._board.changes:
            self._wake.set()
        return Renewed(renewal.number, int(self._board.lease_s * 1000), held)

    # -- clients

    async def submit(self, submission: Submission) -> list[Job]:
        """The jobs of a submission, those of before if it came already. JobRefused if it cannot be."""
        known = await self._of_submission(submission)
        if known:
            check_same(submission, [job.request for job in known])
            return known
        rows, sweep = rows_of(submission, [place for _, place in self._board.places()])
        if sweep is not None:
            table = pa.Table.from_pylist([sweep], schema=TABLES["sweeps"].schema)
            await asyncio.wrap_future(self._store.append(Append({"sweeps": table})))
        if any(self._board.row(row.job_id) for row in rows):  # the same came twice at once
            return await self._of_submission(submission)
        self._board.add(rows)
        try:
            await self._settled()
        except Exception:
            self._take_back([row.job_id for row in rows])  # the client hears that it failed
            raise
        return await self.listed(JobsAsked(tuple(row.job_id for row in rows), limit=len(rows)))

    async def cancel(self, asked: JobId) -> Job:
        """Ends a job, or has its agent end it. NoSuchJob without one, JobRefused for one that has ended."""
        found = await self.listed(JobsAsked((asked.job_id,), limit=2))
        exact = [job for job in found if job.job_id == asked.job_id] or found
        if not exact:
            raise NoSuchJob(f"there is no job {asked.job_id!r}: `roofleet jobs` lists them")
        if len(exact) > 1:
            raise JobRefused(f"{asked.job_id!r} is the beginning of several jobs: write more of it")
        was_open = self._board.cancel(exact[0].job_id) is not None
        await self._settled()
        job = (await self.listed(JobsAsked((exact[0].job_id,))))[0]
        if not was_open:
            raise JobRefused(f"job {job.job_id} has ended already: it is {job.status}")
        return job

    async def listed(self, asked: JobsAsked) -> list[Job]:
        """Jobs, the latest first."""
        where, values = ["true"], list[Any]()
        if asked.job_ids:
            whole = [job_id for job_id in asked.job_ids if len(job_id) == _ID_LENGTH]
            beginnings = [job_id for job_id in asked.job_ids if len(job_id) != _ID_LENGTH][:100]
            where.append(f"(list_contains(?, job_id){' OR starts_with(job_id, ?)' * len(beginnings)})")
            values += [whole, *beginnings]
        if asked.open_only:
            where.append("list_contains(?, status)")
            values.append(list(OPEN))
        rows = await self._query(
            "SELECT jobs.*, hostname, devices.name AS device_name FROM jobs LEFT JOIN hosts USING (host_id) "
            f"LEFT JOIN devices ON devices.device_id = jobs.device_id WHERE {' AND '.join(where)} "
            f"ORDER BY submitted_at DESC, job_id LIMIT {min(asked.limit or LISTED, 10_000)}",
            *values,
        )
        return [_job(row) for row in rows]

    async def label(self, labels: HostLabels) -> list[Label]:
        """Sets and takes away the operator's labels of a host; all that it has then."""
        hosts = await self._query(
            "SELECT host_id FROM hosts WHERE host_id = ? OR hostname = ?", labels.host, labels.host
        )
        if len(hosts) != 1:
            many = "are several hosts" if hosts else "is no host"
            raise JobRefused(f"there {many} {labels.host!r}: `roofleet sql 'FROM hosts'` lists them")
        host_id = str(hosts[0]["host_id"])
        now = self._board.labels.get(host_id, {}) | {label.name: label.value for label in labels.set}
        now = {name: value for name, value in now.items() if name not in labels.remove}
        await asyncio.wrap_future(self._store.label_host(host_id, now))
        self._board.labels[host_id] = now
        self._wake.set()
        return [Label(name, value) for name, value in sorted(now.items())]

    # -- within

    def _take_back(self, job_ids: Sequence[str]) -> None:
        """Forgets jobs that were never stored."""
        self._board.forget(job_ids)
        gone = set(job_ids)
        for job_id in gone:
            self._failed.rows.pop(job_id, None)
        self._failed.messages = [
            (agent_id, message)
            for agent_id, message in self._failed.messages
            if getattr(message, "job_id", None) not in gone
        ]

    async def _of_submission(self, submission: Submission) -> list[Job]:
        rows = await self._query(
            "SELECT job_id FROM jobs WHERE submission_id = ? ORDER BY submitted_at", submission.submission_id
        )
        if not rows:
            return []
        return await self.listed(JobsAsked(tuple(row["job_id"] for row in rows), limit=len(rows)))

    async def _query(self, sql: str, *values: Any) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = await asyncio.to_thread(
            lambda: self._store.query(sql, values).read_all().to_pylist()
        )
        return rows

    def _settled(self) -> asyncio.Future[None]:
        """Resolves when what has changed by now is stored."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._settling.append(future)
        self._wake.set()
        return future

    async def _serve(self) -> None:
        while True:
            due = self._board.next_due()
            wait_s = 1.0 if due is None else min(max(due - self._clock(), 0.0) + 0.01, 1.0)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), wait_s)
            self._wake.clear()
            try:
                await self._turn()
            except Exception:
                log.exception("jobs could not be looked after; it is tried again")
                await asyncio.sleep(_PAUSE_S)

    async def _turn(self) -> None:
        self._board.tick(self._clock())
        settling, self._settling = self._settling, []
        changes, self._failed = self._failed.before(self._board.take_changes()), Changes()
        try:
            if changes.fenced:
                fenced = self._store.delete_runs(changes.fenced, to_come=True)
                await asyncio.wrap_future(fenced)
            if changes.rows:
                rows = [row.as_row() for row in changes.rows.values()]
                table = pa.Table.from_pylist(rows, schema=TABLES["jobs"].schema)
                await asyncio.wrap_future(self._store.append(Append({"jobs": table})))
        except Exception as error:
            self._failed = changes
            for future in settling:
                if not future.done():
                    future.set_exception(error)
            if not settling:
                log.error("jobs could not be stored: %s", error)
            self._wake.set()
            await asyncio.sleep(_PAUSE_S)
            return
        for future in settling:
            if not future.done():
                future.set_result(None)
        for agent_id, message in changes.messages:
            if (send := self._ways.get(agent_id)) is not None:
                send(message)
        await asyncio.sleep(_GATHER_S if changes.rows and not changes.messages else 0)


def _job(row: dict[str, Any]) -> Job:
    def text(name: str) -> str:
        return row[name] or ""

    return Job(
        row["job_id"],
        row["request"],
        row["status"],
        text("error"),
        text("selector"),
        text("hostname"),
        text("device_name"),
        text("agent_id"),
        text("device_id"),
        text("run_id"),
        text("sweep_id"),
        row["token"] or 0,
        text("stage"),
        row["fraction"] or 0.0,
        text("log_tail"),
        *(_unix_us(row[name]) for name in ("submitted_at", "started_at", "finished_at")),
    )


def _unix_us(moment: datetime | None) -> int:
    return 0 if moment is None else round(moment.timestamp() * 1e6)
