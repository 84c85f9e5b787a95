"""One job under its lease: from the rules' word to how it ended, on a thread of its own."""

from __future__ import annotations

import base64
import dataclasses
import logging
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa

from roofleet_agent.devices.base import Device
from roofleet_agent.errors import AgentError, JobRefused
from roofleet_agent.jobs.clock import now_s
from roofleet_agent.jobs.process import GRACE_S, ModelProcess
from roofleet_agent.jobs.rules import Allowed, Rules
from roofleet_agent.rows import table_of
from roofleet_agent.sending.spool import Spool
from roofleet_proto.codec import MalformedMessage, decode_rows
from roofleet_proto.jobs import RETURNED, JobRequest, parse_request, run_id_of
from roofleet_proto.records import Assignment, JobProgress, Lease
from roofleet_proto.tables import TABLES

log = logging.getLogger(__name__)

LOOK_S = 0.1
"""How often a process is looked at."""
TELL_S = 1.0
"""How often its progress is told at most."""
MEMORY_S = 0.25


@dataclass(frozen=True)
class Place:
    """Where jobs of an agent run: what starts a model's process, and what they share."""

    command: Sequence[str]
    folder: Path
    spool: Spool
    rules: Rules
    tell: Callable[[JobProgress], None]


class RunningJob:
    """A job that was handed to this agent. `final` is how it ended, None while it has not.

    `until` and `ending` give the moments of its lease, see leases.py; they are asked from its thread.
    """

    def __init__(
        self,
        assignment: Assignment,
        place: Place,
        device: Device,
        device_free: AbstractContextManager[Any],
        until: Callable[[], float | None],
        ending: Callable[[], float | None],
    ) -> None:
        self.assignment = assignment
        self.lease = Lease(assignment.job_id, assignment.token)
        self.run_id = run_id_of(assignment.job_id, assignment.token)
        self.final: JobProgress | None = None
        self.is_lost = False
        """Its lease has ended: nobody is told how it ended."""
        self._place, self._device, self._device_free = place, device, device_free
        self._until, self._ending = until, ending
        self._called = threading.Event()
        self._why = ""
        self._told_at = 0.0
        self._progress = JobProgress(
            assignment.job_id, "running", 0.0, "waiting for its lease", assignment.token
        )
        self._run_row: pa.Table | None = None
        self._said: dict[str, Any] = {}
        self._process: ModelProcess | None = None
        self.thread = threading.Thread(target=self._run, name="roofleet-job", daemon=True)

    def call_off(self, why: str) -> None:
        """Ends it: `cancelled`, `returned` to the collector, or `lost` because its lease has ended."""
        self._why = self._why or why
        self.is_lost = self.is_lost or why == "lost"
        self._called.set()

    # -- on its thread

    def _run(self) -> None:
        try:
            status, error = self._to_its_end()
        except JobRefused as refused:
            status, error = "refused", str(refused)
        except (AgentError, MalformedMessage, OSError) as failed:
            status, error = "failed", str(failed)
        except Exception as fault:
            job_id = self.assignment.job_id
            log.exception("job %s", job_id, extra={"job_id": job_id})
            status, error = "failed", f"the agent failed: {fault!r}"
        self._settle_run(status, error)
        if status == "done":
            self._wait_until_sent()
        if self._why == "lost":
            self.is_lost = True
            return
        if status == "cancelled" and self._why == RETURNED:
            status = RETURNED
        message = "" if status == "done" else self._progress.message
        self.final = dataclasses.replace(self._progress, status=status, error=error[:4000], message=message)
        self._place.tell(self.final)

    def _to_its_end(self) -> tuple[str, str]:
        """Status and error."""
        request = parse_request(self.assignment.request)
        allowed = self._place.rules.check(request)
        while self._until() is None:
            if self._called.wait(LOOK_S):
                return "cancelled", ""
        with self._device_free:
            if self._called.is_set():
                return "cancelled", ""
            process = ModelProcess(
                self._place.command, self._order(request, allowed), self._hear, _environment(request, allowed)
            )
            self._process = process
            try:
                return self._watch(process, allowed)
            finally:
                process.close()
                self._progress = dataclasses.replace(self._progress, log_tail=process.log_tail())

    def _order(self, request: JobRequest, allowed: Allowed) -> dict[str, Any]:
        return {
            "job_id": self.assignment.job_id,
            "run_id": self.run_id,
            "request": request.text(),
            "device": self._device.torch_name,
            "data": str(self._place.folder),
            "spool": str(self._place.spool.path),
            "folder": allowed.folder,
            "revisions": dict(allowed.revisions),
            "memory_bytes": allowed.memory_bytes,
            "until": self._until(),
        }

    def _watch(self, process: ModelProcess, allowed: Allowed) -> tuple[str, str]:
        began, looked = now_s(), 0.0
        on_cpu = self._device.info.kind == "cpu"
        held = self._until()
        while not process.has_ended():
            if process.ending:
                time.sleep(LOOK_S)
            else:
                self._called.wait(LOOK_S)
            now, until, ending = now_s(), self._until() or 0.0, self._ending() or 0.0
            if until != held:
                held = until
                process.hold_until(until)
            if now >= ending and not self.is_lost:
                self.call_off("lost")
            if self.is_lost:
                process.end("its lease ended", min(GRACE_S, max(until - now, 0.0)))
            elif self._called.is_set():
                process.end("it was called off")
            elif now - began > allowed.time_s:
                process.end(f"it ran for more than the {allowed.time_s:g} s that it may")
            elif now - looked > MEMORY_S:
                looked = now
                has = process.memory_bytes()
                if on_cpu and allowed.memory_bytes is not None and has > allowed.memory_bytes:
                    process.end(
                        f"it held {has / 2**30:.3g} GiB, and may hold {allowed.memory_bytes / 2**30:.3g} GiB"
                    )
            if now - self._told_at > TELL_S:
                self._tell(process)
        if self._why:
            return "cancelled", "" if self._why != "lost" else "its lease ended"
        if process.ending:
            return "failed", process.ending
        process.close()  # what it said last has been read then
        if self._said.get("ended") == "done":
            return "done", ""
        status = "refused" if self._said.get("ended") == "refused" else "failed"
        return status, str(self._said.get("error") or process.end_in_words())

    def _hear(self, report: dict[str, Any]) -> None:
        """What the process reports; on a thread of the process."""
        if "stage" in report:
            fraction = report.get("fraction")
            self._progress = dataclasses.replace(
                self._progress,
                message=str(report["stage"])[:200],
                fraction=float(fraction) if isinstance(fraction, int | float) else 0.0,
            )
        if "run" in report:
            self._run_row = decode_rows(base64.b64decode(report["run"]), TABLES["runs"])
            self._progress = dataclasses.replace(self._progress, run_id=self.run_id)
        if "ended" in report:
            self._said = report

    def _tell(self, process: ModelProcess) -> None:
        self._told_at = now_s()
        self._progress = dataclasses.replace(self._progress, log_tail=process.log_tail())
        self._place.tell(self._progress)

    def _settle_run(self, status: str, error: str) -> None:
        """Writes how the run ended, if its process did not come to that."""
        if self._run_row is None:
            return
        row = self._run_row.to_pylist()[-1]
        if row["status"] == "running":
            row |= {
                "status": "cancelled" if status == "cancelled" else "failed",
                "error": error or "called off",
                "finished_at": datetime.now(UTC),
            }
            self._place.spool.write("runs", table_of("runs", [row]))

    def _wait_until_sent(self) -> None:
        """Waits until what the process has written is at the collector, or its lease has ended."""
        last = self._place.spool.last_sequence()
        self._progress = dataclasses.replace(self._progress, message="storing", fraction=1.0)
        self._place.tell(self._progress)
        while not self._called.is_set() and self._place.spool.pending(limit=1, until=last):
            self._called.wait(LOOK_S)
            if now_s() >= (self._ending() or 0.0):
                self.call_off("lost")


def _environment(request: JobRequest, allowed: Allowed) -> dict[str, str]:
    """The hub is asked only where the rules allow it, and no code of it is run in any case."""
    return {
        "HF_HUB_OFFLINE": "0" if allowed.revisions else "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "PYTHONUNBUFFERED": "1",
    }
