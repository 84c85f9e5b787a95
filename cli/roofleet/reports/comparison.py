"""A comparison as text: what ran, each phase with a column a run, quality, and the most changed layers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from roofleet.asking.comparison import (
    Row,
    Run,
    compared_layers,
    compared_phases,
    differences,
    took_turns,
    without_spans,
)
from roofleet.console import table
from roofleet_analysis.units import (
    UNKNOWN,
    between_text,
    capacity_text,
    count_text,
    flops_text,
    percent_text,
    ratio_text,
    time_text,
    traffic_text,
)

if TYPE_CHECKING:
    from rich.console import Console

MOST_LAYERS = 10
_OPTIONS = {"batch_size": "batch", "prompt_tokens": "prompt tokens", "new_tokens": "new tokens"}


def print_comparison(console: Console, runs: list[Run]) -> None:
    """Prints runs beside the first of them, the baseline."""
    names = short_ids([run.run_id for run in runs])
    unlike = differences(runs)
    _print_what_ran(console, runs, names, unlike)
    baseline = runs[0]
    by_run = [{row["phase"]: row for row in compared_phases(baseline, run)} for run in runs[1:]]
    for phase in dict.fromkeys(phase for rows in by_run for phase in rows):
        _print_phase(console, phase, runs, names, [rows.get(phase, {}) for rows in by_run])
    if all(took_turns(baseline, run) for run in runs[1:]):
        console.print(
            "Their steps took turns in one process: each ratio is the median over steps side by "
            "side, so that what else the machine did was done to both; it need not be that of the medians."
        )
    elif not any(phase.get("spread") for run in runs for phase in run.phases.values()):
        console.print(
            "No quiet repeats of these runs are stored: the intervals are over iterations of one process "
            "each, and another start may differ by more. Run each again to know."
        )
    gone = without_spans(runs)
    if gone and any(took_turns(baseline, run) for run in runs[1:]):
        console.print(
            f"Raw spans of {', '.join(short_ids(gone))} were let go, by the collector's policy: layers are "
            "compared by iterations. The view layer_comparison keeps their ratios step by step."
        )
    _print_quality(console, runs, names)
    for run, name in zip(runs[1:], names[1:], strict=True):
        _print_layers(console, compared_layers(baseline, run), f"{name} against {names[0]}")


def short_ids(ids: list[str], least: int = 8) -> list[str]:
    """The beginnings of ids that tell them apart, of at least that many characters."""
    length = least
    while len({run_id[:length] for run_id in ids}) < len(ids):
        length += 1
    return [run_id[:length] for run_id in ids]


def _print_what_ran(console: Console, runs: list[Run], names: list[str], unlike: dict[str, Any]) -> None:
    from rich.markup import escape

    row = runs[0].row
    console.print(f"\n[bold]{escape(str(row['model_name']))}[/bold], {len(runs)} runs; baseline {names[0]}")
    rows = [
        [_OPTIONS.get(column, column.replace("_", " ")), *(str(value or UNKNOWN) for value in values)]
        for column, values in unlike.items()
    ]
    if rows:
        console.print(table(None, ["what differs", *names], rows))
    if "model_name" in unlike:
        console.print("These are runs of different models: layers are compared where their paths agree.")
    if len(unlike) > 1:
        console.print(f"They differ in {len(unlike)} things at once: a change may come from any of them.")
    for run, name in zip(runs, names, strict=True):
        if run.row["status"] == "analyzed":
            console.print(f"{name} was counted and never run: it has no times.")
        elif run.row["status"] != "done":
            console.print(f"{name} is {run.row['status']}: its figures are those of what was measured.")
        if run.row["outputs_finite"] is False:
            console.print(f"[bold red]{name} gave out NaN or infinite numbers.[/bold red]")


def _print_phase(console: Console, phase: str, runs: list[Run], names: list[str], rows: list[Row]) -> None:
    some = next(row for row in rows if row)
    interval = [(s.interval() if (s := run.samples.get(phase)) else None) or (None, None) for run in runs]

    def line(label: str, column: str, text: Any) -> list[str]:
        return [label, text(some[f"baseline_{column}"]), *(text(row.get(column)) for row in rows)]

    shown = [
        ["time of a step", time_text(some["baseline_ns"]), *(time_text(row.get("bare_ns")) for row in rows)],
        ["  95 % interval", *(between_text(low, high, time_text) for low, high in interval)],
        ["ratio", "", *(ratio_text(row.get("ratio")) for row in rows)],
        ["  95 % interval", "", *(_ratio_interval(row) for row in rows)],
        ["verdict", "baseline", *(row.get("verdict") or UNKNOWN for row in rows)],
        line("peak memory", "peak_bytes", capacity_text),
        line("matrix FLOPs a step", "matmul_flops", flops_text),
        line("bytes a step", "bytes", traffic_text),
        line("  of them weights", "weight_bytes", traffic_text),
        line("of roof", "roofline_fraction", percent_text),
    ]
    console.print(table(None, [phase, *names], shown, right=range(1, len(names) + 1)))
    for row, name in zip(rows, names[1:], strict=True):
        if row.get("why"):
            console.print(f"{phase} of {name} is unclear: {row['why']}", markup=False)


def _ratio_interval(row: Row) -> str:
    return between_text(row.get("low"), row.get("high"), ratio_text)


def _print_quality(console: Console, runs: list[Run], names: list[str]) -> None:
    """The price in quality of each run that has figures, or the reason there are none."""
    rows = []
    for run, name in zip(runs, names, strict=True):
        row = run.row
        known = [row[column] for column in ("perplexity", "kl_divergence", "top1_agreement")]
        unmeasured = all(value is None for value in known)
        if unmeasured and (row["variant"] == "base" or not row["quality_unknown"]):
            continue
        kl = UNKNOWN if known[1] is None else f"{count_text(known[1])} nats"
        against = row["quality_baseline"] or UNKNOWN
        rows.append(
            [name, count_text(known[0]), count_text(row["baseline_perplexity"]), kl, percent_text(known[2]),
             against, row["quality_unknown"] or ""]
        )  # fmt: skip
    headers = ["quality", "perplexity", "of the baseline", "KL divergence", "same top token", "against", ""]
    if rows:
        console.print(table(None, headers, rows, right=[1, 2, 3, 4]))


def _print_layers(console: Console, rows: list[Row], title: str) -> None:
    shown = []
    for row in rows[:MOST_LAYERS]:
        times = f" ({row['layers']} layers)" if row["layers"] > 1 else ""
        verdict = row["verdict"] or ("only here" if row["baseline_ns"] is None else "only in the baseline")
        shown.append(
            [(row["path"] or "(the model itself)") + times, row["phase"], time_text(row["baseline_ns"]),
             time_text(row["self_ns"]), ratio_text(row["ratio"]), _ratio_interval(row), verdict]
        )  # fmt: skip
    headers = ["layers that changed most", "phase", "baseline", "now", "ratio", "95 % interval", "verdict"]
    if shown:
        console.print(table(title, headers, shown, right=[2, 3, 4]))
