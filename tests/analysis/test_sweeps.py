"""The grid of a sweep: its points, their names, and which run is the result of which point."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from roofleet_analysis.sweeps import label, model_name, points, result_of, varying

AXES: dict[str, list[Any]] = {
    "hidden_size": [64, 128],
    "variant": ["base"],
    "dtype": ["fp32", "bf16"],
    "attention": [None],
    "batch_size": [1, 2048],
    "prompt_tokens": [8],
    "new_tokens": [4],
    "iterations": [5],
}
NOW = datetime(2026, 1, 1, tzinfo=UTC)


def run(**changes: Any) -> dict[str, Any]:
    """A run of the first point."""
    row = {
        "model_name": "gpt2 (hidden_size 64)",
        "status": "done",
        "started_at": NOW,
        "variant": "base",
        "dtype": "fp32",
        "attention": "sdpa",
        "batch_size": 1,
        "prompt_tokens": 8,
        "new_tokens": 4,
    }
    return row | changes


def test_the_grid_has_every_combination_once() -> None:
    """2 sizes x 2 dtypes x 2 batches = 8 points, the last option varying fastest."""
    found = points(AXES)
    assert len(found) == 8
    assert len({tuple(point.items()) for point in found}) == 8
    assert [point["batch_size"] for point in found[:3]] == [1, 2048, 1]
    assert varying(AXES) == ["hidden_size", "dtype", "batch_size"]


def test_a_point_is_told_by_what_varies() -> None:
    """Names stand for themselves, numbers come with theirs; a changed model has a name of its own."""
    last = points(AXES)[-1]
    assert label(last, varying(AXES)) == "hidden size 128, bf16, batch 2,048"
    assert model_name("gpt2", last) == "gpt2 (hidden_size 128)"
    assert model_name("gpt2", {"batch_size": 4, "iterations": 5}) == "gpt2"


@pytest.mark.parametrize(
    "other",
    [
        {"batch_size": 2048},
        {"dtype": "bf16"},
        {"variant": "int8-dynamic"},
        {"prompt_tokens": 9},
        {"new_tokens": 5},
        {"model_name": "gpt2 (hidden_size 128)"},
        {"model_name": "gpt2"},
    ],
)
def test_a_run_of_another_point_is_no_result(other: dict[str, Any]) -> None:
    """Every option has to be the point's own."""
    first = points(AXES)[0]
    assert result_of(first, "gpt2", [run()]) == run()
    assert result_of(first, "gpt2", [run(**other)]) is None


def test_attention_counts_where_it_was_asked_for() -> None:
    """Without a wish any implementation is right; `flex` runs as flex_attention."""
    first = points(AXES)[0]
    flex = first | {"attention": "flex"}
    assert result_of(first, "gpt2", [run(attention="eager")]) is not None
    assert result_of(flex, "gpt2", [run(attention="flex_attention")]) is not None
    assert result_of(flex, "gpt2", [run(attention="sdpa")]) is None
    assert result_of(flex, "gpt2", [run(attention=None)]) is None


def test_a_run_that_ended_comes_before_a_later_one_that_did_not() -> None:
    """An interrupted repetition does not hide a result; of two results the later one counts."""
    first = points(AXES)[0]
    later = run(started_at=NOW + timedelta(hours=1))
    stopped = run(started_at=NOW + timedelta(hours=2), status="cancelled")
    assert result_of(first, "gpt2", [run(), stopped, later]) == later
    assert result_of(first, "gpt2", [stopped]) == stopped
