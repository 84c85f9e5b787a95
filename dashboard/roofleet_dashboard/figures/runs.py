"""The table of runs, and the summary of one: phases and what to look at first."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from roofleet_analysis import units
from roofleet_dashboard.figures.tables import ABOVE, DTYPES, Figure, rows_table, term

__all__ = [
    "COLUMNS",
    "GridColumn",
    "bottleneck_table",
    "column_definitions",
    "grid_rows",
    "phase_table",
    "run_figures",
]

Row = Mapping[str, Any]


@dataclass(frozen=True)
class GridColumn:
    """A column of the table: plain numbers in the unit that its head names, so they sort and filter.

    What is `rare` is not shown where no run has it.
    """

    field: str
    head: str
    unit: str | None = None
    meaning: str = ""
    width: int = 120
    kind: str = "number"
    pinned: bool = False
    rare: bool = False


TTFT = "Time to first token: median prefill step, without layer timing."
TPOT = "Time per output token: median decode step, without layer timing."
MFU = "Model FLOP utilisation: time of the matrix work at its roofs over the time, in prefill or forward."
MBU = "Memory bandwidth utilisation: time of the traffic at its roof over the time, in decode or forward."
OVERHEAD = "What measuring layer by layer adds to a step. Latencies are measured without it."
COVERAGE = "How much of a bare step the times of the layers explain. Near 100 % nothing is hidden."

COLUMNS = (
    GridColumn("model_name", "Model", width=140, kind="text", pinned=True),
    GridColumn("variant", "Variant", meaning="How the model was changed; base is unchanged.", width=115,
               kind="text"),
    GridColumn("run_name", "Name", meaning="What the run is called: `roofleet runs name`.", width=140,
               kind="text", rare=True),
    GridColumn("tags", "Tags", meaning="Words it is found by: `roofleet runs tag`.", width=130, kind="text",
               rare=True),
    GridColumn("started_at", "Started, UTC", width=160, kind="text"),
    GridColumn("status", "Status", width=100, kind="text"),
    GridColumn("time_to_first_token_ns", "TTFT, ms", "ms", TTFT, 100),
    GridColumn("time_per_output_token_ns", "TPOT, ms", "ms", TPOT, 100),
    GridColumn("tokens_per_s", "Tokens/s", "", "Tokens generated a second, prefill included; processed "
               "a second for a model that does not generate.", 120),
    GridColumn("peak_memory_bytes", "Peak memory, GiB", "GiB", "Weights, cache and activations.", 125),
    GridColumn("device_name", "Device", width=150, kind="text"),
    GridColumn("hostname", "Host", width=120, kind="text"),
    GridColumn("dtype", "Dtype", width=105, kind="text"),
    GridColumn("batch_size", "Batch", meaning="Sequences in the batch", width=105),
    GridColumn("prompt_tokens", "Prompt, tokens", width=110),
    GridColumn("new_tokens", "New, tokens", meaning="Tokens generated for each sequence", width=110),
    GridColumn("model_flops_utilization", "MFU, %", "%", MFU, 90),
    GridColumn("memory_bandwidth_utilization", "MBU, %", "%", MBU, 90),
    GridColumn("fault", "Above its roof", meaning=f"Marked (!) beside MFU and MBU. {ABOVE}", width=150,
               kind="text", rare=True),
    GridColumn("energy_per_token_j", "Energy, J/token", "J", width=120),
    GridColumn("instrumentation_overhead", "Overhead, %", "%", OVERHEAD, 110),
    GridColumn("layer_time_coverage", "Coverage, %", "%", COVERAGE, 110),
    GridColumn("weights", "Weights", meaning="Pretrained, random (as fast, but say nothing sensible), or "
               "a module's own.", width=110, kind="text"),
    GridColumn("roof_source_kind", "Roofs", meaning="Where the roofs of MFU and MBU come from.", width=110,
               kind="text"),
    GridColumn("error", "Error", width=260, kind="text", rare=True),
)  # fmt: skip


_UTILIZATIONS = ("model_flops_utilization", "memory_bandwidth_utilization")
_PLAIN = "params.value == null ? '–' : params.value"
_UTILIZATION = (
    "params.value == null ? '–' : (params.data.utilization_is_least ? '≥ ' : '') + params.value"
    " + (params.value > 100 ? ' (!)' : '')"
)


def column_definitions(rows: Sequence[Row] = ()) -> list[dict[str, Any]]:
    """The columns for AG Grid, of a table with those rows."""
    found = []
    for column in COLUMNS:
        definition: dict[str, Any] = {
            "field": column.field,
            "headerName": column.head,
            "width": column.width,
            "filter": "agNumberColumnFilter" if column.kind == "number" else "agTextColumnFilter",
            "type": "rightAligned" if column.kind == "number" else None,
            "valueFormatter": {"function": _UTILIZATION if column.field in _UTILIZATIONS else _PLAIN},
            "headerTooltip": column.meaning or column.head,
            "tooltipField": column.field if column.kind == "text" else None,
            "pinned": "left" if column.pinned else None,
            "hide": column.rare and not any(row[column.field] for row in rows),
        }
        found.append({key: value for key, value in definition.items() if value is not None})
    return found


def grid_rows(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """The rows of the query runs in the units of the columns' heads, with `run_id`."""
    return [
        {"run_id": row["run_id"], "utilization_is_least": bool(row["utilization_is_least"])}
        | {c.field: _cell(row, c) for c in COLUMNS}
        for row in rows
    ]


