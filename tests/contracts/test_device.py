"""What every device promises; run on all devices that this machine has."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict

import pytest

from roofleet_agent.devices import accelerator
from roofleet_agent.devices.base import Device
from roofleet_agent.devices.cpu import CpuDevice
from roofleet_agent.errors import DeviceNotFound
from roofleet_agent.inventory import device_id, device_row, host_id, host_row
from roofleet_agent.registry import discover_devices, find_device
from roofleet_agent.rows import table_of

DEVICES = discover_devices()
GAUGES = ("utilization", "memory_used_bytes", "power_w", "clock_hz", "temperature_c")
EVERY_DEVICE = pytest.mark.parametrize("device", DEVICES, ids=[d.torch_name for d in DEVICES])


@EVERY_DEVICE
def test_a_device_says_what_it_is(device: Device) -> None:
    """Kind, name and backend are there, and make a row of the table."""
    info = device.info
    assert info.kind in ("cpu", "gpu", "tpu")
    assert info.name
    assert device.torch_name.startswith(info.backend)
    assert info.memory_bytes is None or info.memory_bytes > 2**20
    assert table_of("devices", [device_row(device)]).num_rows == 1


@EVERY_DEVICE
def test_a_gauge_is_there_or_says_why_not(device: Device) -> None:
    """Every reading has a value in its base unit, or a reason; never a false zero."""
    reading = device.read()
    for gauge in GAUGES:
        value = getattr(reading, gauge)
        assert (value is None) == (gauge in reading.unavailable), gauge
    assert reading.utilization is None or 0 <= reading.utilization <= 1
    assert reading.clock_hz is None or reading.clock_hz > 1e8
    assert reading.temperature_c is None or -20 < reading.temperature_c < 150
    if reading.unavailable:
        assert json.loads(device_row(device)["unavailable"]) == reading.unavailable


@EVERY_DEVICE
def test_energy_only_grows(device: Device) -> None:
    """A device that counts its energy counts upwards; one that does not says None."""
    before, after = device.energy_j(), device.energy_j()
    assert (before is None) == (after is None)
    assert before is None or after is None or after >= before


@EVERY_DEVICE
def test_a_device_says_whether_it_was_held_back_or_that_it_cannot_tell(device: Device) -> None:
    """Throttling is a yes, a no, or None; never a guess."""
    assert device.throttled() in (True, False, None)


@EVERY_DEVICE
def test_a_device_has_the_same_id_at_every_start(device: Device) -> None:
    """The id follows from the host and the device, not from the moment."""
    again = next(d for d in discover_devices() if d.torch_name == device.torch_name)
    assert device_id(device) == device_id(again)
    assert len({device_id(d) for d in DEVICES}) == len(DEVICES)


def test_every_host_has_its_cpu_first() -> None:
    """The CPU is always there, found without waking anything."""
    assert discover_devices(wake_accelerators=False)[0].info.kind == "cpu"
    assert isinstance(find_device("cpu"), CpuDevice)


def test_accelerators_are_found_without_torch_in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a driver is, another process is asked; what it tells is a device, whose gauges say why they are
    missing."""
    told = {"key": "u-1", "kind": "gpu", "name": "Chip", "backend": "xpu", "device_index": 1,
            "memory_bytes": 2**34, "driver_version": None}  # fmt: skip
    says = f"print('hello'); print({json.dumps([told])!r})"
    monkeypatch.setattr(accelerator, "_driver_is_there", lambda: True)
    monkeypatch.setattr(accelerator, "TELLS", (sys.executable, "-c", says))
    (found,) = accelerator.discover(wake=False)
    assert asdict(found.info) == told
    assert found.torch_name == "xpu:1"
    assert set(found.read().unavailable) == set(GAUGES)
    assert device_row(found)["memory_bytes"] == 2**34


def test_an_agent_asks_a_process_that_finds_what_it_would_find_itself(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The real one finds the same devices; one that fails is a line of the log, and no device."""
    monkeypatch.setattr(accelerator, "_driver_is_there", lambda: True)
    assert [device.info for device in accelerator.discover(wake=False)] == [d.info for d in DEVICES[1:]]
    monkeypatch.setattr(accelerator, "TELLS", (sys.executable, "-c", "raise SystemExit('no driver')"))
    assert accelerator.discover(wake=False) == []
    assert "no driver" in caplog.text


def test_auto_prefers_an_accelerator() -> None:
    """`auto` is the first accelerator, else the CPU."""
    assert find_device("auto").torch_name == DEVICES[min(1, len(DEVICES) - 1)].torch_name


def test_a_device_that_is_not_there_is_named_with_those_that_are() -> None:
    """The message lists what this host has."""
    with pytest.raises(DeviceNotFound, match=r"no device 'tpu:7'; it has cpu"):
        find_device("tpu:7")


def test_the_host_row_fits_the_table() -> None:
    """A host says its name, its processor and its memory; when it was seen is for the collector."""
    row = host_row("agent")
    assert table_of("hosts", [row]).num_rows == 1
    assert row["host_id"] == host_id()
    assert row["last_seen_at"] is None
    assert row["memory_bytes"] > 2**20
