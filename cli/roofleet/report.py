"""A run as text: its summary and its slowest layers, read from the published views."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from roofleet.console import facts, table
from roofleet_analysis.units import (
    capacity_text,
    count_text,
    overhead_text,
    percent_text,
    time_text,
)

if TYPE_CHECKING:
    import pyarrow as pa
    from rich.console import Console

Query = Callable[[str, tuple[object, ...]], "pa.Table"]
SLOWEST = 5


def run_row(query: Query, run_id: str) -> dict[str, Any]:
    """The row of run_summary."""
    row: dict[str, Any] = query("SELECT * FROM run_summary WHERE run_id = ?", (run_id,)).to_pylist()[0]
    return row


def slowest_layers(query: Query, run_id: str) -> list[dict[str, Any]]:
    """The slowest layers of a run by their own time, over all steps of an iteration."""
    layers: list[dict[str, Any]] = query(
        "SELECT l.phase, l.path, l.role, l.self_ns, l.share_of_phase, l.bound, l.roofline_fraction "
        "FROM layer_summary l JOIN phase_summary p USING (run_id, phase) WHERE l.run_id = ? "
        "ORDER BY l.self_ns * p.steps DESC NULLS LAST, l.path LIMIT ?",
        (run_id, SLOWEST),
    ).to_pylist()
    return layers


def print_run(console: Console, query: Query, run_id: str) -> None:
    """Prints the summary of a run and its slowest layers with their bound."""
    from rich.markup import escape

    row = run_row(query, run_id)
    name, device = escape(row["model_name"]), escape(row["device_name"])
    console.print(
        f"\n[bold]{name}[/bold] on {device} ({row['device_kind']}), {row['dtype']}, "
        f"{row['weights']} weights, batch {row['batch_size']}, {row['prompt_tokens']} prompt tokens"
        + (f", {row['new_tokens']} new tokens" if row["new_tokens"] else "")
    )
    rows = _forward_time(query, row) + [(label, text) for label, text in _summary(row) if text is not None]
    console.print(facts(rows))
    console.print()
    layers = [
        [
            layer["path"] or "(the model itself)",
            layer["phase"],
            layer["role"],
            time_text(layer["self_ns"]),
            percent_text(layer["share_of_phase"]),
            layer["bound"] or "–",
            percent_text(layer["roofline_fraction"]),
        ]
        for layer in slowest_layers(query, run_id)
    ]
    headers = ["slowest layers", "phase", "role", "own time a step", "of phase", "bound", "of roof"]
    console.print(table(None, headers, layers, right=[3, 4, 6]))
    if row["unknown_ops"]:
        console.print(f"{row['unknown_ops']} ops have no cost formula and are in none of these figures:")
        names = query(
            "SELECT DISTINCT op FROM ops JOIN op_costs USING (run_id, phase, op_index) "
            "WHERE run_id = ? AND NOT is_known ORDER BY op",
            (run_id,),
        )
        console.print("  " + ", ".join(names.column("op").to_pylist()), markup=False)
    console.print(f"run {run_id}", style="dim")


def _forward_time(query: Query, row: dict[str, Any]) -> list[tuple[str, str]]:
    """How long one forward takes, for a model that does not generate."""
    found = query(
        "SELECT bare_p50_ns FROM phase_summary WHERE run_id = ? AND phase = 'forward'", (row["run_id"],)
    )
    return [("time of a forward", time_text(value)) for value in found.column(0).to_pylist()]


def _summary(row: dict[str, Any]) -> list[tuple[str, str | None]]:
    generates = row["new_tokens"] > 0
    roof = f"of the {row['roof_source_kind']} roof" if row["roof_source_kind"] else ""

    def optional(text: Callable[[Any], str], value: Any) -> str | None:
        return None if value is None else text(value)

    return [
        ("time to first token", optional(time_text, row["time_to_first_token_ns"])),
        ("time per output token", optional(time_text, row["time_per_output_token_ns"])),
        ("tokens/s" if generates else "tokens/s (processed)", f"{row['tokens_per_s']:.1f}"),
        ("parameters", count_text(row["parameters"])),
        ("peak memory", capacity_text(row["peak_memory_bytes"])),
        (
            f"FLOPs utilization, MFU ({'prefill' if generates else 'forward'})",
            optional(lambda v: f"{percent_text(v)} {roof}", row["model_flops_utilization"]),
        ),
        (
            f"bandwidth utilization, MBU ({'decode' if row['time_per_output_token_ns'] else 'forward'})",
            optional(lambda v: f"{percent_text(v)} {roof}", row["memory_bandwidth_utilization"]),
        ),
        ("energy per token", optional(lambda v: f"{v:.3g} J", row["energy_per_token_j"])),
        ("instrumentation overhead", optional(overhead_text, row["instrumentation_overhead"])),
        ("bare step explained by layers", optional(percent_text, row["layer_time_coverage"])),
    ]
