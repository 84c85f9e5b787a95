"""`roofleet compare`: what it says of runs made by hand, how runs are named, and its mistakes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.support import TINY_LLAMA, collector, laid, roofleet, used
from transformers import AutoConfig, AutoModelForCausalLM

from roofleet.asking.comparison import compared_layers, compared_phases, folded, read_run
from roofleet.asking.reading import Query, reading
from roofleet.console import plain
from roofleet.errors import UserError
from roofleet.naming.runs import chosen_runs
from roofleet.reports.comparison import print_comparison, short_ids
from roofleet_agent.rows import table_of
from roofleet_analysis.costs import FORMULA_VERSION
from roofleet_collector.store import Append, DuckDBStore

BASE, FAST, NOISY, OTHER, COUNTED, FAILED = "aa-base", "ab-int8", "noisy", "other", "counted", "failed"
BEGAN = datetime(2026, 1, 1, tzinfo=UTC)
RUN = {
    "host_id": "h", "device_id": "d", "model_id": "m", "status": "done", "dtype": "fp32", "variant": "base",
    "weights": "random", "attention": "sdpa", "engine": "test", "batch_size": 1, "prompt_tokens": 8,
    "new_tokens": 3, "logits": "last", "iterations": 4, "warmup": 0,
}  # fmt: skip
RUNS: list[dict[str, Any]] = [
    {"run_id": BASE},
    {"run_id": FAST, "variant": "int8-dynamic", "kl_divergence": 0.0031, "top1_agreement": 0.98,
     "perplexity": 23.5, "baseline_perplexity": 23.1, "quality_baseline": "base, fp32"},
    {"run_id": NOISY, "variant": "pruned-50", "other_load": 0.4, "outputs_finite": False,
     "quality_unknown": "random weights predict nothing"},
    {"run_id": OTHER, "model_id": "m2"},
    {"run_id": COUNTED, "status": "analyzed"},
    {"run_id": FAILED, "status": "failed", "error": "OutOfMemoryError: 4 GiB"},
]  # fmt: skip
# the medians of four iterations in ns, about 1,000 and 500
TIMES = {BASE: (1000, 1002, 998, 1001), FAST: (500, 501, 499, 500), NOISY: (500, 501, 499, 500),
         OTHER: (2000, 2002, 1998, 2001)}  # fmt: skip
BLOCKS = 3


def _paths(run: str) -> list[tuple[str, int | None]]:
    blocks = [(f"h.{i}.mlp", i) for i in range(BLOCKS)]
    return [("", None), *blocks, *([("extra", None)] if run == FAST else [])]


def _rows() -> dict[str, list[dict[str, Any]]]:
    """A run's decode step is its time; each block's layer takes a quarter of it, and half is outside."""
    steps, spans, layers, ops, costs, memory = [], [], [], [], [], []
    for run in (*TIMES, COUNTED):
        for index, (path, block) in enumerate(_paths(run)):
            layers.append({
                "run_id": run, "path": path, "layer_index": index, "depth": path.count(".") + bool(path),
                "module_type": "L", "role": "mlp", "block_index": block, "is_leaf": bool(path),
                "parameters": 0, "parameter_bytes": 0,
            })  # fmt: skip
        ops.append({"run_id": run, "phase": "decode", "op_index": 0, "path": "h.0.mlp", "op": "aten.mm",
                    "inputs": [], "outputs": [], "is_view": False})  # fmt: skip
        costs.append({"run_id": run, "phase": "decode", "op_index": 0, "path": "h.0.mlp", "is_known": True,
                      "matmul_flops": 400, "causal_flops": 400, "other_flops": 0,
                      "weight_bytes": 50 if run == FAST else 200, "activation_bytes": 0, "kv_read_bytes": 0,
                      "kv_write_bytes": 0, "formula_version": FORMULA_VERSION})  # fmt: skip
        memory.append({"run_id": run, "phase": "decode", "weight_bytes": 1024, "kv_bytes": 512,
                       "activation_bytes": 512, "peak_bytes": 2048})  # fmt: skip
    for run, times in TIMES.items():
        for iteration, ns in enumerate(times):
            common = {
                "run_id": run,
                "phase": "decode",
                "iteration": iteration,
                "step_index": 0,
                "start_ns": 0,
            }
            steps += [common | {"pass": kind, "is_warmup": False, "duration_ns": ns, "tokens": 1,
                                "cache_tokens": 8} for kind in ("bare", "timed")]  # fmt: skip
            spans += [common | {"path": path, "duration_ns": ns // 4, "self_ns": ns // 4}
                      for path, _ in _paths(run) if path]  # fmt: skip
    runs = [RUN | {"started_at": BEGAN + timedelta(hours=n)} | run for n, run in enumerate(RUNS)]
    model = {"origin": "catalog", "architecture": "T", "task": "generate", "parameters": 1}
    return {
        "runs": runs, "steps": steps, "spans": spans, "layers": layers, "ops": ops, "op_costs": costs,
        "phase_memory": memory,
        "models": [model | {"model_id": "m", "name": "tiny"}, model | {"model_id": "m2", "name": "large"}],
        "hosts": [{"host_id": "h", "hostname": "one"}],
        "devices": [{"device_id": "d", "host_id": "h", "kind": "cpu", "name": "chip", "backend": "cpu",
                     "device_index": 0}],
    }  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with the runs."""
    folder = tmp_path_factory.mktemp("runs")
    store = DuckDBStore(laid(folder))
    store.append(Append({name: table_of(name, rows) for name, rows in _rows().items()})).result()
    store.close()
    return folder


