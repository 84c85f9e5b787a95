"""The jobs of an agent: takes what the collector hands out, keeps their leases, and tells how they are."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from roofleet_agent.devices.base import Device
from roofleet_agent.inventory import device_id
from roofleet_agent.jobs.clock import now_s
from roofleet_agent.jobs.leases import Leases
from roofleet_agent.jobs.rules import Rules
from roofleet_agent.jobs.running import Place, RunningJob
from roofleet_agent.sending.spool import Spool
from roofleet_proto.jobs import RETURNED
from roofleet_proto.records import (
    AgentMessage,
    Assignment,
    Cancellation,
    CollectorMessage,
    DeviceOffer,
    JobProgress,
    Label,
    Lease,
    Offer,
    Renewed,
    Settled,
)

log = logging.getLogger(__name__)

RENEWALS = 5
"""Renewals in the time of a lease."""
FIRST_S = 1.0
"""Seconds between renewals while the length of a lease is not known."""
END_S = 15.0
"""How long jobs have to end when the agent does."""

Send = Callable[[AgentMessage], None]


class Jobs:
    """Jobs of the devices of one agent; `command` starts a model's process."""

    def __init__(
        self,
        command: Sequence[str],
        folder: Path,
        spool: Spool,
        devices: Sequence[Device],
        rules: Rules,
        labels: Mapping[str, str],
    ) -> None:
        self._devices = {device_id(device): device for device in devices}
        self._free = {device: threading.Lock() for device in self._devices}
        self._labels = {**rules.labels, **labels}
        self._place = Place(command, folder, spool, rules, self._tell)
        self._lock = threading.RLock()
        self._leases = Leases()
        self._jobs: dict[Lease, RunningJob] = {}
        self._send: Send | None = None
        self._changed = threading.Event()
        self._stopping = False

    def connected(self, send: Send) -> None:
        """A connection is there: says what is offered, and what is to be said of jobs that go on or ended."""
        with self._lock:
            self._send = send
            send(self._offer())
            self._renew()
            for job in self._jobs.values():
                if job.final is not None:
                    send(job.final)

    def disconnected(self) -> None:
        """It is gone."""
        with self._lock:
            self._send = None

    def hear(self, message: CollectorMessage) -> None:
        """What the collector says of jobs; anything else is none of its business."""
        if isinstance(message, Assignment):
            self._take(message)
        elif isinstance(message, Cancellation):
            self._call_off([Lease(message.job_id, message.token)], "cancelled")
        elif isinstance(message, Renewed):
            with self._lock:
                ended = self._leases.take(message)
            self._call_off(ended, "lost")
        elif isinstance(message, Settled):
            self._settled(message)

    def run(self) -> None:
        """Keeps leases until `stop`."""
        while not self._stopping:
            with self._lock:
                shortest = self._leases.shortest_s()
            held = bool(self._jobs)
            self._changed.wait((shortest or FIRST_S * RENEWALS) / RENEWALS if held else None)
            self._changed.clear()
            with self._lock:
                self._forget_lost()
                self._renew()

    def stop(self) -> None:
        """Ends all jobs, and gives them back to the collector."""
        self._stopping = True
        with self._lock:
            running = list(self._jobs.values())
        for job in running:
            job.call_off(RETURNED)
        self._changed.set()
        give_up = now_s() + END_S
        for job in running:
            job.thread.join(max(give_up - now_s(), 0.0))

    # -- within

    def _offer(self) -> Offer:
        devices = tuple(
            DeviceOffer(
                known,
                device.info.kind,
                device.info.name,
                device.info.backend,
                device.info.device_index,
                device.info.memory_bytes or 0,
            )
            for known, device in self._devices.items()
        )
        return Offer(devices, tuple(Label(name, value) for name, value in sorted(self._labels.items())))

    def _take(self, assignment: Assignment) -> None:
        lease = Lease(assignment.job_id, assignment.token)
        device = self._devices.get(assignment.device_id)
        with self._lock:
            if lease in self._jobs or self._stopping:
                return
            if device is None:
                words = f"this agent has no device {assignment.device_id}"
                self._tell(JobProgress(lease.job_id, "refused", 0.0, "", lease.token, error=words))
                return
            log.info(
                "job %s, for the %d. time",
                *(assignment.job_id, assignment.token),
                extra={"job_id": assignment.job_id, "device_id": assignment.device_id},
            )
            job = RunningJob(
                assignment,
                self._place,
                device,
                self._free[assignment.device_id],
                lambda: self._leases.until(lease),
                lambda: self._leases.ending(lease),
            )
            self._jobs[lease] = job
            job.thread.start()
        self._changed.set()  # its lease is renewed at once, and then it begins

    def _call_off(self, leases: Sequence[Lease], why: str) -> None:
        with self._lock:
            found = [self._jobs[lease] for lease in leases if lease in self._jobs]
        for job in found:
            job_id = job.assignment.job_id
            log.info("job %s: %s", job_id, why, extra={"job_id": job_id})
            job.call_off(why)

    def _settled(self, settled: Settled) -> None:
        lease = Lease(settled.job_id, settled.token)
        if not settled.accepted:
            log.warning(
                "how job %s ended came too late: it was handed on",
                settled.job_id,
                extra={"job_id": settled.job_id},
            )
        with self._lock:
            self._jobs.pop(lease, None)
            self._leases.drop(lease)

    def _forget_lost(self) -> None:
        for lease, job in list(self._jobs.items()):
            if job.is_lost and not job.thread.is_alive():
                del self._jobs[lease]
                self._leases.drop(lease)

    def _renew(self) -> None:
        going_on = [lease for lease, job in self._jobs.items() if not job.is_lost]
        if going_on and self._send is not None:
            self._send(self._leases.ask(going_on, now_s()))

    def _tell(self, progress: JobProgress) -> None:
        with self._lock:
            if self._send is not None:
                self._send(progress)
