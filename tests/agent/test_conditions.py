"""The conditions of a run: other work on the processors, clocks, throttling, affinity and governor."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from tests.processes import running
from tests.support import eventually

from roofleet_agent.conditions import Conditions, governor, ranges
from roofleet_agent.devices.base import DeviceInfo, Reading
from roofleet_agent.devices.cpu import CpuDevice, throttle_count


class ScriptedDevice:
    """A device that reads what it was told to."""

    torch_name = "cpu"
    info = DeviceInfo("fake", "cpu", "scripted", "cpu", 0)

    def __init__(self, clocks: list[float | None], throttled: list[bool | None]) -> None:
        self._clocks, self._throttled = iter(clocks), iter(throttled)

    def read(self) -> Reading:
        """The next clock."""
        return replace(Reading(), clock_hz=next(self._clocks))

    def energy_j(self) -> float | None:
        """None kept."""
        return None

    def throttled(self) -> bool | None:
        """The next answer."""
        return next(self._throttled)


SPIN = "while True: pass"


@pytest.mark.skipif(not Path("/proc/stat").exists(), reason="only Linux is sure to count processor time")
def test_another_process_on_the_processors_is_seen() -> None:
    """While another process spins, others' share of the processors is at least most of what it had."""
    cpus = len(os.sched_getaffinity(0))
    with running("-c", SPIN) as process:

        def used() -> float:
            return psutil.Process(process.pid).cpu_times().user

        eventually(lambda: used() > 0.5)
        whole, one = Conditions(CpuDevice(), threads=cpus), Conditions(CpuDevice(), threads=1)
        before, begin = used(), time.monotonic()
        eventually(lambda: used() > before + 0.7)
        share = (used() - before) / (time.monotonic() - begin) / cpus
        row, of_one = whole.row(), one.row()
    assert row["other_load"] > 0.8 * share
    # what is done on processors left free is in nobody's way
    assert of_one["other_load"] <= max(row["other_load"] * cpus - (cpus - 1), 0) + 0.2
    assert row["affinity"] == ranges(sorted(os.sched_getaffinity(0)))


def test_clocks_that_moved_and_throttling_are_kept() -> None:
    """The lowest and highest clock between iterations, and whether it was held back at any time."""
    conditions = Conditions(ScriptedDevice([3e9, 2e9, 2.5e9], [True, False, True, False]))
    conditions.look()
    conditions.look()
    row = conditions.row()
    assert (row["clock_low_hz"], row["clock_high_hz"], row["throttled"]) == (2e9, 3e9, True)


def test_being_held_back_before_the_run_does_not_count() -> None:
    """The first answer is about the past."""
    conditions = Conditions(ScriptedDevice([None, None], [True, False, False]))
    conditions.look()
    row = conditions.row()
    assert (row["clock_low_hz"], row["clock_high_hz"], row["throttled"]) == (None, None, False)


def test_what_a_device_does_not_tell_is_not_known() -> None:
    """A device that cannot tell of throttling leaves it NULL."""
    assert Conditions(ScriptedDevice([None], [None, None])).row()["throttled"] is None


def test_processors_are_written_as_ranges() -> None:
    """As the kernel writes them."""
    assert [ranges(cpus) for cpus in ([0], [0, 1, 2, 5], [1, 3, 4])] == ["0", "0-2,5", "1,3-4"]


def test_the_governors_of_the_processors_are_read(tmp_path: Path) -> None:
    """All that differ, joined; NULL where the system shows none."""
    for cpu, name in ((0, "powersave"), (1, "performance")):
        (tmp_path / f"cpu{cpu}" / "cpufreq").mkdir(parents=True)
        (tmp_path / f"cpu{cpu}" / "cpufreq" / "scaling_governor").write_text(f"{name}\n")
    assert governor([0, 1], tmp_path) == "performance,powersave"
    assert governor([0, 1, 2], tmp_path) is None
    assert governor(None, tmp_path) is None


def test_throttling_of_the_cores_is_counted(tmp_path: Path) -> None:
    """The kernel's counters of all cores together; None where it keeps none."""
    assert throttle_count(tmp_path) is None
    for cpu, count in ((0, 3), (1, 4)):
        (tmp_path / f"cpu{cpu}" / "thermal_throttle").mkdir(parents=True)
        (tmp_path / f"cpu{cpu}" / "thermal_throttle" / "core_throttle_count").write_text(f"{count}\n")
    assert throttle_count(tmp_path) == 7


class SharedDevice(ScriptedDevice):
    """A GPU that tells of the processes on it."""

    info = DeviceInfo("fake", "gpu", "scripted", "cuda", 0)

    def __init__(self, *seen: dict[int, str]) -> None:
        super().__init__([None] * len(seen), [None] * (len(seen) + 1))
        self._seen = iter(seen)

    def processes(self) -> dict[int, str]:
        """The next ones."""
        return next(self._seen)


def test_a_process_of_somebody_else_on_the_device_is_told() -> None:
    """Whenever it was seen; our own are not, and what a container cannot see is taken to be ours once."""
    mine = {os.getpid(): "python"}
    conditions = Conditions(SharedDevice(mine, mine | {1: "train"}, mine))
    conditions.look()
    conditions.look()
    assert conditions.row()["disturbed_by"] == "on the device beside it: train (1)"
    assert Conditions(SharedDevice(mine)).row()["disturbed_by"] is None
    assert Conditions(SharedDevice({77_777_777: ""})).row()["disturbed_by"] is None
    told = Conditions(SharedDevice({77_777_777: "", 88_888_888: ""})).row()["disturbed_by"]
    assert told == "on the device beside it: a process (77777777)"
