"""The chart of a sweep: its points are those of the runs, and its axes are round."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.dashboard.data import SWEEP, SWEEP_FAILED, Fleet

from roofleet_analysis import units
from roofleet_dashboard import queries
from roofleet_dashboard.figures.palette import LIGHT
from roofleet_dashboard.figures.scales import binary_scale, decimal_scale
from roofleet_dashboard.figures.sweeps import METRICS, Result, known_metrics, results, sweep_figure
from roofleet_dashboard.pages.sweeps_view import SweepsView
from roofleet_dashboard.state import SweepsState


@pytest.fixture
def axes(fleet: Fleet) -> dict[str, Any]:
    """The axes of the fleet's sweep, as stored."""
    (row,) = queries.rows(fleet.source, "sweeps")
    found: dict[str, Any] = json.loads(row["axes"])
    return found


@pytest.fixture
def found(fleet: Fleet, axes: dict[str, Any]) -> list[Result]:
    """Its results, the failed one among them."""
    return results("tiny-gpt2", axes, queries.rows(fleet.source, "sweep_runs", SWEEP))


@pytest.mark.parametrize("column", ["time_per_output_token_ns", "peak_bytes", "decode_flops"])
def test_every_point_stands_where_its_run_says(
    axes: dict[str, Any], found: list[Result], column: str
) -> None:
    """Across is the option, up the figure, a line for each other option, and a click names the run."""
    figure = sweep_figure(axes, found, "batch_size", METRICS[column], LIGHT)
    drawn = {
        run: (trace.name, x, y)
        for trace in figure.data
        for run, x, y in zip(trace.customdata, trace.x, trace.y, strict=True)
    }
    assert drawn == {
        one.row["run_id"]: (one.point["dtype"], one.point["batch_size"], one.row[column])
        for one in found
        if one.row["status"] == "done"
    }
    assert len(drawn) == 5


def test_names_stand_side_by_side_as_bars(axes: dict[str, Any], found: list[Result]) -> None:
    """There is nothing between fp32 and bf16 that a line could go through; bars begin at zero."""
    figure = sweep_figure(axes, found, "dtype", METRICS["peak_bytes"], LIGHT)
    assert {trace.type for trace in figure.data} == {"bar"}
    assert [trace.name for trace in figure.data] == ["batch 1", "batch 4", "batch 16"]
    assert figure.layout.xaxis.type == "category"
    assert figure.layout.yaxis.range[0] == 0


def test_axes_are_logarithmic_where_values_span_much(axes: dict[str, Any], found: list[Result]) -> None:
    """Batches 1 to 16 span 16 times, and so does the time; the same model's memory does not."""
    time = sweep_figure(axes, found, "batch_size", METRICS["time_to_first_token_ns"], LIGHT)
    assert (time.layout.xaxis.type, time.layout.yaxis.type) == ("log", "log")
    assert list(time.layout.xaxis.ticktext) == ["1", "4", "16"]
    memory = sweep_figure(axes, found, "batch_size", METRICS["peak_bytes"], LIGHT)
    assert memory.layout.yaxis.type == "linear"


def test_only_figures_that_are_known_can_be_chosen(found: list[Result]) -> None:
    """A model that generates has no time of a forward; an analysis has no times at all."""
    known = {metric.column for metric in known_metrics(found)}
    assert {"time_to_first_token_ns", "peak_bytes", "decode_flops"} <= known
    assert "forward_ns" not in known
    timeless = [
        Result(one.point, {name: None if name.endswith("_ns") else value for name, value in one.row.items()})
        for one in found
    ]
    assert not [metric for metric in known_metrics(timeless) if metric.text is units.time_text]


@given(st.floats(1, 1e15), st.floats(1, 1e6), st.booleans(), st.booleans())
def test_ticks_are_few_and_inside(low: float, factor: float, is_log: bool, binary: bool) -> None:
    """Two to eight ticks, all within the axis, which holds every value; linear axes begin at zero, and
    logarithmic ones are for values that span eight times and more."""
    high = low * (max(factor, 8.0) if is_log else factor)
    scale = (binary_scale if binary else decimal_scale)(low, high, is_log)
    bottom, top = (10**end for end in scale.span) if is_log else scale.span
    slack = 1 + 1e-9
    assert bottom <= low * slack
    assert high <= top * slack
    assert 2 <= len(scale.ticks) <= 8
    assert all(bottom / slack <= tick <= top * slack for tick in scale.ticks)
    if not is_log:
        assert bottom == scale.ticks[0] == 0
    if binary and is_log:
        assert all(math.log2(tick).is_integer() for tick in scale.ticks)


def test_the_view_fills_in_what_is_left_open(fleet: Fleet) -> None:
    """Without a wish the latest sweep is shown, along the number with most values; nonsense is left out."""
    open_view = SweepsView(fleet.source, SweepsState())
    assert open_view.chosen == SweepsState(SWEEP, "batch_size", "time_to_first_token_ns")
    nonsense = SweepsState("no-sweep", "nothing", "nothing", ("dtype:int3", "x"))
    assert SweepsView(fleet.source, nonsense).chosen == open_view.chosen


def test_only_some_of_the_points_can_be_drawn(fleet: Fleet) -> None:
    """Values of one option are either-or, options are both-and."""

    def drawn(*only: str) -> set[tuple[str, int]]:
        shown = SweepsView(fleet.source, SweepsState(SWEEP, only=only))
        return {(one.point["dtype"], one.point["batch_size"]) for one in shown.drawn}

    assert drawn("dtype:fp32") == {("fp32", 1), ("fp32", 4), ("fp32", 16)}
    assert drawn("batch_size:1", "batch_size:4", "dtype:bf16") == {("bf16", 1), ("bf16", 4)}
    assert SWEEP_FAILED not in drawn()