@pytest.fixture
def query(data: Path) -> Iterator[Query]:
    """SQL over them."""
    with reading(None, data) as ask:
        yield ask


def text(query: Query, *names: str) -> str:
    """What is printed of the runs."""
    console = plain(200)
    with console.capture() as capture:
        print_comparison(console, [read_run(query, run) for run in chosen_runs(query, list(names))])
    return capture.get()


def test_two_runs_are_compared_for_people(data: Path) -> None:
    """Time, ratio and verdict, memory, work, quality and layers; status 0."""
    answer = roofleet("compare", BASE, FAST, data=data)
    assert answer.returncode == 0, answer.stderr
    for words in (
        "int8-dynamic", "1.00 µs", "500 ns", "0.500 ×", "faster", "2 KiB", "400 FLOP", "50 B", "23.5",
        "0.00310 nats", "98 %", "base, fp32", "h.*.mlp (3 layers)", "only here",
    ):  # fmt: skip
        assert words in answer.stdout, words


def test_json_has_base_units_and_nothing_else(data: Path) -> None:
    """One object: the runs, a row a phase, a row a layer, as numbers."""
    answer = roofleet("compare", BASE, FAST, "--json", data=data)
    assert answer.returncode == 0, answer.stderr
    found = json.loads(answer.stdout)
    assert [run["run_id"] for run in found["runs"]] == [BASE, FAST]
    (decode,) = found["phases"]
    assert decode["ratio"] == pytest.approx(0.5, rel=0.01)
    assert (decode["verdict"], decode["baseline_weight_bytes"], decode["weight_bytes"]) == ("faster", 200, 50)
    assert found["layers"][0]["path"] in ("h.*.mlp", "extra")


def test_a_collector_is_asked_with_server(data: Path) -> None:
    """Through Flight SQL the answer is the same as from the file."""
    on_file = roofleet("compare", BASE, FAST, "--json", data=data).stdout
    with collector(data) as running:
        by_flight = roofleet("compare", BASE, FAST, "--json", "--server", running.sql, data=data)
    assert json.loads(by_flight.stdout) == json.loads(on_file)


