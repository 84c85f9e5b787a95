"""The grid of a sweep: its points, the runs that are results of them, and the lines of its chart.

The axes of a sweep are a mapping of options to the values they take. Options in `RUN_OPTIONS` say how every
point is run and have one value; those in `WORKLOAD` may vary; any other is a number of the model's
configuration, such as `hidden_size`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import product
from typing import Any

Axes = Mapping[str, Sequence[Any]]
Point = dict[str, Any]
Row = Mapping[str, Any]

WORKLOAD = ("variant", "dtype", "attention", "batch_size", "prompt_tokens", "new_tokens")
RUN_OPTIONS = ("device", "iterations", "budget_s", "warmup", "weights", "logits", "analyze", "folder")
FINISHED = ("done", "analyzed", "failed")
"""Statuses of a run that settle its point; one that was cancelled, or never ended, is done again."""

LABELS = {
    "batch_size": "batch",
    "prompt_tokens": "prompt tokens",
    "new_tokens": "new tokens",
    "hidden_size": "hidden size",
    "num_hidden_layers": "layers",
    "vocab_size": "vocabulary",
    "num_attention_heads": "heads",
    "intermediate_size": "intermediate size",
}


def points(axes: Axes) -> list[Point]:
    """Every point of the grid, the last axis varying fastest; an option of the run is in each."""
    return [dict(zip(axes, values, strict=True)) for values in product(*axes.values())]


def varying(axes: Axes) -> list[str]:
    """The options that take several values, in their order."""
    return [name for name, values in axes.items() if len(values) > 1]


def settings_of(point: Point) -> dict[str, int]:
    """What a point changes in the model's configuration."""
    return {name: value for name, value in point.items() if name not in (*WORKLOAD, *RUN_OPTIONS)}


def model_name(model: str, point: Point) -> str:
    """The name of the model of a point: with what was changed, since that makes it another model."""
    changed = ", ".join(f"{name} {value}" for name, value in settings_of(point).items())
    return f"{model} ({changed})" if changed else model


def label(point: Point, names: Iterable[str]) -> str:
    """A point in words: "batch 4, prompt tokens 512, bf16"."""
    return ", ".join(value_label(name, point[name]) for name in names)


def value_label(name: str, value: Any) -> str:
    """One option in words. Names speak for themselves, numbers need theirs."""
    if value is None:
        return f"{name} as usual"
    return str(value) if isinstance(value, str) else f"{LABELS.get(name, name)} {value:,}"


def result_of(point: Point, model: str, rows: Iterable[Row]) -> Row | None:
    """The run that is the result of a point; of several the latest that settles it, else the latest.

    `rows` are runs of the sweep with `model_name`, `status`, `started_at` and the options of WORKLOAD.
    """
    name = model_name(model, point)
    found = [row for row in rows if row["model_name"] == name and _is_at(row, point)]
    return max(found, key=lambda row: (row["status"] in FINISHED, row["started_at"]), default=None)


def _is_at(row: Row, point: Point) -> bool:
    return all(
        row[name] == point[name] for name in WORKLOAD if name != "attention" and name in point
    ) and _is_attention(row["attention"], point.get("attention"))


def _is_attention(ran: str | None, asked: str | None) -> bool:
    """Without a wish any is right; `flex` and `flash` run under longer names."""
    return asked is None or (ran is not None and ran.startswith(asked))
