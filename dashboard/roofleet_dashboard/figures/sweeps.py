"""The chart of a sweep: one figure of its runs against one of its options, a line for each other option."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go

from roofleet_analysis import units
from roofleet_analysis.sweeps import LABELS, Axes, Point, label, points, result_of, value_label, varying
from roofleet_dashboard.figures.palette import OKABE_ITO, SYMBOLS, Theme
from roofleet_dashboard.figures.scales import binary_scale, decimal_scale

__all__ = ["METRICS", "Metric", "Result", "axis_label", "known_metrics", "results", "sweep_figure"]

Row = Mapping[str, Any]
_PLOT_HEIGHT = 440
_PATTERNS = ("", "/", ".", "x", "-", "+")
_LOG_FROM = 8
"""An axis whose values span this factor is logarithmic."""


@dataclass(frozen=True)
class Metric:
    """One figure of a run: its column in the query sweep_runs, its name, a short one for the head of a table,
    and how it is written."""

    column: str
    label: str
    short: str
    text: Callable[[Any], str]
    is_binary: bool = False


METRICS = {
    metric.column: metric
    for metric in (
        Metric("time_to_first_token_ns", "Time to first token", "First token", units.time_text),
        Metric("time_per_output_token_ns", "Time per output token", "Per token", units.time_text),
        Metric("forward_ns", "Time of a forward", "Forward", units.time_text),
        Metric("tokens_per_s", "Tokens per second", "Tokens/s", units.count_text),
        Metric("peak_bytes", "Peak memory", "Memory", units.capacity_text, True),
        Metric("held_weight_bytes", "Weights at the peak", "Weights", units.capacity_text, True),
        Metric("held_kv_bytes", "KV cache at the peak", "KV cache", units.capacity_text, True),
        Metric("held_activation_bytes", "Activations at the peak", "Activations", units.capacity_text, True),
        Metric("first_flops", "Work of the first step", "First work", units.flops_text),
        Metric("decode_flops", "Work of a decode step", "Decode work", units.flops_text),
        Metric("first_bytes", "Bytes moved by the first step", "First moved", units.traffic_text),
        Metric("decode_bytes", "Bytes moved by a decode step", "Decode moved", units.traffic_text),
    )
}


@dataclass(frozen=True)
class Result:
    """A point of a sweep with the run that is its result."""

    point: Point
    row: Row


def results(model: str, axes: Axes, rows: Sequence[Row]) -> list[Result]:
    """The points that have a run, in the order of the grid."""
    found = ((point, result_of(point, model, rows)) for point in points(axes))
    return [Result(point, row) for point, row in found if row is not None]


def known_metrics(found: Sequence[Result]) -> list[Metric]:
    """The figures that some run of the sweep has; a forward only where that is all a model does."""
    generates = any(result.row["time_to_first_token_ns"] is not None for result in found)
    return [
        metric
        for metric in METRICS.values()
        if any(result.row[metric.column] is not None for result in found)
        and not (metric.column == "forward_ns" and generates)
    ]


def axis_label(name: str) -> str:
    """An option as the name of an axis: "Prompt tokens"."""
    words = LABELS.get(name, name.replace("_", " "))
    return words[0].upper() + words[1:]


def sweep_figure(axes: Axes, found: Sequence[Result], across: str, metric: Metric, theme: Theme) -> go.Figure:
    """The chart. Numbers lie on an axis, logarithmic where they span much; names stand beside one another as
    bars. A click on a point gives its run's id as `customdata`."""
    others = [name for name in varying(axes) if name != across]
    lines: dict[str, list[Result]] = {}
    for result in found:
        if result.row[metric.column] is not None:
            lines.setdefault(label(result.point, others) or metric.label, []).append(result)
    is_number = all(isinstance(value, int) for value in axes[across])
    figure = go.Figure()
    for number, (name, line) in enumerate(lines.items()):
        colour = OKABE_ITO[number % len(OKABE_ITO)]
        common: dict[str, Any] = {
            "x": [_place(result.point[across]) for result in line],
            "y": [result.row[metric.column] for result in line],
            "name": name,
            "customdata": [result.row["run_id"] for result in line],
            "hovertext": [_hover(axes, result, metric) for result in line],
            "hovertemplate": "%{hovertext}<extra></extra>",
        }
        if is_number:
            symbol = SYMBOLS[(number // len(OKABE_ITO)) % len(SYMBOLS)]
            marker = {"size": 9, "symbol": symbol, "color": colour, "line": {"width": 1, "color": theme.rim}}
            figure.add_trace(
                go.Scatter(**common, mode="lines+markers", line={"color": colour}, marker=marker)
            )
        else:
            pattern = {"shape": _PATTERNS[(number // len(OKABE_ITO)) % len(_PATTERNS)], "fgcolor": theme.rim}
            figure.add_trace(go.Bar(**common, marker={"color": colour, "pattern": pattern}))
    _style(figure, axes, across, metric, is_number, theme)
    return figure


def _place(value: Any) -> Any:
    return "as usual" if value is None else value


def _hover(axes: Axes, result: Result, metric: Metric) -> str:
    row = result.row
    lines = [f"<b>{metric.text(row[metric.column])}</b>", metric.label]
    lines += [value_label(name, result.point[name]) for name in varying(axes)]
    if row["noise"] and metric.text is units.time_text:
        lines.append(f"noisy: {row['noise']}")
    return "<br>".join(lines)


def _style(figure: go.Figure, axes: Axes, across: str, metric: Metric, is_number: bool, theme: Theme) -> None:
    entries = len(figure.data) if len(figure.data) > 1 else 0
    ys = [value for trace in figure.data for value in trace.y]
    figure.update_layout(
        height=_PLOT_HEIGHT + 24 * entries,
        margin={"l": 8, "r": 12, "t": 12, "b": 8},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"color": theme.text, "size": 12},
        hoverlabel={"align": "left"},
        showlegend=entries > 0,
        legend={"orientation": "v", "x": 0, "xanchor": "left", "y": -80 / _PLOT_HEIGHT, "yanchor": "top"},
        hovermode="closest",
        dragmode=False,
        modebar={"bgcolor": "rgba(0,0,0,0)", "color": theme.faint, "activecolor": theme.text},
    )
    line = {"gridcolor": theme.grid, "zeroline": False, "linecolor": theme.faint, "ticks": "outside"}
    figure.update_yaxes(**line, title=metric.label, automargin=True, **_up(ys, metric, is_number))
    figure.update_xaxes(**line, title=axis_label(across), automargin=True)
    if is_number:
        figure.update_xaxes(**_across([int(value) for value in axes[across]]))
    else:
        figure.update_xaxes(type="category")


def _across(values: Sequence[int]) -> dict[str, Any]:
    """The values themselves are the ticks."""
    is_log = min(values) > 0 and max(values) / min(values) >= _LOG_FROM
    return {
        "type": "log" if is_log else "linear",
        "tickvals": list(values),
        "ticktext": [f"{value:,}" for value in values],
    }


def _up(values: Sequence[float], metric: Metric, may_be_log: bool) -> dict[str, Any]:
    """From zero, or logarithmic where lines span much; bars always begin at zero."""
    positive = [value for value in values if value > 0]
    if not positive:
        return {}
    is_log = may_be_log and len(positive) == len(values) and max(positive) / min(positive) >= _LOG_FROM
    scale = (binary_scale if metric.is_binary else decimal_scale)(min(positive), max(positive), is_log)
    return {
        "type": "log" if is_log else "linear",
        "range": scale.span,
        "tickvals": scale.ticks,
        "ticktext": [metric.text(tick) for tick in scale.ticks],
    }
