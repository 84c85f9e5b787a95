"""Small tables of names and values: as text with a unit, and with all digits beside it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import dash_mantine_components as dmc
from dash import html

from roofleet_analysis import units

__all__ = ["Figure", "figures_table", "layer_figures", "point_figures", "rows_table", "term"]


@dataclass(frozen=True)
class Figure:
    """One named value: its text, its exact form, and what the name means."""

    key: str
    label: str
    text: str
    exact: str = ""
    meaning: str = ""


ABOVE = "A device cannot do more than it can: the roof was measured too low, or work or time are not right."
DTYPES = "Each product is held against the roof of the type it is computed in."


def term(label: str, meaning: str) -> Any:
    """A word that explains itself when pointed at, tapped or reached by keyboard."""
    if not meaning:
        return label
    word = html.Span(label, className="rf-term", tabIndex=0)
    return dmc.Tooltip(
        word,
        label=meaning,
        multiline=True,
        w=280,
        withArrow=True,
        boxWrapperProps={"style": {"display": "inline-block"}},
        events={"hover": True, "focus": True, "touch": True},
    )


def figures_table(figures: Iterable[Figure], *, exact: bool = True) -> Any:
    """A table of values. Each value cell carries `data-figure` and `data-exact`."""
    body = [
        html.Tr(
            [
                html.Th(term(f.label, f.meaning), scope="row"),
                html.Td(f.text, **{"data-figure": f.key, "data-exact": f.exact}),
                *([html.Td(f.exact, className="rf-exact")] if exact else []),
            ]
        )
        for f in figures
    ]
    return html.Div(html.Table(html.Tbody(body), className="rf-figures"), className="rf-scroll")


def rows_table(heads: Sequence[Any], body: Iterable[Sequence[Any]]) -> Any:
    """A plain table that scrolls by itself where it is wider than the page."""
    return html.Div(
        html.Table(
            [
                html.Thead(html.Tr([html.Th(head) for head in heads])),
                html.Tbody([html.Tr([html.Td(cell) for cell in row]) for row in body]),
            ],
            className="rf-rows",
        ),
        className="rf-scroll",
    )


def point_figures(row: Mapping[str, Any]) -> list[Figure]:
    """The figures of one row of roofline_points."""
    return [
        _time("time_ns", "Time", row, "Of one step. The whole model: its median without layer timing."),
        Figure(
            "share_of_phase",
            "Share of phase",
            units.percent_text(row["share_of_phase"]),
            units.exact_text(row["share_of_phase"]),
            "Own time over the own times of all layers in this phase.",
        ),
        *_work(row["flops"], row["bytes"]),
        *_roofline(row),
    ]


def layer_figures(row: Mapping[str, Any]) -> list[Figure]:
    """The figures of one row of layer_summary: its own, and with the layers inside."""
    inside = "With the layers inside it."
    total_flops = _sum(row, "total_matmul_flops", "total_other_flops")
    total_bytes = _sum(row, "total_weight_bytes", "total_activation_bytes", "total_kv_bytes")
    found = [
        _time("self_ns", "Time, own", row, "Median time in a step less that of the layers inside it."),
        _time("p50_ns", "Time, total", row, f"Median time in a step. {inside}"),
        _time("p95_ns", "Time, p95", row, f"95th percentile over the steps. {inside}"),
        Figure(
            "share_of_phase",
            "Share of phase",
            units.percent_text(row["share_of_phase"]),
            units.exact_text(row["share_of_phase"]),
            "Own time over the own times of all layers in this phase.",
        ),
        Figure(
            "calls",
            "Calls",
            units.count_text(row["calls"]),
            units.exact_text(row["calls"]),
            "How often a step calls the layer.",
        ),
        Figure(
            "ops",
            "Own ops",
            units.count_text(row["ops"]),
            units.exact_text(row["ops"]),
            "Operations that this layer does itself, views left out.",
        ),
        *_work(_sum(row, "matmul_flops", "other_flops"), _bytes(row)),
        Figure("weight_bytes", "Weights read", *_traffic(row["weight_bytes"])),
        Figure("activation_bytes", "Activations", *_traffic(row["activation_bytes"])),
        Figure("kv_bytes", "KV cache", *_traffic(row["kv_bytes"]), "Keys and values of earlier tokens."),
    ]
    if not row["is_leaf"]:
        found += [
            Figure("total_flops", "Work, total", *_flops(total_flops), inside),
            Figure("total_bytes", "Moved, total", *_traffic(total_bytes), inside),
        ]
    return [
        *found,
        *_roofline(row),
        _time("time_at_roof_ns", "Time at the roof", row, "What its own operations would take at the roof."),
        Figure(
            "peak_memory_bytes",
            "Peak memory",
            units.capacity_text(row["peak_memory_bytes"]),
            units.exact_text(row["peak_memory_bytes"], "B"),
            "Most live cache and activation bytes while the layer ran; weights not counted.",
        ),
    ]


def _time(key: str, label: str, row: Mapping[str, Any], meaning: str) -> Figure:
    return Figure(key, label, units.time_text(row[key]), units.exact_text(row[key], "ns"), meaning)


def _work(flops: float | None, moved: float | None) -> list[Figure]:
    return [
        Figure("flops", "Work", *_flops(flops), "Floating-point operations of one step."),
        Figure("bytes", "Bytes moved", *_traffic(moved), "Each input read once, each output written once."),
    ]


def _roofline(row: Mapping[str, Any]) -> list[Figure]:
    return [
        Figure(
            "arithmetic_intensity",
            "Intensity",
            units.intensity_text(row["arithmetic_intensity"]),
            units.exact_text(row["arithmetic_intensity"], "FLOP/byte"),
            "Arithmetic intensity: work for each byte moved.",
        ),
        Figure("achieved_flops_per_s", "Achieved", *_rate(row["achieved_flops_per_s"])),
        Figure(
            "attainable_flops_per_s",
            "Attainable",
            *_rate(row["attainable_flops_per_s"]),
            "What the roofs allow at this intensity.",
        ),
        Figure(
            "roofline_fraction",
            "Of the roof",
            units.utilization_text(row["roofline_fraction"]),
            units.exact_text(row["roofline_fraction"]),
            "Time at the roof over the time taken; 100 % is as fast as the device can. (!) marks what lies "
            "above: a fault of the roof, the work or the time.",
        ),
        *([Figure("fault", "Above its roof", row["fault"], "", ABOVE)] if row["fault"] else []),
        *(
            [Figure("product_dtypes", "Products in", units.dtypes_text(row["product_dtypes"]), "", DTYPES)]
            if row["product_dtypes"]
            else []
        ),
        Figure(
            "bound",
            "Bound by",
            row["bound"] or units.UNKNOWN,
            "",
            "Compute or memory: the side of the ridge it lies on. Overhead: far below the roof, with "
            "operations so short that starting them takes longer than doing them.",
        ),
    ]


def _flops(n: float | None) -> tuple[str, str]:
    return units.flops_text(n), units.exact_text(n, "FLOP")


def _traffic(n: float | None) -> tuple[str, str]:
    return units.traffic_text(n), units.exact_text(n, "B")


def _rate(n: float | None) -> tuple[str, str]:
    return units.rate_text(n, "FLOP/s"), units.exact_text(n, "FLOP/s")


def _bytes(row: Mapping[str, Any]) -> int | None:
    return _sum(row, "weight_bytes", "activation_bytes", "kv_bytes")


def _sum(row: Mapping[str, Any], *columns: str) -> int | None:
    """The sum of columns; None where one of them is not known."""
    values = [row[column] for column in columns]
    return None if None in values else sum(values)
