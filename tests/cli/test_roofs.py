"""`roofleet roofs`, and the roofs of a run in mixed precision."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from tests.support import roofleet as command
from torch import nn

import roofleet
from roofleet.console import plain
from roofleet.reports.notes import print_warnings
from roofleet_agent.roofs import measured


@pytest.fixture(autouse=True)
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each kernel is repeated as seldom as can be: how high the roofs are does not matter here."""
    monkeypatch.setattr(measured, "MEASURE_S", 0.0)


def test_roofs_are_measured_by_hand_and_listed_with_their_conditions(tmp_path: Path) -> None:
    """`--again` measures each time, what is in force never falls, and the list tells load, spread and
    conditions."""
    first, second = (
        json.loads(command("roofs", "--again", "--json", data=tmp_path).stdout) for _ in range(2)
    )
    heights = [
        {(r["kind"], r["dtype"], r["memory_level"]): r["flops_per_s"] or r["bytes_per_s"] for r in rows}
        for rows in (first, second)
    ]
    assert heights[0].keys() == heights[1].keys() >= {("compute", "fp32", None), ("memory", None, "cache")}
    assert all(heights[1][what] >= height for what, height in heights[0].items())
    assert {row["observations"] for row in second} == {2}
    assert {row["threads"] for row in second} == {torch.get_num_threads()}
    listed = command("roofs", data=tmp_path)
    assert listed.returncode == 0
    for word in ("dram", "fp32", "GFLOP/s", f"{torch.get_num_threads()} threads, torch {torch.__version__}"):
        assert word in listed.stdout
    assert json.loads(command("roofs", "--json", data=tmp_path).stdout) == second


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--collector", "host:7700"), "give --server"),
        (("--again", "--server", "host:7701"), "give --collector"),
    ],
)
def test_asking_and_measuring_have_addresses_of_their_own(
    tmp_path: Path, arguments: tuple[str, ...], says: str
) -> None:
    """What only answers cannot be sent to, and the other way round: the message says what to give."""
    answer = command("roofs", *arguments, data=tmp_path)
    assert answer.returncode == 2
    assert says in answer.stderr


def test_a_mixed_run_says_in_which_types_it_computes(tmp_path: Path) -> None:
    """Under autocast a product is in bf16 with weights in fp32, and is held against the roof of bf16."""

    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            with torch.autocast("cpu", torch.bfloat16):
                y = self.inner[0](x)
            return self.inner[2](y.float())

    mixed = Mixed()
    with roofleet.profile(mixed, data=str(tmp_path)) as run, torch.no_grad():
        for _ in range(4):
            mixed(torch.zeros(8, 64))
    row = run.sql("SELECT product_dtypes FROM run_summary").to_pylist()[0]
    assert json.loads(row["product_dtypes"]) == {"bf16": 0.5, "fp32": 0.5}
    seconds = run.sql(
        "SELECT p.product_ns * 1e-9 AS s, f.compute_roofs AS roofs FROM work_roofs p JOIN run_roofs f "
        "USING (run_id) WHERE p.path IS NULL"
    ).to_pylist()[0]
    roofs = dict(seconds["roofs"])
    assert seconds["s"] == pytest.approx(2 * 8 * 64 * 64 * (1 / roofs["bf16"] + 1 / roofs["fp32"]))


def test_the_report_marks_what_lies_above_its_roof() -> None:
    """Both numbers and the reason come before the figures."""
    fault = "forward: 2.7 GFLOP/s above a roof of 1 GFLOP/s: the roof or the work is at fault"
    row = {"status": "done", "error": None, "outputs_finite": True, "noise": None, "fault": fault}
    console = plain(200)
    with console.capture() as shown:
        print_warnings(console, row)
    assert f"above its roof, marked (!): {fault}" in shown.get()
