"""The results of a sweep: tables for people, one object for scripts, and a page with charts."""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from roofleet.console import table
from roofleet_agent.variants import parse
from roofleet_agent.variants.names import roof_dtype
from roofleet_analysis.costs import Cost
from roofleet_analysis.roofline import LowerBound, lower_bound
from roofleet_analysis.sweeps import LABELS, label, result_of, varying
from roofleet_analysis.units import (
    UNKNOWN,
    capacity_text,
    count_text,
    flops_text,
    time_text,
    traffic_text,
)

if TYPE_CHECKING:
    from rich.console import Console

    from roofleet.running.sweeping import Sweep
    from roofleet_analysis.catalogs.hardware import Hardware

Row = Mapping[str, Any]
Column = tuple[str, Callable[[Row], str]]


def as_json(
    sweep: Sweep, rows: Sequence[Row], reasons: Mapping[str, str], chips: Sequence[Hardware]
) -> dict[str, Any]:
    """The sweep with its points; the run of a point is None where it has none, and `error` says why."""
    listed = []
    for point in sweep.points:
        row = result_of(point, sweep.model, rows)
        listed.append(
            {
                "point": point,
                "run": row,
                "error": row["error"] if row else reasons.get(label(point, sweep.varying)),
                "lower_bounds": {chip.name: _bounds(row, chip) for chip in chips} if row else {},
            }
        )
    return {"sweep_id": sweep.sweep_id, "model": sweep.model, "axes": sweep.axes, "points": listed}


def print_sweep(
    out: Console,
    sweep: Sweep,
    rows: Sequence[Row],
    reasons: Mapping[str, str],
    chips: Sequence[Hardware],
) -> None:
    """Prints times and work of each point, then memory, then what failed and what was noisy."""
    from rich.markup import escape

    found = [(point, result_of(point, sweep.model, rows)) for point in sweep.points]
    names = sweep.varying or ["batch_size"]
    done = [(point, row) for point, row in found if row and row["status"] in ("done", "analyzed")]
    where = f" on {done[0][1]['device_name']}" if done and done[0][1]["status"] == "done" else ""
    how = ", analysed and not run" if sweep.axes["analyze"][0] else ""
    out.print(f"\n[bold]{escape(sweep.model)}[/bold]: {len(done)} of {len(found)} points{escape(where)}{how}")
    if done:
        axes = [[_value(point[name]) for name in names] for point, _ in done]
        heads = [LABELS.get(name, name) for name in names]
        results = [row for _, row in done]
        out.print(_table(_heading(results), heads, axes, _steps(results, chips), results))
        out.print(_table("Memory at the peak", heads, axes, _MEMORY, results))
    failed: dict[str, list[str]] = {}
    for point, row in found:
        if row is None or row["status"] not in ("done", "analyzed"):
            why = row["error"] if row else reasons.get(label(point, sweep.varying))
            failed.setdefault(f"failed: {why}" if why else "not done", []).append(label(point, names))
    for why, words in failed.items():
        out.print(f"{'; '.join(words)} {why}", markup=False)
    noisy = [(point, row) for point, row in done if row["noise"]]
    if noisy:
        point, row = noisy[0]
        out.print(
            f"noisy: {len(noisy)} of {len(done)} points, such as {label(point, names)}: {row['noise']}",
            markup=False,
        )
    out.print(f"sweep {sweep.sweep_id}", style="dim")


def _table(
    title: str, heads: list[str], axes: list[list[str]], columns: Sequence[Column], rows: Sequence[Row]
) -> Any:
    """The columns that some run has something in, beside the options that vary."""
    shown = [(head, [text(row) for row in rows]) for head, text in columns]
    shown = [(head, texts) for head, texts in shown if any(text != UNKNOWN for text in texts)]
    lines = [[*axis, *(texts[number] for _, texts in shown)] for number, axis in enumerate(axes)]
    headers = [*heads, *(head for head, _ in shown)]
    return table(title, headers, lines, right=range(len(headers)))


