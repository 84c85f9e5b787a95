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
    """`auto` is the first accelerator on which layers can be timed, else the CPU.

    Anything else is a torch name such as `cpu` or `cuda:1`; DeviceNotFound if this host has none such.
    """
    devices = discover_devices()
    if wanted == "auto":
        return next(filter(_can_be_timed, devices[1:]), devices[0])
    for device in devices:
        if wanted in (device.torch_name, device.info.backend):
            return device
    names = ", ".join(device.torch_name for device in devices)
    raise DeviceNotFound(f"this host has no device {wanted!r}; it has {names} (or say auto)")


def _can_be_timed(device: Device) -> bool:
    """Whether layers can be timed on an accelerator: not every backend has events that tell time."""
    import torch

    from roofleet_agent.measuring.clocks import EventClock

    clock = EventClock(torch.device(device.torch_name))
    try:
        marks = [clock.mark(), clock.mark()]
        clock.synchronize()
        clock.resolve(marks)
    except (RuntimeError, NotImplementedError, AttributeError):
        return False
    return True


def find_engine(request: ModelRequest) -> Engine:
    """The engine that runs such a model."""
    for point in entry_points(group="roofleet.engines"):
        engine: Engine = point.load()()
        if engine.runs(request):
            return engine
    raise ModelRefused(f"no installed engine runs {request.origin} models such as {request.name!r}")
