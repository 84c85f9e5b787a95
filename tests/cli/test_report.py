"""What is printed of a run: times with their certainty, memory, warnings in plain words, and its notes."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from tests.support import laid

from roofleet.console import plain
from roofleet.reports.notes import variant_lines
from roofleet.reports.run import growth_text, print_run
from roofleet_agent.rows import table_of
from roofleet_collector.store import Append, DuckDBStore

RUN = {
    "run_id": "r", "host_id": "h", "device_id": "d", "model_id": "m", "status": "done", "dtype": "bf16",
    "started_at": datetime(2026, 1, 1, tzinfo=UTC), "variant": "base", "weights": "pretrained",
    "attention": "sdpa", "engine": "test", "batch_size": 1, "prompt_tokens": 8, "new_tokens": 7,
    "logits": "last", "iterations": 3, "warmup": 0, "decode_cache_tokens": 10,
}  # fmt: skip
MODEL = {"model_id": "m", "name": "tiny", "origin": "catalog", "architecture": "T", "task": "generate",
         "parameters": 5}  # fmt: skip
DEVICE = {"device_id": "d", "host_id": "h", "kind": "cpu", "name": "chip", "backend": "cpu",
          "device_index": 0}  # fmt: skip
OP = {"run_id": "r", "phase": "decode", "path": "", "inputs": [], "outputs": [], "is_view": False}
MEMORY = {"run_id": "r", "phase": "decode", "weight_bytes": 2**20, "kv_bytes": 2**10,
          "activation_bytes": 2**11, "peak_bytes": 2**20 + 3 * 2**10, "peak_path": "h.0.mlp",
          "peak_op": "aten.mul", "peak_step_index": 5}  # fmt: skip


def _steps() -> list[dict[str, Any]]:
    """Three iterations of six decode steps: 2 ms, and 10 us more for each token in the cache."""
    return [
        {"run_id": "r", "phase": "decode", "pass": "bare", "iteration": i, "step_index": s,
         "is_warmup": False, "start_ns": 0, "duration_ns": 2_000_000 + 10_000 * s + 100 * i, "tokens": 1,
         "cache_tokens": 8 + s}
        for i in range(3) for s in range(6)
    ]  # fmt: skip


def printed(folder: Path, run: dict[str, Any] | None = None, **tables: list[dict[str, Any]]) -> str:
    """What is printed of the run with these columns and rows."""
    store = DuckDBStore(laid(folder))
    rows = {"runs": [RUN | (run or {})], "models": [MODEL], "devices": [DEVICE], "steps": _steps(), **tables}
    store.append(Append({name: table_of(name, listed) for name, listed in rows.items()})).result()
    console = plain(160)
    with console.capture() as capture:
        print_run(console, lambda sql, values: store.query(sql, values).read_all(), "r")
    store.close()
    return capture.get()


def test_a_phase_has_its_median_its_spread_and_its_certainty(tmp_path: Path) -> None:
    """Medians 2 ms to 2.05 ms; the medians of three iterations, 100 ns apart, are certain to three digits."""
    said = printed(tmp_path)
    (line,) = [line for line in said.splitlines() if "time per output token " in line and "18" in line]
    assert [part.strip() for part in line.split("  ") if part.strip()] == [
        "time per output token after 8 to 13 cached tokens",
        "2.03 ms", "2.00 ms to 2.05 ms", "2.02 ms to 2.03 ms", "18",
    ]  # fmt: skip
    assert "noisy" not in said
    assert "NaN" not in said


def test_growth_with_the_context_is_told(tmp_path: Path) -> None:
    """10 us a token are 10 ms per 1,000 tokens, from 8 to 13 cached."""
    assert (
        "time per output token grows by 10.0 ms per 1,000 cached tokens, between 8 and 13 cached tokens"
        in printed(tmp_path)
    )


def test_growth_within_the_noise_is_none() -> None:
    """Where the interval of the slope includes none nothing grows, and three lengths say nothing."""
    assert growth_text(None, 6, 8, 13) == (
        "time per output token does not grow beyond the noise between 8 and 13 cached tokens"
    )
    assert "grows by 5 µs per 1,000" in (growth_text(5.0, 6, 8, 13) or "")
    assert growth_text(5.0, 3, 8, 10) is None


def test_overhead_and_coverage_are_told_with_their_interval_or_the_reason(tmp_path: Path) -> None:
    """Ten timed steps a hundredth longer than the bare ones beside them; without such there is a reason."""
    pairs = [
        step | {"step_index": 2 * step["step_index"] + later, "pass": kind,
                "duration_ns": step["duration_ns"] * ratio // 100}
        for step in _steps() for later, (kind, ratio) in enumerate((("bare", 100), ("timed", 101)))
    ]  # fmt: skip
    ended = {"iterations": 9, "iterations_ended_by": "budget"}
    said = " ".join(printed(tmp_path / "sure", ended, steps=pairs).split())
    assert "instrumentation overhead +1.0 % (+0.8 % to +1.2 %)" in said
    assert "iterations 9, the time for them was up (--budget)" in said
    unsure = " ".join(printed(tmp_path / "unsure").split())
    assert "instrumentation overhead not known (decode: no timed step has a bare one beside it)" in unsure
    assert "iterations" not in unsure.split("95 % interval")[0]


def test_memory_is_told_by_phase_with_the_place_of_the_peak(tmp_path: Path) -> None:
    """Weights, cache, activations, and the layer, op and step at the peak; what is not known is a dash."""
    said = printed(tmp_path, phase_memory=[MEMORY])
    (line,) = [line for line in said.splitlines() if "h.0.mlp" in line]
    assert [part.strip() for part in line.split("  ") if part.strip()] == [
        "decode", "1.00 MiB", "1 MiB", "1 KiB", "2 KiB", "–", "h.0.mlp, aten.mul, step 5",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("conditions", "reason", "advice"),
    [
        ({"other_load": 0.5}, "other work took 50 % of the processors", "stop what else runs"),
        ({"throttled": True}, "heat or power held the device back", "let the device cool"),
        (
            {"clock_low_hz": 1e9, "clock_high_hz": 2e9},
            "the clock moved between 1.00 and 2.00 GHz",
            "governor",
        ),
    ],
)
def test_noise_is_said_with_what_helps(
    tmp_path: Path, conditions: dict[str, Any], reason: str, advice: str
) -> None:
    """The reason stands before the times, and below it what to do about that reason and no other."""
    said = printed(tmp_path, conditions)
    assert f"these times are too noisy to rely on: {reason}" in said
    (line,) = [line for line in said.splitlines() if "what helps" in line]
    assert advice in line
    assert ";" not in line


def test_a_wide_interval_asks_for_more_iterations(tmp_path: Path) -> None:
    """Iterations of 2, 3 and 4 ms are too few to tell."""
    steps = [step | {"duration_ns": 1_000_000 * (2 + step["iteration"])} for step in _steps()]
    said = printed(tmp_path, steps=steps)
    assert "decode: the interval is" in said
    assert "--iterations" in said


def test_ops_without_a_formula_are_named_with_their_share(tmp_path: Path) -> None:
    """3 of 4 us of the time in ops are an op nobody knows."""
    known = {"run_id": "r", "phase": "decode", "path": "", "is_known": True, "matmul_flops": 1,
             "causal_flops": 1, "other_flops": 0, "weight_bytes": 1, "activation_bytes": 0,
             "kv_read_bytes": 0, "kv_write_bytes": 0, "formula_version": 1}  # fmt: skip
    unknown = {"run_id": "r", "phase": "decode", "path": "", "is_known": False, "formula_version": 1}
    time = {"run_id": "r", "phase": "decode", "path": ""}
    said = printed(
        tmp_path,
        ops=[OP | {"op_index": 0, "op": "aten.mm"}, OP | {"op_index": 1, "op": "mine.kernel"}],
        op_costs=[known | {"op_index": 0}, unknown | {"op_index": 1}],
        op_times=[time | {"op": "aten.mm", "calls": 1, "duration_ns": 1000},
                  time | {"op": "mine.kernel", "calls": 1, "duration_ns": 3000}],
    )  # fmt: skip
    assert "1 op has no cost formula" in said
    assert "mine.kernel: 1 calls a step of decode, 75 % of the time of its ops" in said
    assert "aten.mm:" not in said


def test_quality_stands_beside_the_variant(tmp_path: Path) -> None:
    """Perplexity beside the baseline's, divergence and agreement with what they are against."""
    quality = {"variant": "int8-dynamic", "perplexity": 23.5, "baseline_perplexity": 23.1,
               "kl_divergence": 0.0031, "top1_agreement": 0.984,
               "quality_baseline": "base, bf16"}  # fmt: skip
    said = printed(tmp_path, quality)
    assert "bf16 int8-dynamic, sdpa attention" in said
    for words in (
        "23.5, baseline 23.1", "KL divergence against base, bf16", "0.00310 nats", "98.4 %",
    ):  # fmt: skip
        assert words in said


