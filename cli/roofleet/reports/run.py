"""A run as text: times, memory, utilisation and its slowest layers, read from the published views."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from roofleet.asking.reading import Query
from roofleet.asking.runs import outputs_of
from roofleet.console import facts, table
from roofleet.reports.notes import print_notes, print_outputs, print_warnings, quality_facts
from roofleet.reports.runs import labels_text
from roofleet_analysis.units import (
    UNKNOWN,
    between_text,
    capacity_text,
    count_text,
    dtypes_text,
    overhead_text,
    percent_text,
    rate_text,
    time_text,
    utilization_text,
    workload_text,
)

if TYPE_CHECKING:
    from rich.console import Console

SLOWEST = 5
_STEPS = {
    "prefill": "time to first token",
    "decode": "time per output token",
    "forward": "time of a forward",
}


def run_row(query: Query, run_id: str) -> dict[str, Any]:
    """The row of run_summary."""
    row: dict[str, Any] = query("SELECT * FROM run_summary WHERE run_id = ?", (run_id,)).to_pylist()[0]
    return row


def slowest_layers(query: Query, run_id: str) -> list[dict[str, Any]]:
    """The slowest layers of a run by their own time, over all steps of an iteration."""
    layers: list[dict[str, Any]] = query(
        "SELECT l.phase, l.path, l.role, l.self_ns, l.share_of_phase, l.bound, l.roofline_fraction, "
        "l.unknown_ops FROM layer_summary l JOIN runs r USING (run_id) WHERE l.run_id = ? "
        "AND l.self_ns IS NOT NULL ORDER BY l.self_ns * steps_of(l.phase, r.new_tokens) DESC, l.path LIMIT ?",
        (run_id, SLOWEST),
    ).to_pylist()
    return layers


def print_run(console: Console, query: Query, run_id: str, pages: str | None = None) -> None:
    """Prints the summary of a run, what to know before relying on it, its slowest layers, and what it
    generated if that was kept; `pages` is where, or by which command, the dashboard shows it."""
    row = run_row(query, run_id)
    _print_head(console, row)
    print_warnings(console, row)
    _print_times(console, query, row)
    console.print(
        facts([(label, text) for label, text in _summary(row, _sure_phases(query, row)) if text is not None])
    )
    _print_memory(console, query, run_id)
    _print_layers(console, query, run_id)
    print_outputs(console, outputs_of(query, run_id))
    print_notes(console, query, row)
    console.print(f"run {run_id}", style="dim")
    if pages is not None:
        console.print(f"see it at {pages}" if "://" in pages else f"see it with {pages}", markup=False)


def _print_head(console: Console, row: dict[str, Any]) -> None:
    from rich.markup import escape

    name, device = escape(str(row["model_name"])), escape(str(row["device_name"]))
    how = "" if row["variant"] == "base" else f" {row['variant']}"
    attention = f", {row['attention']} attention" if row["attention"] else ""
    console.print(
        f"\n[bold]{name}[/bold] on {device} ({row['device_kind']}), {row['dtype']}{how}{attention}, "
        f"{row['weights']} weights, "
        + workload_text(row["batch_size"], row["prompt_tokens"], row["new_tokens"])
    )
    if labels := labels_text(row):
        console.print(labels, markup=False, style="cyan")


def _print_times(console: Console, query: Query, row: dict[str, Any]) -> None:
    """Median, spread and certainty of each phase's bare step, and how decode grows with the context."""
    phases = query(
        "SELECT phase, steps, bare_p50_ns, bare_p5_ns, bare_p95_ns, bare_low_ns, bare_high_ns, timed_p50_ns "
        "FROM phase_summary WHERE run_id = ? ORDER BY phase DESC",
        (row["run_id"],),
    ).to_pylist()
    shown = [
        [
            _step_text(phase["phase"], row),
            time_text(phase["bare_p50_ns"]),
            _between(phase["bare_p5_ns"], phase["bare_p95_ns"]),
            _between(phase["bare_low_ns"], phase["bare_high_ns"]),
            count_text(phase["steps"]),
        ]
        for phase in phases
        if phase["steps"]
    ]
    for phase in phases:
        if not phase["steps"] and phase["timed_p50_ns"] is not None:
            label = _STEPS.get(phase["phase"], phase["phase"])
            console.print(f"{label}, with its layers timed: {time_text(phase['timed_p50_ns'])}")
    if shown:
        headers = ["", "median", "p5 to p95", "typical, 95 % interval", "steps"]
        console.print(table(None, headers, shown, right=[1, 2, 3, 4]))
    lengths = query(
        "SELECT count(*) AS lengths, min(cache_tokens) AS first, max(cache_tokens) AS last "
        "FROM decode_by_context WHERE run_id = ?",
        (row["run_id"],),
    ).to_pylist()[0]
    if (text := growth_text(row["time_per_cached_token_ns"], **lengths)) is not None:
        console.print(text + "\n")


def _step_text(phase: str, row: dict[str, Any]) -> str:
    """What a phase's step is called; of decode with the tokens in the cache before its steps."""
    if phase != "decode" or row["decode_cached_tokens"] is None:
        return _STEPS.get(phase, phase)
    first, last = row["prompt_tokens"], row["prompt_tokens"] + row["new_tokens"] - 2
    return f"{_STEPS[phase]} after {first:,}" + (f" to {last:,}" if last > first else "") + " cached tokens"


def growth_text(slope_ns: float | None, lengths: int, first: int | None, last: int | None) -> str | None:
    """How time per output token grows with the context; None with fewer than 4 lengths, which say nothing.

    `slope_ns` is in ns a cached token, None where its interval includes no growth.
    """
    if lengths < 4:
        return None
    between = f"between {first} and {last} cached tokens"
    if slope_ns is None or slope_ns <= 0:
        return f"time per output token does not grow beyond the noise {between}"
    return f"time per output token grows by {time_text(slope_ns * 1000)} per 1,000 cached tokens, {between}"


