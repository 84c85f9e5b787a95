"""A run as one block of HTML for a notebook: its summary as in a terminal, and its layers as a table."""

from __future__ import annotations

import io
from html import escape
from typing import Any

from roofleet.asking.reading import Query
from roofleet.reports.run import print_run
from roofleet_analysis.units import UNKNOWN, flops_text, percent_text, time_text, traffic_text

_LAYERS = (
    "SELECT phase, path, role, calls, self_ns, share_of_phase, matmul_flops, "
    "weight_bytes + activation_bytes + kv_bytes AS bytes, bound FROM layer_summary WHERE run_id = ? "
    "ORDER BY phase DESC, layer_index"
)
_HEADERS = ("phase", "layer", "role", "calls", "own time a step", "of phase", "matmul", "bytes", "bound")


def run_html(query: Query, run_id: str) -> str:
    """The block; it has no style but its own and no script."""
    from rich.console import Console

    console = Console(record=True, width=110, file=io.StringIO(), highlight=False)
    print_run(console, query, run_id)
    summary = console.export_html(inline_styles=True, code_format="<pre>{code}</pre>")
    rows = [_cells(row) for row in query(_LAYERS, (run_id,)).to_pylist()]
    return (
        f'<div class="roofleet-run">{summary}<details><summary>{len(rows)} rows of layers</summary>'
        f"{_table(rows)}</details></div>"
    )


def _cells(row: dict[str, Any]) -> list[str]:
    return [
        row["phase"],
        row["path"] or "(the model itself)",
        row["role"],
        UNKNOWN if row["calls"] is None else str(row["calls"]),
        time_text(row["self_ns"]),
        percent_text(row["share_of_phase"]),
        flops_text(row["matmul_flops"]),
        traffic_text(row["bytes"]),
        row["bound"] or UNKNOWN,
    ]


def _table(rows: list[list[str]]) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in _HEADERS)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