@pytest.mark.parametrize(
    ("names", "says"),
    [
        ((BASE, "zz"), "there is no run 'zz'. The latest are"),
        ((BASE, "a"), "'a' is the beginning of several runs"),
        ((BASE, "aa"), "are the same run aa-base"),
        ((BASE,), "is one run, a comparison needs two"),
        ((BASE, FAILED), "has no times, it is failed: OutOfMemoryError: 4 GiB"),
        ((BASE, "latest~9"), "there is no 'latest~9': 5 runs are done"),
    ],
)
def test_a_run_that_cannot_be_compared_is_a_mistake(names: tuple[str, ...], says: str, data: Path) -> None:
    """Status 2 with what was named and what there is, and no trace."""
    answer = roofleet("compare", *names, data=data)
    assert answer.returncode == 2
    assert says in answer.stderr
    assert "Traceback" not in answer.stderr


def test_an_ambiguous_beginning_lists_its_runs(query: Query) -> None:
    """Both candidates are named with what they are, and none that does not begin so."""
    with pytest.raises(UserError) as raised:
        chosen_runs(query, ["a", BASE])
    assert BASE in str(raised.value)
    assert f"{FAST}  tiny fp32 int8-dynamic, done" in str(raised.value)
    assert NOISY not in str(raised.value)


def test_runs_can_be_named_by_age_and_beginning(query: Query) -> None:
    """`latest` is the newest that is done or counted, not one that failed."""
    assert chosen_runs(query, ["latest", "latest~1", "ab", BASE]) == [COUNTED, OTHER, FAST, BASE]


def test_a_noisy_run_is_not_called_faster(query: Query) -> None:
    """Half the time is unclear with the reason in words; its broken outputs and missing quality are said."""
    said = text(query, BASE, NOISY)
    assert "unclear" in said
    assert "faster" not in said
    assert "the run is too noisy: other work took 40 % of the processors" in said
    assert "gave out NaN or infinite numbers" in said
    assert "random weights predict nothing" in said


def test_runs_of_different_models_are_said_to_be(query: Query) -> None:
    """Phases are compared, and layers where the paths agree."""
    said = text(query, FAST, OTHER)
    assert "runs of different models" in said
    assert "differ in 2 things at once" in said
    assert "slower" in said
    rows = compared_layers(read_run(query, FAST), read_run(query, OTHER))
    assert {row["path"] for row in rows} == {"h.*.mlp"}


def test_a_counted_run_is_compared_without_times(query: Query) -> None:
    """Work and memory stand beside the measured run's; ratio and verdict are unknown."""
    (row,) = compared_phases(read_run(query, BASE), read_run(query, COUNTED))
    assert (row["bare_ns"], row["ratio"], row["verdict"]) == (None, None, None)
    assert (row["matmul_flops"], row["peak_bytes"]) == (400, 2048)
    assert "was counted and never run" in text(query, BASE, COUNTED)


def test_three_runs_stand_beside_one_baseline(query: Query) -> None:
    """Each run has its column and its own layers against the baseline."""
    said = text(query, BASE, FAST, OTHER)
    assert f"{FAST} against {BASE}" in said
    assert f"{OTHER} against {BASE}" in said


def test_runs_without_repeats_are_said_to_have_none(query: Query) -> None:
    """An interval over iterations cannot show what another start of the process makes, and that is told."""
    assert "No quiet repeats of these runs are stored" in text(query, BASE, FAST)


def test_repeated_blocks_are_added_up_by_iteration(query: Query) -> None:
    """Three layers of 250 ns against three of 125 are 750 against 375, with an interval of their own."""
    rows = {row["path"]: row for row in compared_layers(read_run(query, BASE), read_run(query, FAST))}
    block = rows["h.*.mlp"]
    assert (block["layers"], block["matmul_flops"]) == (3, 400)
    assert block["baseline_ns"] == pytest.approx(750, rel=0.01)
    assert block["ratio"] == pytest.approx(0.5, rel=0.01)
    assert block["low"] < block["ratio"] < block["high"]
    assert block["verdict"] == "faster"
    assert (rows["extra"]["baseline_ns"], rows["extra"]["ratio"]) == (None, None)


def test_the_phases_are_those_of_the_view(query: Query) -> None:
    """The command and phase_comparison give the same figures."""
    (mine,) = compared_phases(read_run(query, BASE), read_run(query, FAST))
    (view,) = query(
        "SELECT * FROM phase_comparison WHERE baseline_run_id = ? AND run_id = ?", (BASE, FAST)
    ).to_pylist()
    assert set(mine) == set(view)
    for name, value in view.items():
        assert mine[name] == (pytest.approx(value) if isinstance(value, float) else value), name