def _cell(row: Row, column: GridColumn) -> Any:
    value = row[column.field]
    if column.field == "started_at":
        return units.moment_text(value).removesuffix(" UTC") if value else None
    if column.field == "tags":
        return ", ".join(value) if value else None
    if column.field == "instrumentation_overhead":
        return None if value is None else units.in_unit(round(value - 1, 4), "%")
    return units.in_unit(value, column.unit) if column.unit is not None else value


def run_figures(run: Row) -> list[Figure]:
    """The headline figures of one run."""

    def share(fraction: float | None) -> str:
        return units.utilization_text(fraction, run["utilization_is_least"])

    return [
        Figure("status", "Status", run["status"], "", run["error"] or ""),
        _shown("time_to_first_token_ns", "Time to first token", run, units.time_text, "ns", TTFT),
        _shown("time_per_output_token_ns", "Time per output token", run, units.time_text, "ns", TPOT),
        _shown("tokens_per_s", "Throughput", run, lambda n: units.rate_text(n, "token/s"), "token/s"),
        _shown("peak_memory_bytes", "Peak memory", run, units.capacity_text, "B",
               "Weights, cache and activations in use at once."),
        _shown("parameters", "Parameters", run, units.count_text, ""),
        _shown("model_flops_utilization", "MFU", run, share, "", MFU),
        _shown("memory_bandwidth_utilization", "MBU", run, share, "", MBU),
        Figure("product_dtypes", "Products in", units.dtypes_text(run["product_dtypes"]) or units.UNKNOWN, "",
               DTYPES),
        _shown("energy_per_token_j", "Energy per token", run, units.energy_text, "J"),
        _certain("instrumentation_overhead", "Layer timing adds", run, units.overhead_text, OVERHEAD),
        _certain("layer_time_coverage", "Layer coverage", run, units.percent_text, COVERAGE),
        _shown("unknown_ops", "Operations without a formula", run, units.count_text, "",
               "Their cost is in none of the figures."),
        Figure("weights", "Weights", run["weights"]),
        Figure("attention", "Attention", run["attention"]),
        Figure("roof_source_kind", "Roofs", run["roof_source_kind"] or units.UNKNOWN, "",
               "Measured on this device, or its datasheet's."),
    ]  # fmt: skip


def _shown(
    key: str, label: str, row: Row, text: Callable[[Any], str], unit: str, meaning: str = ""
) -> Figure:
    return Figure(key, label, text(row[key]), units.exact_text(row[key], unit), meaning)


def _certain(key: str, label: str, run: Row, text: Callable[[Any], str], meaning: str) -> Figure:
    """A ratio of bare and timed steps in pairs with its 95 % interval, or why it is not known."""
    if run[key] is None and run["pairs_unknown"]:
        return Figure(key, label, units.UNKNOWN, "", f"{meaning} Not known: {run['pairs_unknown']}.")
    short = key.rpartition("_")[2]
    between = units.between_text(run[f"{short}_low"], run[f"{short}_high"], text)
    said = f"{text(run[key])} ({between})" if between else text(run[key])
    return Figure(key, label, said, units.exact_text(run[key], ""), meaning)


def phase_table(phases: Sequence[Row]) -> Any:
    """The phases of a run, one a row."""
    heads = (
        "Phase",
        term("Step", "Median time of a step without layer timing; 5th to 95th percentile below."),
        "Tokens",
        "Work",
        "Moved",
        term("Intensity", "Work for each byte moved."),
        "Achieved",
        term("Of the roof", "Time at the roof over the time taken."),
        term(
            "Bound by", "The side of the ridge; overhead where operations are too short to fill the device."
        ),
        term("Coverage", COVERAGE),
    )
    return rows_table(heads, [_phase(row) for row in phases])


def _phase(row: Row) -> list[Any]:
    step = units.time_text(row["bare_p50_ns"])
    if row["bare_p50_ns"] is not None:
        step += f" ({units.time_text(row['bare_p5_ns'])} to {units.time_text(row['bare_p95_ns'])})"
    return [
        row["phase"],
        step,
        units.count_text(row["tokens_per_step"]),
        units.flops_text(row["flops"]),
        units.traffic_text(row["bytes"]),
        units.intensity_text(row["arithmetic_intensity"]),
        units.rate_text(row["achieved_flops_per_s"], "FLOP/s"),
        term(
            units.utilization_text(row["roofline_fraction"], row["utilization_is_least"]), row["fault"] or ""
        ),
        row["bound"] or units.UNKNOWN,
        _certain("layer_time_coverage", "", row, units.percent_text, "").text,
    ]


def bottleneck_table(rows: Sequence[Row], link: Callable[[Row], Any]) -> Any:
    """The layers with the most time to save, each with a link."""
    heads = (
        "Phase",
        "Layer",
        "Role",
        "Own time",
        "Share",
        term("Could save", "Its time less what its operations would take at the roof."),
        "Bound by",
    )
    body = [
        [
            row["phase"],
            link(row),
            row["role"],
            units.time_text(row["self_ns"]),
            units.percent_text(row["share_of_phase"]),
            units.time_text(row["saving_ns"]),
            row["bound"] or units.UNKNOWN,
        ]
        for row in rows
    ]
    return rows_table(heads, body)
