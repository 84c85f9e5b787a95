"""The roofline chart: what runs reach, against what devices allow, on two logarithmic axes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from textwrap import wrap
from typing import Any

import plotly.graph_objects as go

from roofleet_analysis import units
from roofleet_analysis.roofline import ridge_point
from roofleet_dashboard.figures.label_places import Dot, label_places
from roofleet_dashboard.figures.palette import OKABE_ITO, SYMBOLS, Theme
from roofleet_dashboard.figures.roofs import DeviceRoofs, add_roofs, pairs

__all__ = ["ABOVE_ROOF", "Series", "drawable", "roofline_figure"]

Row = Mapping[str, Any]
Span = tuple[float, float]

ABOVE_ROOF = "above its roof: the roof, its work or its time is at fault"
_PLOT_HEIGHT = 560
_MODEL_SIZE = 18.0
_NAMED_AT = (0.5, 0.28, 0.39)
"""Where along the chart the slopes of the devices have their names, so that these do not meet."""


@dataclass(frozen=True)
class Series:
    """The points of one phase of one run: rows of roofline_points, the model's own among them."""

    label: str
    rows: tuple[Row, ...]
    shape: int
    """Number of the run among those shown: it decides the symbol."""


def drawable(row: Row) -> bool:
    """Whether a point has a place on logarithmic axes."""
    return all((row[axis] or 0) > 0 for axis in ("arithmetic_intensity", "achieved_flops_per_s"))


def roofline_figure(series: Sequence[Series], devices: Sequence[DeviceRoofs], theme: Theme) -> go.Figure:
    """The chart. A click on a point gives its `customdata`: run id, phase, level, name. The legend has one
    entry for each series and one for the roofs of each device and kind of source."""
    figure = go.Figure()
    across, up = _spans(series, devices)
    for number, device in enumerate(devices):
        add_roofs(figure, device, *across, theme.roofs[number % len(theme.roofs)], _NAMED_AT[number % 3])
    places = _label_places(series, across, up)
    for number, one in enumerate(series):
        _add_points(figure, one, OKABE_ITO[number % len(OKABE_ITO)], theme, places[number])
    _mark_faults(figure, series, theme)
    _style(figure, across, up, theme)
    return figure


def _spans(series: Sequence[Series], devices: Sequence[DeviceRoofs]) -> tuple[Span, Span]:
    """The range of each axis: every point, and every ridge with room for its roof."""
    rows = [row for one in series for row in one.rows if drawable(row)]
    ridges = [
        (ridge_point(compute.per_s, memory.per_s), compute.per_s)
        for device in devices
        for memory, computes in pairs(device)
        for compute in computes
    ]
    xs = [row["arithmetic_intensity"] for row in rows] + [x for x, _ in ridges]
    ys = [row["achieved_flops_per_s"] for row in rows] + [y for _, y in ridges]
    if not xs:
        return (0.1, 1000.0), (1e9, 1e13)
    return (min(min(xs) / 3, 0.3), max(max(xs) * 6, 30.0)), (min(ys) / 4, max(ys) * 3)


def _label_places(series: Sequence[Series], across: Span, up: Span) -> list[list[str | None]]:
    """A place for the name of each drawable point of a role, those that take longest first."""
    wide, high = 300.0, 420.0  # of a phone's chart, so that larger ones have room to spare
    named = [
        (number, place, row)
        for number, one in enumerate(series)
        for place, row in enumerate(row for row in one.rows if drawable(row))
    ]
    named.sort(key=lambda item: -(item[2]["share_of_phase"] or 0.0))
    dots = [
        Dot(
            wide * math.log(row["arithmetic_intensity"] / across[0]) / math.log(across[1] / across[0]),
            high * math.log(up[1] / row["achieved_flops_per_s"]) / math.log(up[1] / up[0]),
            _diameter(row),
            row["name"] if row["level"] == "role" else "",
        )
        for _, _, row in named
    ]
    found: list[list[str | None]] = [[None] * sum(drawable(row) for row in one.rows) for one in series]
    for (number, place, _), where in zip(named, label_places(dots, wide), strict=True):
        found[number][place] = where
    return found


