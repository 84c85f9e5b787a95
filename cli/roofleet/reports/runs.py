"""Runs as a list: one a row, with what they are called and how fast they were."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from roofleet.console import table
from roofleet_analysis.units import moment_text, time_text

SHORT_ID = 8
"""Characters of an id that are shown; any beginning that fits one run names it."""


def runs_table(rows: Sequence[dict[str, Any]]) -> Any:
    """A table of rows of run_summary; what a run that is done need not say is left out."""
    headers = ["run", "model", "as", "workload", "first token", "a token", "began", ""]
    shown = [
        [
            row["run_id"][:SHORT_ID],
            str(row["model_name"]),
            row["dtype"] if row["variant"] == "base" else f"{row['dtype']} {row['variant']}",
            _workload(row),
            time_text(row["time_to_first_token_ns"]),
            time_text(row["time_per_output_token_ns"]),
            moment_text(row["started_at"]).removesuffix(" UTC"),
            " ".join(
                filter(None, ["" if row["status"] == "done" else f"({row['status']})", labels_text(row)])
            ),
        ]
        for row in rows
    ]
    return table(None, headers, shown, right=(4, 5))


def _workload(row: dict[str, Any]) -> str:
    """Batch, prompt and new tokens, such as `1 × 128 + 32`."""
    prompt = "" if row["prompt_tokens"] is None else f" × {row['prompt_tokens']}"
    return f"{row['batch_size']}{prompt}" + (f" + {row['new_tokens']}" if row["new_tokens"] else "")


def labels_text(row: dict[str, Any]) -> str:
    """Name, tags and note of a run in one line, and whether it is pinned; empty where there is nothing."""
    # an older collector does not know them
    tags = " ".join(f"#{tag}" for tag in row.get("tags") or ())
    pinned = "pinned" if row.get("pinned") else None
    return ", ".join(part for part in (row.get("run_name"), tags, row.get("note"), pinned) if part)
