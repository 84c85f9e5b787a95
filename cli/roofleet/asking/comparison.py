"""What changed between runs, read from the views and compared: phases, then layers with blocks folded."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any, TypeVar

from roofleet.asking.reading import Query
from roofleet.errors import UserError
from roofleet_analysis.comparison import (
    LAYER_SPREAD,
    Change,
    Place,
    Sample,
    compare,
    compare_in_turns,
    sample,
)

Row = dict[str, Any]
Key = TypeVar("Key", int, Place)

PHASES = ("prefill", "decode", "forward")
WHAT_RAN = (
    "model_name", "device_name", "dtype", "variant", "attention", "weights", "batch_size", "prompt_tokens",
    "new_tokens", "logits",
)  # fmt: skip
"""Columns of run_summary that say what ran; runs that differ in more than one are compared with care."""
QUALITY = (
    "perplexity", "baseline_perplexity", "kl_divergence", "top1_agreement", "quality_tokens",
    "quality_baseline", "quality_unknown", "outputs_finite",
)  # fmt: skip
_BARE_STEPS = (
    "SELECT phase, iteration, step_index, duration_ns FROM steps "
    "WHERE run_id = ? AND pass = 'bare' AND NOT is_warmup"
)
_LAYER_STEPS = (
    "SELECT phase, path, iteration, step_index, self_ns FROM layer_steps WHERE run_id = ? AND self_ns > 0"
)
NOT_TOGETHER = "its layers were not timed in the same iterations"


@dataclass
class Run:
    """One run as the views tell it: its summary, and by phase the figures, the sample and the layers.

    `iterations` are times in ns of a layer by iteration. Of a run that took turns `bare` and `spans` are
    those of each bare step of a phase, and of a layer in each step.
    """

    row: Row
    phases: dict[str, Row]
    samples: dict[str, Sample]
    layers: dict[tuple[str, str], Row]
    iterations: dict[tuple[str, str], dict[int, float]]
    bare: dict[str, dict[Place, float]]
    spans: dict[tuple[str, str], dict[Place, float]]

    @property
    def run_id(self) -> str:
        """Its id."""
        return str(self.row["run_id"])


def read_run(query: Query, run_id: str) -> Run:
    """Everything about one run that a comparison needs; UserError if nothing was measured or counted."""

    def rows(sql: str) -> list[Row]:
        listed: list[Row] = query(sql, (run_id,)).to_pylist()
        return listed

    row = rows("SELECT * FROM run_summary WHERE run_id = ?")[0]
    phases = {r["phase"]: r for r in rows("SELECT * FROM phase_summary WHERE run_id = ?")}
    if row["status"] != "analyzed" and not any(r["steps"] for r in phases.values()):
        why = f": {row['error']}" if row["error"] else ""
        raise UserError(
            f"run {run_id} of {row['model_name']} has no times, it is {row['status']}{why}. "
            "Compare runs that are done (`roofleet profile`) or analyzed"
        )
    for memory in rows("SELECT * FROM memory_summary WHERE run_id = ?"):
        if memory["phase"] in phases:
            phases[memory["phase"]]["memory"] = memory
    for again in rows("SELECT phase, spread FROM phase_repeats WHERE run_id = ?"):
        phases[again["phase"]]["spread"] = again["spread"]
    times: dict[str, list[float]] = defaultdict(list)
    for step in rows("SELECT phase, bare_ns FROM phase_iterations WHERE run_id = ?"):
        times[step["phase"]].append(step["bare_ns"])
    bare: dict[str, dict[Place, float]] = defaultdict(dict)
    spans: dict[tuple[str, str], dict[Place, float]] = defaultdict(dict)
    if row["turns_id"] is not None:
        for one in rows(_BARE_STEPS):
            bare[one["phase"]][one["iteration"], one["step_index"]] = one["duration_ns"]
        for one in rows(_LAYER_STEPS):
            spans[one["phase"], one["path"]][one["iteration"], one["step_index"]] = one["self_ns"]
    iterations: dict[tuple[str, str], dict[int, float]] = defaultdict(dict)
    for one in rows("SELECT phase, path, iteration, self_ns FROM layer_iterations WHERE run_id = ?"):
        iterations[one["phase"], one["path"]][one["iteration"]] = one["self_ns"]
    layers = rows(
        "SELECT phase, path, role, block_index, self_ns, matmul_flops, bound, time_at_roof_ns, "
        "weight_bytes + activation_bytes + kv_bytes AS bytes FROM layer_summary WHERE run_id = ? "
        "ORDER BY layer_index"
    )
    samples = {phase: made for phase, listed in times.items() if (made := sample(listed)) is not None}
    found = {(r["phase"], r["path"]): r for r in layers}
    return Run(row, phases, samples, found, dict(iterations), dict(bare), dict(spans))


def took_turns(baseline: Run, run: Run) -> bool:
    """Whether the steps of two runs alternated, so that each can be held against its neighbour."""
    return baseline.row["turns_id"] is not None and baseline.row["turns_id"] == run.row["turns_id"]


def without_spans(runs: Iterable[Run]) -> list[str]:
    """Ids of runs whose raw spans retention let go."""
    return [run.run_id for run in runs if run.row.get("spans_let_go_at") is not None]


def differences(runs: list[Run]) -> dict[str, list[Any]]:
    """What the runs differ in of what ran: column and the value of each run."""
    listed = {name: [run.row[name] for run in runs] for name in WHAT_RAN}
    return {name: values for name, values in listed.items() if len(set(values)) > 1}


def compared_phases(baseline: Run, run: Run) -> list[Row]:
    """A row for each phase of either run, in base units; what a run has not is None."""
    rows = []
    for phase in PHASES:
        sides = [side.phases.get(phase) for side in (baseline, run)]
        if not any(sides):
            continue
        a, b = baseline.samples.get(phase), run.samples.get(phase)
        if took_turns(baseline, run):
            change = compare_in_turns(baseline.bare.get(phase, {}), run.bare.get(phase, {}))
        else:
            change = compare(a, b, *_noise(baseline, run, phase)) if a and b else None
        row: Row = {"baseline_run_id": baseline.run_id, "run_id": run.run_id, "phase": phase}
        times = (a and a.typical_ns, b and b.typical_ns)
        if took_turns(baseline, run):
            times = _side_by_side(baseline.bare.get(phase, {}), run.bare.get(phase, {})) or times
        row |= {"baseline_ns": times[0], "bare_ns": times[1]} | _of_change(change)
        mine = _figures(sides[1])
        for name, value in _figures(sides[0]).items():
            row |= {f"baseline_{name}": value, name: mine[name]}
        rows.append(row)
    return rows


def _side_by_side(baseline: Mapping[Place, float], run: Mapping[Place, float]) -> tuple[float, float] | None:
    """The medians of the steps that both sides have, in ns: those whose ratios are told."""
    both = baseline.keys() & run.keys()
    return (median(baseline[p] for p in both), median(run[p] for p in both)) if both else None


def _figures(phase: Row | None) -> Row:
    if phase is None:
        return dict.fromkeys(("peak_bytes", "matmul_flops", "bytes", "weight_bytes", "roofline_fraction"))
    return {
        "peak_bytes": phase.get("memory", {}).get("peak_bytes"),
        "matmul_flops": phase["matmul_flops"],
        "bytes": _sum(phase[f"{kind}_bytes"] for kind in ("weight", "activation", "kv")),
        "weight_bytes": phase["weight_bytes"],
        "roofline_fraction": phase["roofline_fraction"],
    }


def _noise(baseline: Run, run: Run, phase: str) -> tuple[str | None, str | None, float | None]:
    """Why either side is too noisy to tell, and the most that repeats of either differ."""
    a, b = (side.phases.get(phase, {}) for side in (baseline, run))
    spreads = [side["spread"] for side in (a, b) if side.get("spread") is not None]
    return a.get("noise"), b.get("noise"), max(spreads, default=None)


def compared_layers(baseline: Run, run: Run) -> list[Row]:
    """A row for each layer of either run, the same layer of all repeated blocks in one, most changed first.

    Layers are paired by path. Of one that only one run has the other side is None; between different models
    such layers are left out. The order is by what the change is in one iteration: the difference of own times
    by the steps.
    """
    folds: dict[tuple[str, str, bool, bool], list[tuple[str, str]]] = defaultdict(list)
    alike = baseline.row["model_name"] == run.row["model_name"]
    for key in {**baseline.layers, **run.layers}:
        there = (key in baseline.layers, key in run.layers)
        if alike or all(there):
            layer = baseline.layers.get(key) or run.layers[key]
            folds[(key[0], folded(key[1], layer["block_index"]), *there)].append(key)
    rows = []
    for (phase, path, in_baseline, in_run), keys in folds.items():
        a = _times(baseline, keys) if in_baseline else (None, None)
        b = _times(run, keys) if in_run else (None, None)
        if a[1] is None and b[1] is None:
            continue
        some = (run if in_run else baseline).layers[keys[0]]
        change = None
        if took_turns(baseline, run) and not without_spans((baseline, run)):
            sides = _added(baseline.spans, keys), _added(run.spans, keys)
            change = compare_in_turns(*sides)
            together = _side_by_side(*sides)
            a, b = ((a[0], together[0]), (b[0], together[1])) if together else (a, b)
        elif a[0] is not None and b[0] is not None:
            noise_a, noise_b, spread = _noise(baseline, run, phase)
            change = compare(a[0], b[0], noise_a, noise_b, spread and spread**LAYER_SPREAD)
        elif a[1] and b[1]:
            change = Change(b[1] / a[1], None, None, "unclear", NOT_TOGETHER)
        row: Row = {"baseline_run_id": baseline.run_id, "run_id": run.run_id, "phase": phase, "path": path}
        row |= {"layers": len(keys), "role": some["role"], "baseline_ns": a[1], "self_ns": b[1]}
        for name in ("matmul_flops", "bytes"):
            row |= {f"baseline_{name}": _total(baseline, keys, name), name: _total(run, keys, name)}
        row["baseline_roofline_fraction"] = _fraction(baseline, keys, a[1])
        row["roofline_fraction"] = _fraction(run, keys, b[1])
        rows.append(row | _of_change(change))
    return sorted(rows, key=lambda row: (-_change_an_iteration(row, baseline, run), row["path"]))


def folded(path: str, block_index: int | None) -> str:
    """The path with `*` for the number of its repeated block: `h.3.attn` is `h.*.attn`."""
    parts = path.split(".")
    if block_index is None or str(block_index) not in parts:
        return path
    parts[parts.index(str(block_index))] = "*"
    return ".".join(parts)


def _times(run: Run, keys: list[tuple[str, str]]) -> tuple[Sample | None, float | None]:
    """The sample of the layers' own times added up, from iterations that have all of them, and the typical
    sum in ns; without such an iteration the sum of their medians."""
    sums = list(_added(run.iterations, keys).values())
    made = sample(sums) if sums else None
    return made, made.typical_ns if made else _total(run, keys, "self_ns")


def _added(
    times: Mapping[tuple[str, str], Mapping[Key, float]], keys: list[tuple[str, str]]
) -> dict[Key, float]:
    """The layers' own times in ns added up, where all of them are known; nothing if a sum is 0."""
    timed = [times.get(key, {}) for key in keys]
    whole = set.intersection(*(set(one) for one in timed))
    sums = {where: sum(one[where] for one in timed) for where in sorted(whole)}
    return sums if all(sums.values()) else {}


def _total(run: Run, keys: list[tuple[str, str]], column: str) -> Any:
    return _sum(run.layers[key][column] for key in keys if key in run.layers)


def _sum(values: Iterable[Any]) -> Any:
    """The sum of what is known; None if nothing is."""
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def _fraction(run: Run, keys: list[tuple[str, str]], time_ns: float | None) -> float | None:
    at_roof = _total(run, keys, "time_at_roof_ns")
    return at_roof / time_ns if at_roof is not None and time_ns else None


def _of_change(change: Change | None) -> Row:
    names = ("ratio", "low", "high", "verdict", "why")
    return asdict(change) if change else dict.fromkeys(names)


def _change_an_iteration(row: Row, baseline: Run, run: Run) -> float:
    decoded = max(side.row["new_tokens"] - 1 for side in (baseline, run))
    steps = max(decoded, 1) if row["phase"] == "decode" else 1
    return float(abs((row["self_ns"] or 0) - (row["baseline_ns"] or 0)) * steps)