def _add_points(
    figure: go.Figure, series: Series, colour: str, theme: Theme, places: Sequence[str | None]
) -> None:
    drawn = list(zip((row for row in series.rows if drawable(row)), places, strict=True))
    for is_model in (False, True):
        rows = [row for row, _ in drawn if (row["level"] == "model") == is_model]
        if not rows:
            continue
        where = [place for row, place in drawn if (row["level"] == "model") == is_model]
        shares = [row["share_of_phase"] or 0.0 for row in rows]
        labelled = any(where)
        figure.add_trace(
            go.Scatter(
                x=[row["arithmetic_intensity"] for row in rows],
                y=[row["achieved_flops_per_s"] for row in rows],
                mode="markers+text" if labelled else "markers",
                text=[row["name"] if place else "" for row, place in zip(rows, where, strict=True)],
                textposition=[place or "middle right" for place in where],
                textfont={"size": 11, "color": theme.text},
                name=series.label,
                legendgroup=series.label,
                showlegend=not is_model or len(rows) == len(drawn),
                marker={
                    "symbol": "star" if is_model else SYMBOLS[series.shape % len(SYMBOLS)],
                    "color": colour,
                    "size": _MODEL_SIZE if is_model else [_size(share) for share in shares],
                    "opacity": 1.0 if is_model else 0.8,
                    "line": {"width": 1, "color": theme.text if is_model else theme.rim},
                },
                customdata=[[row["run_id"], row["phase"], row["level"], row["name"]] for row in rows],
                hovertext=[_hover(series.label, row) for row in rows],
                hovertemplate="%{hovertext}<extra></extra>",
            )
        )


def _mark_faults(figure: go.Figure, series: Sequence[Series], theme: Theme) -> None:
    """A ring with a cross around each point above its roof: a device cannot do more than it can."""
    found = [(one.label, row) for one in series for row in one.rows if drawable(row) and row["fault"]]
    if not found:
        return
    figure.add_trace(
        go.Scatter(
            x=[row["arithmetic_intensity"] for _, row in found],
            y=[row["achieved_flops_per_s"] for _, row in found],
            mode="markers",
            name=ABOVE_ROOF,
            marker={
                "symbol": "circle-x-open",
                "size": [10 + _diameter(row) for _, row in found],
                "color": theme.fault,
                "line": {"width": 2, "color": theme.fault},
            },
            customdata=[[row["run_id"], row["phase"], row["level"], row["name"]] for _, row in found],
            hovertext=[_hover(label, row) for label, row in found],
            hovertemplate="%{hovertext}<extra></extra>",
        )
    )  # fmt: skip


def _hover(label: str, row: Row) -> str:
    return "<br>".join(
        (
            f"<b>{row['name']}</b>" + (f" ({row['role']})" if row["level"] == "layer" else ""),
            label,
            f"intensity {units.intensity_text(row['arithmetic_intensity'])}",
            f"achieved {units.rate_text(row['achieved_flops_per_s'], 'FLOP/s')} of "
            f"{units.rate_text(row['attainable_flops_per_s'], 'FLOP/s')} attainable "
            f"({units.utilization_text(row['roofline_fraction'])})",
            f"time {units.time_text(row['time_ns'])}, "
            f"{units.percent_text(row['share_of_phase'])} of the phase",
            f"work {units.flops_text(row['flops'])}, moved {units.traffic_text(row['bytes'])}",
            f"bound by {row['bound'] or 'nothing known'}",
            *(["<b>above its roof</b>", *wrap(row["fault"], 60)] if row["fault"] else []),
        )
    )


def _diameter(row: Row) -> float:
    return _MODEL_SIZE if row["level"] == "model" else _size(row["share_of_phase"] or 0.0)


def _size(share: float) -> float:
    """Diameter in pixels; the area goes with the share of time."""
    return max(7.0, min(40.0, 44.0 * math.sqrt(share)))


def _style(figure: go.Figure, across: Span, up: Span, theme: Theme) -> None:
    entries = sum(bool(trace.showlegend) for trace in figure.data)
    axis = {
        "type": "log",
        "gridcolor": theme.grid,
        "zeroline": False,
        "linecolor": theme.faint,
        "ticks": "outside",
    }
    figure.update_layout(
        height=_PLOT_HEIGHT + 24 * entries,
        margin={"l": 8, "r": 12, "t": 34, "b": 8},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"color": theme.text, "size": 12},
        hoverlabel={"align": "left"},
        legend={
            "orientation": "v",
            "x": 0,
            "xanchor": "left",
            "y": -90 / _PLOT_HEIGHT,
            "yanchor": "top",
            "itemsizing": "constant",
            "font": {"size": 12},
        },
        hovermode="closest",
        uirevision="roofline",
        dragmode="pan",
        modebar={"bgcolor": "rgba(0,0,0,0)", "color": theme.faint, "activecolor": theme.text},
    )
    figure.update_xaxes(
        **axis, **_ticks(*across), title="Arithmetic intensity (FLOP/byte)",
        range=[math.log10(end) for end in across],
    )  # fmt: skip
    figure.update_yaxes(
        **axis, **_ticks(*up), title="Achieved (FLOP/s)", automargin=True,
        range=[math.log10(end) for end in up],
    )  # fmt: skip


def _ticks(low: float, high: float) -> dict[str, Any]:
    """A tick at each power of ten, well beyond the range so that panning finds some."""
    powers = range(math.floor(math.log10(low)) - 3, math.ceil(math.log10(high)) + 4)
    return {
        "tickvals": [10.0**n for n in powers],
        "ticktext": [units.tick_text(10.0**n, "") if n >= 6 else f"{10.0**n:,.10g}" for n in powers],
    }