def write_chart(file: Path, sweep: Sweep, rows: Sequence[Row]) -> None:
    """A page that stands by itself, with a chart of every figure the runs have."""
    from roofleet_dashboard.figures.palette import LIGHT
    from roofleet_dashboard.figures.sweeps import known_metrics, results, sweep_figure

    found = results(sweep.model, sweep.axes, rows)
    names = varying(sweep.axes) or ["batch_size"]
    across = max(names, key=lambda name: (isinstance(sweep.axes[name][0], int), len(sweep.axes[name])))
    charts = []
    for number, metric in enumerate(known_metrics(found)):
        figure = sweep_figure(sweep.axes, found, across, metric, LIGHT)
        drawn = figure.to_html(full_html=False, include_plotlyjs=number == 0, config=_CONFIG)
        charts.append(f"<h2>{html.escape(metric.label)}</h2>{drawn}")
    title = html.escape(f"{sweep.model}: sweep over {', '.join(LABELS.get(n, n) for n in names)}")
    file.write_text(_PAGE.format(title=title, charts="\n".join(charts)), encoding="utf-8")


_CONFIG = {"displaylogo": False, "responsive": True, "modeBarButtons": [["toImage"]]}
_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>html {{ overflow-y: scroll; }}
body {{ font-family: system-ui, sans-serif; max-width: 1100px; margin: 0 auto; padding: 12px; }}
h1 {{ font-size: 1.4rem; }} h2 {{ font-size: 1.1rem; margin: 24px 0 0; }}</style></head>
<body><h1>{title}</h1>
{charts}
</body></html>
"""


def _heading(rows: Sequence[Row]) -> str:
    """What the figures of a step stand for: those of decode are of its middle step."""
    cached = {row["decode_cached_tokens"] for row in rows} - {None}
    if not cached:
        return "Time and work of a step"
    after = f"{cached.pop():,} cached tokens" if len(cached) == 1 else "as many cached tokens as are told"
    return f"Time and work of a step; decode is the middle one of its steps, after {after}"


def _steps(rows: Sequence[Row], chips: Sequence[Hardware]) -> list[Column]:
    """The columns of the first table; those that no run knows are left out later."""
    first = "prefill" if any(row["first_phase"] == "prefill" for row in rows) else "forward"
    columns: list[Column] = [
        ("first token", lambda row: time_text(row["time_to_first_token_ns"])),
        ("per token", lambda row: time_text(row["time_per_output_token_ns"])),
    ]
    if first == "forward":
        columns = [("forward", lambda row: time_text(row["forward_ns"]))]
    columns.append(("tokens/s", lambda row: count_text(row["tokens_per_s"])))
    for chip in chips:
        for key in (first, "decode"):
            columns.append((f"{key} on {chip.name}", _bound_text(chip, key)))
    if len({row["decode_cached_tokens"] for row in rows}) > 1:
        columns.append(("decode after", lambda row: count_text(row["decode_cached_tokens"])))
    return [
        *columns,
        (f"{first} work", lambda row: flops_text(row["first_flops"])),
        ("moved", lambda row: traffic_text(row["first_bytes"])),
        ("decode work", lambda row: flops_text(row["decode_flops"])),
        ("moved", lambda row: traffic_text(row["decode_bytes"])),
    ]


_MEMORY: list[Column] = [
    ("weights", lambda row: capacity_text(row["held_weight_bytes"])),
    ("KV cache", lambda row: capacity_text(row["held_kv_bytes"])),
    ("activations", lambda row: capacity_text(row["held_activation_bytes"])),
    ("together", lambda row: capacity_text(row["peak_bytes"])),
    ("in", lambda row: row["peak_phase"] or UNKNOWN),
]


def _bound_text(chip: Hardware, phase: str) -> Callable[[Row], str]:
    def text(row: Row) -> str:
        bound = _bound(row, "decode" if phase == "decode" else "first", chip)
        return f"≥ {time_text(bound.lower_bound_ns)}" if bound else UNKNOWN

    return text


def _bounds(row: Row, chip: Hardware) -> dict[str, Any]:
    phases = (("first", row["first_phase"]), ("decode", "decode"))
    found = {name: _bound(row, which, chip) for which, name in phases if name}
    return {name: asdict(bound) for name, bound in found.items() if bound}


def _bound(row: Row, which: str, chip: Hardware) -> LowerBound | None:
    if row[f"{which}_needed_flops"] is None:
        return None
    cost = Cost(needed_flops=row[f"{which}_needed_flops"], weight_bytes=row[f"{which}_needed_bytes"])
    return lower_bound(cost, roof_dtype(row["dtype"], parse(row["variant"])), chip)


def _value(value: Any) -> str:
    return "as usual" if value is None else f"{value:,}" if isinstance(value, int) else str(value)
