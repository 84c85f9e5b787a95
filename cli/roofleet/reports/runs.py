"""Runs as a list: one a row, with what they are called and how fast they were."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from roofleet.console import table
from roofleet_analysis.units import UNKNOWN, capacity_text, moment_text, time_text

SHORT_ID = 8
"""Characters of an id that are shown; any beginning that fits one run names it."""


def runs_table(rows: Sequence[dict[str, Any]]) -> Any:
    """A table of rows of run_summary."""
    headers = ["run", "model", "as", "batch", "prompt", "new", "first token", "a token", "peak", "status"]
    shown = [
        [
            row["run_id"][:SHORT_ID],
            str(row["model_name"]),
            row["dtype"] if row["variant"] == "base" else f"{row['dtype']} {row['variant']}",
            str(row["batch_size"]),
            UNKNOWN if row["prompt_tokens"] is None else str(row["prompt_tokens"]),
            str(row["new_tokens"]),
            time_text(row["time_to_first_token_ns"]),
            time_text(row["time_per_output_token_ns"]),
            capacity_text(row["peak_memory_bytes"]),
            row["status"],
            moment_text(row["started_at"]),
            labels_text(row),
        ]
        for row in rows
    ]
    return table(None, [*headers, "began", "said of it"], shown, right=range(3, 9))


def labels_text(row: dict[str, Any]) -> str:
    """Name, tags and note of a run in one line; empty where there are none."""
    # an older collector does not know them
    tags = " ".join(f"#{tag}" for tag in row.get("tags") or ())
    return "  ".join(part for part in (row.get("run_name"), tags, row.get("note")) if part)
