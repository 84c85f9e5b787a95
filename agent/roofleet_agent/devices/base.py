"""What a device tells of itself, what it can be read for, and the protocol of all devices."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable


@dataclass(frozen=True)
class DeviceInfo:
    """A row of `devices`, less the host. `key` tells the devices of one host apart and never changes."""

    key: str
    kind: str
    name: str
    backend: str
    device_index: int
    memory_bytes: int | None = None
    driver_version: str | None = None


@dataclass(frozen=True)
class Reading:
    """One instant's gauges in base units; None where the device does not give one."""

    utilization: float | None = None
    memory_used_bytes: int | None = None
    power_w: float | None = None
    clock_hz: float | None = None
    temperature_c: float | None = None
    unavailable: dict[str, str] = field(default_factory=dict)
    """Gauge -> why it is missing: permission, not supported, no driver."""


@runtime_checkable
class TellsProcesses(Protocol):
    """A device that tells which processes are on it."""

    def processes(self) -> dict[int, str] | None:
        """Names of the processes on it by number, as its driver counts them; None if it does not tell."""
        ...


class Device(Protocol):
    """One thing that executes."""

    @property
    def info(self) -> DeviceInfo:
        """What it is."""
        ...

    @property
    def torch_name(self) -> str:
        """What torch calls it, such as `cuda:0`."""
        ...

    def read(self) -> Reading:
        """Its gauges now; cheap enough for once a second."""
        ...

    def energy_j(self) -> float | None:
        """Energy used since some fixed moment, in J; None where it keeps no count."""
        ...

    def throttled(self) -> bool | None:
        """Whether heat or a power brake held it back since this was last asked; None if it does not tell."""
        ...
