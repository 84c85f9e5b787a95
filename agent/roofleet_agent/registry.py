"""Finds devices and engines through their entry points, so that adding one touches no list."""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import TYPE_CHECKING

from roofleet_agent.devices.base import Device
from roofleet_agent.errors import DeviceNotFound, ModelRefused

if TYPE_CHECKING:
    from roofleet_agent.engines.base import Engine
    from roofleet_agent.workload import ModelRequest


def discover_devices(*, wake_accelerators: bool = True) -> list[Device]:
    """Every device of this host, the CPU first.

    With `wake_accelerators` off only what can be found without importing torch is looked for.
    """
    found: list[Device] = []
    for point in sorted(entry_points(group="roofleet.devices"), key=lambda p: (p.name != "cpu", p.name)):
        found += point.load()(wake=wake_accelerators)
    return found


def find_device(wanted: str) -> Device:
    """`auto` is the first accelerator, else the CPU; otherwise a torch name such as `cpu` or `cuda:1`."""
    devices = discover_devices()
    if wanted == "auto":
        return devices[1] if len(devices) > 1 else devices[0]
    for device in devices:
        if wanted in (device.torch_name, device.info.backend):
            return device
    names = ", ".join(device.torch_name for device in devices)
    raise DeviceNotFound(f"this host has no device {wanted!r}; it has {names} (or say auto)")


def find_engine(request: ModelRequest) -> Engine:
    """The engine that runs such a model."""
    for point in entry_points(group="roofleet.engines"):
        engine: Engine = point.load()()
        if engine.runs(request):
            return engine
    raise ModelRefused(f"no installed engine runs {request.origin} models such as {request.name!r}")
