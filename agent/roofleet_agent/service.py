"""The agent that stays: registers its host, heartbeats, and streams readings once a second."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from roofleet_agent.alone import alone_in
from roofleet_agent.devices.base import Device
from roofleet_agent.errors import SpoolUnusable
from roofleet_agent.inventory import device_id, device_row, host_id, host_name, host_row
from roofleet_agent.jobs.keeper import Jobs
from roofleet_agent.jobs.rules import Rules
from roofleet_agent.metrics import serve_metrics
from roofleet_agent.registry import discover_devices
from roofleet_agent.roofs.remembered import remembered_roofs
from roofleet_agent.rows import Sink, table_of
from roofleet_agent.sending.attach import Attachment
from roofleet_agent.sending.dropping import Limits
from roofleet_agent.sending.kept import Kept
from roofleet_agent.sending.spool import AGENT_SPOOL, Spool, run_spool
from roofleet_agent.sending.uplink import Uplink, open_channel
from roofleet_proto import __version__
from roofleet_proto.door import PLAIN, Door
from roofleet_proto.records import Hello

log = logging.getLogger(__name__)

READING_PERIOD_S = 1.0
LIMITS = Limits(size_bytes=512 * 2**20, age_s=30 * 86_400.0)
"""What a collector that stays away costs at most: of readings about six days of one device a second."""


def register(sink: Sink, agent_id: str, devices: list[Device]) -> None:
    """Writes the rows of this host and its devices."""
    sink.write("hosts", table_of("hosts", [host_row(agent_id)]))
    sink.write("devices", table_of("devices", [device_row(device) for device in devices]))


def take_readings(sink: Sink, devices: list[Device]) -> None:
    """Writes one reading of each device."""
    at = datetime.now(UTC)
    rows = []
    for device in devices:
        reading = device.read()
        rows.append(
            {
                "device_id": device_id(device),
                "read_at": at,
                "utilization": reading.utilization,
                "memory_used_bytes": reading.memory_used_bytes,
                "power_w": reading.power_w,
                "clock_hz": reading.clock_hz,
                "temperature_c": reading.temperature_c,
            }
        )
    sink.write("readings", table_of("readings", rows))


@dataclass(frozen=True)
class Hired:
    """What an agent that takes jobs is told: what starts a model's process, what jobs may do, its labels."""

    command: Sequence[str]
    rules: Rules
    labels: Mapping[str, str]


class AgentService:
    """An agent attached to one collector; `run` returns after `stop`.

    It also sends what runs in the same folder have kept for that collector, which was away. What they store
    in the folder itself, or keep for another collector, is none of its business.
    """

    def __init__(
        self,
        collector: str,
        folder: Path,
        door: Door = PLAIN,
        limits: Limits = LIMITS,
        hired: Hired | None = None,
        metrics_at: tuple[str, int] | None = None,
    ) -> None:
        """Takes jobs if it is told how; Prometheus reads at `metrics_at`. AgentRuns if there is one."""
        self._folder = folder
        self._alone = alone_in(folder)
        self._spool = Spool(folder / AGENT_SPOOL, limits)
        self._kept = run_spool(folder, collector)
        self._kept_spool: Spool | None = None
        self._channel: Any = open_channel(collector, door)
        self._devices = discover_devices(wake_accelerators=False)
        hello = Hello(self._spool.agent_id, host_id(), host_name(), __version__)
        self._jobs: Jobs | None = None
        if hired is not None:
            self._jobs = Jobs(hired.command, folder, self._spool, self._devices, hired.rules, hired.labels)
        self._attachment = Attachment(hello, self._spool, self._channel, self._jobs)
        self._close_metrics: Callable[[], None] = lambda: None
        if metrics_at is not None:
            _, self._close_metrics = serve_metrics(
                *metrics_at, self._spool, lambda: self._attachment.is_attached
            )
        self._uplinks: list[Uplink] = []
        self._stopping = threading.Event()
        self._threads = [Kept("roofleet-attach", self._attachment.run)]

    @property
    def agent_id(self) -> str:
        """What its rows are sent under, which changes when it is told apart from a copy of its machine."""
        return self._spool.agent_id

    def stop(self) -> None:
        """Asks `run` to end."""
        self._stopping.set()

    def run(self) -> None:
        """Registers and takes readings until stopped; then sends what is left, for a moment."""
        register(self._spool, self._spool.agent_id, self._devices)
        roofs = remembered_roofs(self._folder, self._devices)
        if roofs:  # of runs in this folder that another collector, or none, has heard of
            self._spool.write("roofs", table_of("roofs", roofs))
        names = ", ".join(device.info.name for device in self._devices)
        log.info("devices: %s", names)
        for device in self._devices:
            for gauge, why in device.read().unavailable.items():
                log.info("%s: no %s (%s)", device.info.name, gauge, why)
        if self._jobs is not None:
            self._threads.append(Kept("roofleet-jobs", self._jobs.run))
        for thread in self._threads:
            thread.start()
        self._send(self._spool)
        unwritten, known_as = _Unwritten(), self._spool.agent_id
        while not self._stopping.wait(READING_PERIOD_S):
            for thread in self._threads:
                thread.start_again_if_ended()
            try:
                if self._kept_spool is None and self._kept.exists():
                    self._kept_spool = Spool(self._kept)
                    self._send(self._kept_spool)
                if known_as != self._spool.agent_id:
                    register(self._spool, self._spool.agent_id, self._devices)
                    known_as = self._spool.agent_id
                take_readings(self._spool, self._devices)
                unwritten.report(self._spool)
            except SpoolUnusable as error:
                unwritten.add(len(self._devices), error)
        if self._jobs is not None:
            self._jobs.stop()
        for uplink in self._uplinks:
            uplink.stop()
        self._attachment.stop()
        for thread in self._threads:
            thread.join(timeout_s=2)
        self._close_metrics()
        self._channel.close()
        self._spool.close()
        if self._kept_spool is not None:
            self._kept_spool.close()
        self._alone.close()

    def _send(self, spool: Spool) -> None:
        uplink = Uplink(spool, self._channel)
        thread = Kept("roofleet-uplink", uplink.run)
        self._uplinks.append(uplink)
        self._threads.append(thread)
        thread.start()


class _Unwritten:
    """Readings that the disk did not take: counted, said once, and reported when it takes them again."""

    def __init__(self) -> None:
        self._rows = 0
        self._since = 0.0

    def add(self, rows: int, error: SpoolUnusable) -> None:
        """So many were not kept."""
        if not self._rows:
            self._since = time.time()
            log.warning("%s; readings are not kept until it is", error)
        self._rows += rows

    def report(self, spool: Spool) -> None:
        """The disk takes rows."""
        if self._rows:
            spool.lost("readings", self._rows, self._since)
            log.warning("%d readings were not kept meanwhile", self._rows)
            self._rows = 0