def test_without_quality_the_reason_is_told(tmp_path: Path) -> None:
    """NULL figures of a variant come with their reason, and without any no line is printed; a model that is
    unchanged costs nothing in quality."""
    said = printed(tmp_path / "base", {"quality_unknown": "random weights"})
    assert "quality" not in said
    said = printed(tmp_path, {"quality_unknown": "random weights", "variant": "pruned-50"})
    assert "what this costs in quality is not known: random weights" in said
    assert "perplexity" not in said


def test_broken_outputs_are_said_loudly(tmp_path: Path) -> None:
    """NaN is told before any time."""
    said = printed(tmp_path, {"outputs_finite": False})
    assert said.index("NaN or infinite numbers") < said.index("2.03 ms")


def test_a_counted_run_is_printed_without_times(tmp_path: Path) -> None:
    """An analyzed run has its head and memory, and says that it never ran."""
    said = printed(tmp_path, {"status": "analyzed"}, steps=[], phase_memory=[MEMORY])
    assert "counted and never run" in said
    assert "h.0.mlp, aten.mul" in said
    assert "time per output token" not in said
    assert "tokens/s" not in said


def test_a_failed_run_says_why(tmp_path: Path) -> None:
    """The reason it failed stands where its times would."""
    said = printed(tmp_path, {"status": "failed", "error": "OutOfMemoryError: [4 GiB]"}, steps=[])
    assert "failed: OutOfMemoryError: [4 GiB]" in said


