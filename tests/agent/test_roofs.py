"""What an agent remembers of its roofs, and when it measures them again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from roofleet_agent.devices.cpu import CpuDevice
from roofleet_agent.roofs import remembered
from roofleet_agent.roofs.caches import cache_bytes
from roofleet_agent.roofs.measured import MeasuredRoof, measure_roofs
from roofleet_agent.roofs.remembered import disturbance, measured_roofs, remembered_roofs
from roofleet_agent.rows import table_of

QUICK = {"budget_s": 0.0}


@pytest.fixture(scope="module")
def roofs() -> list[MeasuredRoof]:
    """Roofs measured once for the tests of this file."""
    return measure_roofs(torch.device("cpu"), budget_s=0.0)


class Machine:
    """Measures at once and says what other work there is: `load` while measuring, `now` when listened to."""

    def __init__(self, found: list[MeasuredRoof], folder: Path, load: float) -> None:
        self.found, self.folder = found, folder
        self.load, self.now = load, load
        self.measured = 0

    def measure(self, device: Any, **options: Any) -> list[MeasuredRoof]:
        """Stands for measure_roofs, which takes seconds."""
        self.measured += 1
        return self.found

    def roofs(self, **options: Any) -> list[dict[str, Any]]:
        """What the agent gives for a run now."""
        return measured_roofs(CpuDevice(), self.folder, **options)


@pytest.fixture
def machine(roofs: list[MeasuredRoof], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """A machine on which other work takes half of the processors."""
    made = Machine(roofs, tmp_path, 0.5)

    class Watched:
        def __init__(self, *_: Any) -> None:
            pass

        def row(self) -> dict[str, Any]:
            return {"other_load": made.load}

    monkeypatch.setattr("roofleet_agent.roofs.measured.measure_roofs", made.measure)
    monkeypatch.setattr(remembered, "Conditions", Watched)
    monkeypatch.setattr(remembered, "load_now", lambda threads, listen_s: made.now)
    return made


def test_a_measurement_is_a_row_with_its_conditions(tmp_path: Path) -> None:
    """Threads, torch, load, size and spread stand beside every height, in rows of the table."""
    rows = measured_roofs(CpuDevice(), tmp_path, **QUICK)
    assert table_of("roofs", rows).num_rows == len(rows)
    assert {row["threads"] for row in rows} == {torch.get_num_threads()}
    assert {row["torch_version"] for row in rows} == {torch.__version__}
    assert all(row["size_bytes"] > 0 and row["spread"] >= 0 for row in rows)
    assert all(row["other_load"] is None or 0 <= row["other_load"] <= 1 for row in rows)
    assert {(row["kind"], row["dtype"] or row["memory_level"]) for row in rows} >= {
        ("memory", "dram"), ("memory", "cache"), ("compute", "fp32"),
    }  # fmt: skip
    # the same observation under the same id, to whomever it is sent; another folder has one of its own
    assert [row["roof_id"] for row in measured_roofs(CpuDevice(), tmp_path)] == [r["roof_id"] for r in rows]
    other = measured_roofs(CpuDevice(), tmp_path / "other", **QUICK)
    assert not {row["roof_id"] for row in other} & {row["roof_id"] for row in rows}
    assert remembered_roofs(tmp_path, [CpuDevice()]) == rows


def test_roofs_measured_beside_other_work_are_measured_again_when_it_is_quiet(machine: Machine) -> None:
    """Once while it is busy, not again while it stays so, again when it is quiet, and then no more."""
    assert disturbance(machine.roofs()) == 0.5
    machine.roofs()
    assert machine.measured == 1
    machine.now = machine.load = 0.02
    rows = machine.roofs()
    assert machine.measured == 2
    assert disturbance(rows) is None
    assert len(rows) == 2 * len(machine.found)  # the earlier one is kept
    machine.now = machine.load = 0.9
    assert machine.roofs() == rows
    assert machine.measured == 2


def test_measuring_again_by_hand_adds_to_what_is_known(machine: Machine) -> None:
    """It is done whatever the load, and the file does not grow for ever."""
    machine.load = 0.0
    for number in range(1, 12):
        assert len(machine.roofs(again=True)) == min(number, remembered.KEPT + 1) * len(machine.found)
    machine.load = 0.0
    assert machine.measured == 11


@pytest.mark.parametrize("text", ["{}", "not json", '{"device torch 2.9 threads 2": [{"kind": "memory"}]}'])
def test_a_file_of_an_older_agent_or_a_broken_one_is_measured_anew(machine: Machine, text: str) -> None:
    """What it said is in the collector; here it is as if nothing were known."""
    (machine.folder / remembered.FILE_NAME).write_text(text)
    assert len(machine.roofs()) == len(machine.found)


def test_the_size_of_the_caches_is_that_of_the_outermost_level(tmp_path: Path) -> None:
    """Two parts of 32 MiB that four processors share are 64 MiB; without a word of it nothing is known."""
    for cpu in range(4):
        for level, size, shared in ((2, "1024K", f"{cpu}"), (3, "32M", "0-1" if cpu < 2 else "2-3")):
            place = tmp_path / f"cpu{cpu}" / "cache" / f"index{level}"
            place.mkdir(parents=True)
            for name, text in (("level", str(level)), ("size", size), ("shared_cpu_list", shared)):
                (place / name).write_text(text + "\n")
    assert cache_bytes(torch.device("cpu"), tmp_path) == 2 * 32 * 2**20
    assert cache_bytes(torch.device("cpu"), tmp_path / "nothing") is None