def _summary(row: dict[str, Any], sure: list[dict[str, Any]]) -> list[tuple[str, str | None]]:
    generates = row["new_tokens"] > 0
    roof = f"of the {row['roof_source_kind']} roof" if row["roof_source_kind"] else ""
    # an older collector knows none of these
    least, dtypes = row.get("utilization_is_least"), dtypes_text(row.get("product_dtypes"))
    roofs = f"of the {row['roof_source_kind']} roofs of {dtypes}" if roof and "," in dtypes else roof

    def optional(text: Callable[[Any], str], value: Any) -> str | None:
        return None if value is None else text(value)

    return [
        (
            "tokens/s" if generates else "tokens/s (processed)",
            optional(lambda v: rate_text(v, "").rstrip(), row["tokens_per_s"]),
        ),
        ("parameters", count_text(row["parameters"])),
        ("peak memory", capacity_text(row["peak_memory_bytes"])),
        ("allocator's peak", optional(capacity_text, row["allocator_peak_bytes"])),
        ("allocator's reserve", optional(capacity_text, row["allocator_reserved_bytes"])),
        (
            f"FLOPs utilization, MFU ({'prefill' if generates else 'forward'})",
            optional(lambda v: f"{utilization_text(v, least)} {roofs}", row["model_flops_utilization"]),
        ),
        (
            f"bandwidth utilization, MBU ({'decode' if row['time_per_output_token_ns'] else 'forward'})",
            optional(lambda v: f"{utilization_text(v, least)} {roof}", row["memory_bandwidth_utilization"]),
        ),
        ("energy per token", optional(lambda v: f"{v:.3g} J", row["energy_per_token_j"])),
        (
            "instrumentation overhead",
            _certain(row, sure, "instrumentation_overhead", overhead_text),
        ),
        (
            "bare step explained by layers",
            _certain(row, sure, "layer_time_coverage", percent_text),
        ),
        ("iterations", _iterations(row)),
        *quality_facts(row),
    ]


def _sure_phases(query: Query, row: dict[str, Any]) -> list[dict[str, Any]]:
    """The phases whose pairs are known, where the run's are not."""
    if row["layer_time_coverage"] is not None or not row["pairs_unknown"]:
        return []
    sql = (
        "SELECT * FROM phase_summary WHERE run_id = ? AND pairs > 0 AND pairs_unknown IS NULL ORDER BY phase"
    )
    found: list[dict[str, Any]] = query(sql, (row["run_id"],)).to_pylist()
    return found


def _certain(
    row: dict[str, Any], sure: list[dict[str, Any]], name: str, text: Callable[[float | None], str]
) -> str | None:
    """A ratio of pairs with its 95 % interval, or that of the phases that are sure and why others are not."""
    short = name.rpartition("_")[2]
    if row[name] is None:
        if not row["pairs_unknown"]:
            return None
        known = "".join(f"{phase['phase']} {_certain(phase, [], name, text)}; " for phase in sure)
        return f"{known}not known ({row['pairs_unknown']})"
    return f"{text(row[name])} ({between_text(row[f'{short}_low'], row[f'{short}_high'], text)})"


def _iterations(row: dict[str, Any]) -> str | None:
    """How many there were and what ended them."""
    why = {
        "interval": "the intervals are narrow",
        "budget": "the time for them was up (--budget)",
        "most": "more are not worth their rows",
    }.get(row["iterations_ended_by"])
    return f"{row['iterations']}, {why}" if why else None


def _print_memory(console: Console, query: Query, run_id: str) -> None:
    """What each phase holds at its peak, and where the peak is."""
    rows = query("SELECT * FROM memory_summary WHERE run_id = ? ORDER BY phase DESC", (run_id,)).to_pylist()
    shown = [
        [
            row["phase"],
            capacity_text(row["peak_bytes"]),
            capacity_text(row["weight_bytes"]),
            capacity_text(row["kv_bytes"]),
            capacity_text(row["activation_bytes"]),
            capacity_text(row["workspace_bytes"]),
            _place(row),
        ]
        for row in rows
    ]
    if shown:
        headers = [
            "memory",
            "at the peak",
            "weights",
            "cache",
            "activations",
            "workspace",
            "where the peak is",
        ]
        console.print()
        console.print(table(None, headers, shown, right=[1, 2, 3, 4, 5]))


def _place(row: dict[str, Any]) -> str:
    if row["peak_path"] is None:
        return UNKNOWN
    op = f", {row['peak_op']}" if row["peak_op"] else ""
    step = f", step {row['peak_step_index']}" if row["peak_step_index"] else ""
    return (row["peak_path"] or "(the model itself)") + op + step


def _print_layers(console: Console, query: Query, run_id: str) -> None:
    layers = [
        [
            layer["path"] or "(the model itself)",
            layer["phase"],
            layer["role"],
            time_text(layer["self_ns"]),
            percent_text(layer["share_of_phase"]),
            layer["bound"] or UNKNOWN,
            utilization_text(layer["roofline_fraction"], layer["unknown_ops"]),
        ]
        for layer in slowest_layers(query, run_id)
    ]
    headers = [
        "slowest layers",
        "phase",
        "role",
        "own time a step",
        "of all layers",
        "bound",
        "of roof",
    ]
    if layers:
        console.print()
        console.print(table(None, headers, layers, right=[3, 4, 6]))


def _between(low: float | None, high: float | None) -> str:
    return UNKNOWN if low is None or high is None else f"{time_text(low)} to {time_text(high)}"