def test_what_a_variant_could_not_do_is_folded_by_reason() -> None:
    """Five layers with one reason are one line that names three of them."""
    notes = [
        {"path": f"h.{i}", "reason": "in_features 33 is odd", "done": "left as it was"} for i in range(5)
    ]
    notes.append({"path": "", "reason": "tied", "done": ""})
    assert variant_lines("int4-weight-only", json.dumps(notes)) == [
        "int4-weight-only was not applied everywhere:",
        "  h.0, h.1, h.2 and 2 more: in_features 33 is odd (left as it was)",
        "  (the model itself): tied",
    ]
    assert variant_lines("base", None) == []


def test_an_unchanged_model_is_not_told_of_variants() -> None:
    """What a checkpoint lacks or has too much is told as that, not as a variant that was not applied."""
    notes = [{"path": "pooler", "reason": "the checkpoint lacks it", "done": "random values"}]
    lines = ["not all is as the checkpoint has it:", "  pooler: the checkpoint lacks it (random values)"]
    assert variant_lines("base", json.dumps(notes)) == lines
    notes.append({"path": "h.0", "reason": "tied", "done": ""})
    assert variant_lines("int8-dynamic", json.dumps(notes)) == [
        *lines,
        "int8-dynamic was not applied everywhere:",
        "  h.0: tied",
    ]
