"""What pairs of steps are worth on a machine that does other work: coverage of runs, and models in turns.

Runs are those that users make, read through the views that they read. A model that takes a tenth longer has
eleven blocks where the other has ten.
"""

from __future__ import annotations

import statistics
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.figure import Figure
from benchmarks.load import NOW_AND_THEN, ONE, beside
from benchmarks.stored import Stored
from roofleet.naming.models import resolve
from roofleet_agent import profiling
from roofleet_agent.devices.cpu import CpuDevice
from roofleet_agent.service import register
from roofleet_agent.workload import ModelRequest, Workload
from roofleet_collector.store import DuckDBStore

RUNS = 10
ALIKE = 20
UNLIKE = 10
WORKLOAD = Workload(prompt_tokens=64, new_tokens=16)
TURNS = Workload(prompt_tokens=32, new_tokens=48, budget_s=8.0)
BLOCKS: dict[str, Any] = {
    "model_type": "llama",
    "num_hidden_layers": 10,
    "hidden_size": 256,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 704,
    "vocab_size": 256,
    "max_position_embeddings": 256,
    "architectures": ["LlamaForCausalLM"],
}


def measure() -> list[Figure]:
    """Coverage beside one busy process and without, and what is said of models in turns beside one."""
    with tempfile.TemporaryDirectory() as folder:
        store = DuckDBStore(Path(folder))
        sink = Stored(store)
        register(sink, "bench", [CpuDevice()])
        figures = [
            *_coverage(store, sink, None, "quiet"),
            *_coverage(store, sink, ONE, "one busy process"),
            *_in_turns(store, sink),
        ]
        store.close()
    return figures


def _coverage(store: DuckDBStore, sink: Stored, load: str | None, when: str) -> list[Figure]:
    rows = []
    for _ in range(RUNS):
        with beside(load):
            run_id = profiling.profile(resolve("gpt2", "random"), CpuDevice(), "fp32", WORKLOAD, sink)
        rows.append(_one(store, "SELECT * FROM run_summary WHERE run_id = ?", run_id))
    known = [row for row in rows if row["layer_time_coverage"] is not None]
    good = sum(0.95 <= row["layer_time_coverage"] <= 1.05 for row in known)
    figures = [
        Figure("pairs", f"of {RUNS} runs, coverage within 5 % or unknown, {when}", good + RUNS - len(known),
               goal=0.9 * RUNS, at_most=False),
        Figure("pairs", f"of {RUNS} runs, coverage unknown, {when}", RUNS - len(known)),
    ]  # fmt: skip
    for name in ("layer_time_coverage", "instrumentation_overhead") if known else ():
        short = name.rpartition("_")[2]
        middle = statistics.median(row[name] for row in known)
        wide = statistics.median((row[f"{short}_high"] - row[f"{short}_low"]) / 2 for row in known)
        figures.append(Figure("pairs", f"{short}, median, {when}", middle))
        figures.append(Figure("pairs", f"{short}, half of its interval, median, {when}", wide))
    iterations = statistics.median(row["iterations"] for row in rows)
    return [*figures, Figure("pairs", f"iterations, median, {when}", iterations)]


def _in_turns(store: DuckDBStore, sink: Stored) -> list[Figure]:
    ten, eleven = (
        profiling.Plan(
            ModelRequest(f"{blocks} blocks", "catalog", "random", "generate",
                         BLOCKS | {"num_hidden_layers": blocks}),
            CpuDevice(), "fp32", TURNS, {},
        )
        for blocks in (10, 11)
    )  # fmt: skip
    said: dict[str, Counter[str]] = {"alike": Counter(), "unlike": Counter()}
    speeds, ratios = [], []
    with _one_thread(), beside(NOW_AND_THEN):
        for name, other, rounds in (("alike", ten, ALIKE), ("unlike", eleven, UNLIKE)):
            for _ in range(rounds):
                change, steps = _change(store, sink, ten, replace(other))
                said[name][change.verdict] += 1
                ratios += [change.ratio] if name == "unlike" else []
                speeds.append(steps)
    alike, unlike = said["alike"], said["unlike"]
    return [
        Figure("pairs", f"of {ALIKE} models against themselves in turns, same", alike["same"],
               goal=0.95 * ALIKE, at_most=False),
        Figure("pairs", "of them called faster or slower", alike["faster"] + alike["slower"], goal=0),
        Figure("pairs", f"of {UNLIKE} models with a tenth more blocks, called slower", unlike["slower"],
               goal=0.9 * UNLIKE, at_most=False),
        Figure("pairs", "how much slower, median", statistics.median(ratios)),
        Figure("pairs", "9th decile of a run's steps over the 1st, median", statistics.median(speeds)),
    ]  # fmt: skip


@contextmanager
def _one_thread() -> Iterator[None]:
    """One processor is left to the other process: the speed moves by tens of per cent, not threefold."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _change(store: DuckDBStore, sink: Stored, *plans: profiling.Plan) -> tuple[Any, float]:
    """How the second model's decode compares with the first's, and how far the machine's speed moved."""
    from roofleet_analysis.comparison import compare_in_turns

    ids = profiling.profile_in_turns(plans, sink)
    sides: list[dict[tuple[int, int], float]] = []
    for run_id in ids:
        rows = store.query(
            "SELECT iteration, step_index, duration_ns FROM steps WHERE run_id = ? AND pass = 'bare' "
            "AND phase = 'decode' AND NOT is_warmup",
            (run_id,),
        ).read_all().to_pylist()  # fmt: skip
        sides.append({(row["iteration"], row["step_index"]): row["duration_ns"] for row in rows})
    deciles = statistics.quantiles(sides[0].values(), n=10)
    change = compare_in_turns(*sides)
    assert change is not None, "the workload decodes"
    return change, deciles[-1] / deciles[0]


def _one(store: DuckDBStore, sql: str, run_id: str) -> dict[str, Any]:
    row: dict[str, Any] = store.query(sql, (run_id,)).read_all().to_pylist()[0]
    return row