@pytest.mark.parametrize(
    ("path", "block", "pattern"),
    [("h.3.attn", 3, "h.*.attn"), ("h.3", 3, "h.*"), ("lm_head", None, "lm_head"),
     ("layers.1.experts.1.up", 1, "layers.*.experts.1.up")],
)  # fmt: skip
def test_only_the_blocks_number_is_folded(path: str, block: int | None, pattern: str) -> None:
    """The first part that is the block's number becomes a star, others stay."""
    assert folded(path, block) == pattern


def test_short_ids_tell_runs_apart() -> None:
    """Eight characters, or as many more as it takes."""
    assert short_ids(["12345678-a", "12345679-b"]) == ["12345678", "12345679"]
    assert short_ids(["12345678-a", "12345678-b"]) == ["12345678-a", "12345678-b"]


@pytest.fixture(scope="module")
def turns(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What `compare --run` says of a tiny model against itself and against one with another attention."""
    data = used(tmp_path_factory.mktemp("turns"))
    AutoModelForCausalLM.from_config(AutoConfig.for_model(**TINY_LLAMA)).save_pretrained(data / "tiny")
    sides = [part for how in ("sdpa", "sdpa", "eager") for part in ("--attention", how)]
    little = ("--prompt-tokens", "8", "--new-tokens", "4", "--iterations", "6")
    done = roofleet("compare", "--run", str(data / "tiny"), *sides, *little, "--json", data=data)
    assert done.returncode == 0, done.stderr
    said: dict[str, Any] = json.loads(done.stdout)
    return said


def test_models_are_run_in_turns_and_compared(turns: dict[str, Any]) -> None:
    """Three ways to run one model are three runs of one group; a phase has a ratio with an interval."""
    assert [run["attention"] for run in turns["runs"]] == ["sdpa", "sdpa", "eager"]
    assert len({run["turns_id"] for run in turns["runs"]}) == 1
    assert turns["runs"][0]["turns_id"] is not None
    phases = [(row["run_id"], row["phase"]) for row in turns["phases"]]
    ids = [run["run_id"] for run in turns["runs"]]
    assert phases == [(run_id, phase) for run_id in ids[1:] for phase in ("prefill", "decode")]
    for row in turns["phases"]:
        assert row["low"] <= row["ratio"] <= row["high"]
        assert row["verdict"] in ("same", "faster", "slower", "unclear")
        assert "noisy" not in (row["why"] or "")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "no run is named, a comparison needs two"),
        (("--variant", "base"), "give --run MODEL too"),
        (("--run", "gpt2"), "a comparison needs two sides"),
        (("--run", "gpt2", "--variant", "base"), "a comparison needs two sides"),
        (("latest", "--run", "gpt2", "--variant", "base", "--variant", "base"), "give either runs"),
        (
            ("--run", "gpt2", "--variant", "a", "--variant", "b", "--dtype", "fp32", "--dtype", "bf16",
             "--dtype", "fp32"),
            "--variant is given 2 times and another option 3 times",
        ),
        (("--run", "gpt2", "--variant", "base", "--variant", "fast"), "fast"),
        (("--run", "gpt2", "--variant", "base", "--variant", "base", "--iterations", "many"), "or auto"),
    ],
)  # fmt: skip
def test_what_cannot_be_compared_is_said(arguments: tuple[str, ...], says: str, tmp_path: Path) -> None:
    """One line says what is missing, and the status is that of a mistake."""
    done = roofleet("compare", *arguments, data=tmp_path)
    assert done.returncode == 2
    assert says in " ".join(done.stderr.split())


def test_the_command_has_help(tmp_path: Path) -> None:
    """--help names the way to say runs and every option."""
    answer = roofleet("compare", "--help", data=tmp_path, COLUMNS="200")
    assert answer.returncode == 0
    for words in ("latest~1", "--server", "--data", "--json"):
        assert words in answer.stdout
