"""One run: its rows are there, agree with one another, and say what became of it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
import torch
from tests.support import TINY_BERT, TINY_GPT2, TINY_WORKLOAD, ListSink, request

from roofleet.analyzing.analysis import analyze
from roofleet.console import plain
from roofleet.errors import UserError
from roofleet.naming.models import resolve
from roofleet.reports.run import print_run
from roofleet_agent import profiling
from roofleet_agent.devices.cpu import CpuDevice
from roofleet_agent.errors import ModelNotFound, ModelRefused, OutOfMemory, WorkloadRefused
from roofleet_agent.measuring.clocks import clock_for
from roofleet_agent.measuring.layer_timer import LayerTimer
from roofleet_agent.registry import find_engine
from roofleet_agent.rows import table_of
from roofleet_agent.tracing.recorder import Recorder
from roofleet_agent.workload import ModelRequest, Workload
from roofleet_analysis.catalogs.hardware import find_hardware
from roofleet_analysis.costs import derive_op_costs
from roofleet_collector.store import Append, DuckDBStore


@pytest.fixture(scope="module")
def generated() -> ListSink:
    """A run of a tiny GPT-2."""
    sink = ListSink()
    profiling.profile(request(TINY_GPT2, task="generate"), CpuDevice(), "fp32", TINY_WORKLOAD, sink)
    return sink


def test_a_run_is_running_and_then_done(generated: ListSink) -> None:
    """The run is written when it begins and again when it ends, under one id."""
    runs = generated.rows("runs")
    assert [run["status"] for run in runs] == ["running", "done"]
    assert len({run["run_id"] for run in runs}) == 1
    assert runs[1]["finished_at"] >= runs[1]["started_at"]
    assert runs[1]["parameter_bytes"] == 4 * generated.rows("models")[0]["parameters"]
    assert runs[1]["peak_memory_bytes"] > runs[1]["parameter_bytes"]


def test_bare_and_timed_steps_take_turns_inside_an_iteration(generated: ListSink) -> None:
    """Prefills come in pairs, then three decode steps; which kind begins changes with the iteration."""
    steps = generated.rows("steps")
    assert {s["iteration"] for s in steps if s["is_warmup"]} == {0}
    assert {s["iteration"] for s in steps if not s["is_warmup"]} == {1, 2}
    for number in range(3):
        for phase in ("prefill", "decode"):
            mine = [s for s in steps if (s["iteration"], s["phase"]) == (number, phase)]
            first, second = ("bare", "timed") if number % 2 == 0 else ("timed", "bare")
            assert [s["pass"] for s in mine] == ([first, second] * len(mine))[: len(mine)]
            assert [s["step_index"] for s in mine] == list(range(len(mine)))
            assert len(mine) % 2 == 0 or phase == "decode"
            cached = [8, 9, 10] if phase == "decode" else [0] * len(mine)
            assert [s["cache_tokens"] for s in mine] == cached
            assert [s["start_ns"] for s in mine] == sorted(s["start_ns"] for s in mine)


def test_the_layers_of_a_step_lie_inside_it(generated: ListSink) -> None:
    """Where every layer is timed, self times add up to the model's; none is longer than the step."""
    steps = {
        (s["phase"], s["iteration"], s["step_index"]): s["duration_ns"]
        for s in generated.rows("steps")
        if s["pass"] == "timed" and not s["is_warmup"]
    }
    spans: dict[tuple[str, int, int], list[dict[str, int]]] = {}
    for span in generated.rows("spans"):
        spans.setdefault((span["phase"], span["iteration"], span["step_index"]), []).append(span)
    assert set(spans) == set(steps)
    for key, of_step in spans.items():
        assert all(s["start_ns"] + s["duration_ns"] <= steps[key] for s in of_step)
        roots = [s for s in of_step if s["path"] == ""]
        for root in roots if all(s["self_ns"] is not None for s in of_step) else ():  # all in one group
            assert sum(s["self_ns"] for s in of_step) == root["duration_ns"]


def test_layers_that_take_turns_are_all_timed(generated: ListSink) -> None:
    """Of a model so small that timing it all would show, every layer's own time is told, group by group."""
    groups = {
        s["layer_group"] for s in generated.rows("steps") if s["pass"] == "timed" and not s["is_warmup"]
    }
    told = {
        phase: {
            s["path"] for s in generated.rows("spans") if s["phase"] == phase and s["self_ns"] is not None
        }
        for phase in ("prefill", "decode")
    }
    assert groups == set(range(len(groups)))
    assert told["decode"] == told["prefill"]


def test_the_ops_are_those_of_the_middle_decode_step(generated: ListSink) -> None:
    """Of decode steps after 8, 9 and 10 cached tokens the middle one is stored: attention over 10."""
    assert generated.rows("runs")[0]["decode_cache_tokens"] == 9
    attention = [op for op in generated.rows("ops") if op["phase"] == "decode" and "attention" in op["op"]]
    assert [op["inputs"][1]["shape"] for op in attention] == [[1, 2, 10, 16]] * 2


def test_memory_is_told_for_every_layer(generated: ListSink) -> None:
    """In each phase every layer that ran has its memory, and none has more than the model."""
    for phase in ("prefill", "decode"):
        layers = [m for m in generated.rows("layer_memory") if m["phase"] == phase]
        root = next(m for m in layers if m["path"] == "")
        assert {m["path"] for m in layers} == {
            s["path"] for s in generated.rows("spans") if s["phase"] == phase
        }
        assert max(m["peak_bytes"] for m in layers) == root["peak_bytes"]


def test_an_encoder_has_one_forward() -> None:
    """A model that does not generate has the phase forward and no new tokens."""
    sink = ListSink()
    profiling.profile(request(TINY_BERT, task="encode"), CpuDevice(), "fp32", TINY_WORKLOAD, sink)
    assert {s["phase"] for s in sink.rows("steps")} == {"forward"}
    assert sink.rows("runs")[-1]["new_tokens"] == 0


def test_the_same_run_twice_counts_the_same() -> None:
    """Two runs of one workload have the same ops, edges, layers and memory."""
    sinks = [ListSink(), ListSink()]
    for sink in sinks:
        profiling.profile(request(TINY_GPT2, task="generate"), CpuDevice(), "fp32", TINY_WORKLOAD, sink)

    def without_run(table: str, sink: ListSink) -> list[dict[str, object]]:
        return [{k: v for k, v in row.items() if k != "run_id"} for row in sink.rows(table)]

    for table in ("ops", "layer_edges", "layers", "layer_memory"):
        assert without_run(table, sinks[0]) == without_run(table, sinks[1]), table


def test_a_run_that_fails_is_stored_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model whose forward raises leaves a failed run that says why."""
    model = ModelRequest("tests.agent.modules:breaks_on_real_data", "module", "own")
    sink = ListSink()
    with pytest.raises(ModelRefused, match=r"broken on purpose \(.*modules\.py, line \d+\) with inputs"):
        profiling.profile(model, CpuDevice(), "fp32", replace(TINY_WORKLOAD, iterations=1), sink)
    last = sink.rows("runs")[-1]
    assert last["status"] == "failed"
    assert "breaks_on_real_data raised RuntimeError: broken on purpose" in last["error"]


def test_a_module_of_the_users_own_runs() -> None:
    """A factory's module is measured with the inputs it gives, and what was asked beside them is told as not
    used."""
    sink = ListSink()
    model = ModelRequest("tests.agent.modules:with_inputs", "module", "own")
    profiling.profile(model, CpuDevice(), "fp32", replace(TINY_WORKLOAD, batch_size=8), sink)
    run = sink.rows("runs")[-1]
    assert (run["status"], run["batch_size"], run["prompt_tokens"]) == ("done", 3, 5)
    assert [(note["reason"], note["done"]) for note in json.loads(run["variant_notes"])] == [
        ("its factory gives inputs of batch 3 with 5 tokens", "--batch-size 8 has no effect"),
        ("its factory gives inputs of batch 3 with 5 tokens", "--prompt-tokens 8 has no effect"),
    ]
    assert sink.rows("models")[0]["architecture"] == "Sequential"


def test_images_have_no_tokens_and_a_modules_weights_are_its_own(tmp_path: Path) -> None:
    """Two images of three channels are a batch of 2 with 0 tokens: a step has none, and no rate of them."""
    sink = ListSink()
    model = resolve("tests.agent.modules:images", None)
    profiling.profile(model, CpuDevice(), "fp32", replace(TINY_WORKLOAD, iterations=3), sink)
    run = sink.rows("runs")[-1]
    assert (run["weights"], run["batch_size"], run["prompt_tokens"]) == ("own", 2, 0)
    assert {step["tokens"] for step in sink.rows("steps")} == {0}
    store = DuckDBStore(tmp_path)
    store.append(Append({name: pa.concat_tables(rows) for name, rows in sink.tables.items()})).result()
    console = plain(160)
    with console.capture() as capture:
        print_run(console, lambda sql, values: store.query(sql, values).read_all(), run["run_id"])
    phases = store.query("SELECT tokens_per_step, bare_p50_ns FROM phase_summary").read_all().to_pylist()
    store.close()
    assert [(p["tokens_per_step"], p["bare_p50_ns"] > 0) for p in phases] == [(None, True)]
    assert "own weights, batch 2\n" in capture.get()
    counted = analyze(model, "fp32", Workload(), [find_hardware("l4")], largest=True)
    assert (counted["batch_size"], counted["prompt_tokens"]) == (2, 0)
    # [2, 4, 6, 6] of windows of 27, then [2, 144] @ [144, 2]
    assert counted["phases"]["forward"]["matmul_flops"] == 2 * (2 * 4 * 36) * 27 + 2 * 2 * 144 * 2
    assert "prompt tokens" not in capture.get()


def test_a_fused_layer_is_one_thing_and_runs_alike_bare_and_timed() -> None:
    """An encoder layer that torch runs as one kernel is so in timed steps too: it has times and all its
    costs, what lies inside has neither, the run says so, and its ops are those of bare steps."""
    sink = ListSink()
    asked = resolve("tests.agent.modules:encoder", None)
    profiling.profile(asked, CpuDevice(), "fp32", TINY_WORKLOAD, sink)
    layers = {f"0.layers.{number}" for number in (0, 1)}
    assert {span["path"] for span in sink.rows("spans")} == {"", "0", *layers, "1"}
    with_ops = {op["path"] for op in sink.rows("ops") if not op["is_view"]}
    assert layers <= with_ops <= {"", "0", *layers, "1"}
    counted = derive_op_costs(pa.concat_tables(sink.tables["ops"])).to_pylist()
    assert all(cost["is_known"] for cost in counted)
    # 20 rows: four projections of 16 x 16, two products of attention, two of 16 x 32
    a_layer = 2 * 20 * 4 * 16 * 16 + 2 * (2 * 10 * 10 * 16) * 2 + 2 * 20 * 2 * 16 * 32
    assert sum(cost["matmul_flops"] for cost in counted) == 2 * a_layer + 2 * 20 * 16 * 3
    note = json.loads(sink.rows("runs")[-1]["variant_notes"])[0]
    assert (note["path"], note["reason"]) == ("*.layers.*", "torch runs it as one kernel")
    fused = {time["path"] for time in sink.rows("op_times") if time["op"].endswith("encoder_layer_fwd")}
    assert fused == layers

    session = find_engine(asked).load(asked, torch.device("cpu"), "fp32", Workload())
    clock = clock_for(torch.device("cpu"))
    timer = LayerTimer(session.module, clock, session.opaque)

    def ops() -> list[str]:
        recorder = Recorder(None)
        with torch.inference_mode(), recorder:
            session.single("forward").call()
        return [op.op for op in recorder.result().ops]

    bare = ops()
    with timer.timing():
        timer.begin()
        assert ops() == bare
    assert len(timer.intervals()) == 5
    assert bare.count("aten._transformer_encoder_layer_fwd") == 2


def test_a_factory_is_named_by_its_file_or_its_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file below the current folder is named like its package, another by its path, and both run; a file
    alone, one that is not there, and weights for what has its own are mistakes in words."""
    for folder in ("here/mypkg", "elsewhere"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "nets.py").write_text(
            "from torch import nn\nimport torch\n\ndef net():\n    return nn.Linear(2, 2), torch.ones(3, 2)\n"
        )
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.syspath_prepend(str(tmp_path / "here"))
    for name in ("mypkg/nets.py:net", "./mypkg/nets.py:net", "mypkg.nets:net"):
        assert resolve(name, None).name == "mypkg.nets:net"
    other = resolve("../elsewhere/nets.py:net", None)
    assert other.name == f"{tmp_path}/elsewhere/nets.py:net"
    for wanted in (other, resolve("mypkg/nets.py:net", None)):
        session = find_engine(wanted).load(wanted, torch.device("cpu"), "fp32", Workload())
        assert isinstance(session.module, torch.nn.Linear)
    for name, weights, says in (
        ("mypkg/nets.py", None, r"mypkg/nets\.py:factory"),
        ("mypkg/no.py:net", None, "names no factory"),
        ("mypkg/nets:net", None, "names no factory"),
        ("mypkg.nets:net", "pretrained", "leave out --weights"),
    ):
        with pytest.raises(UserError, match=says):
            resolve(name, weights)  # type: ignore[arg-type]


def test_a_model_of_images_is_refused_in_words(tmp_path: Path) -> None:
    """A folder with a ViT has no tokens to be given: the message says what it takes and what to do."""
    (tmp_path / "config.json").write_text('{"model_type": "vit", "architectures": ["ViTModel"]}')
    wanted = resolve(str(tmp_path), "random")
    with pytest.raises(ModelRefused, match=r"vit model and takes pixel_values.*file\.py:factory"):
        find_engine(wanted).load(wanted, torch.device("meta"), "fp32", Workload())


@pytest.mark.parametrize(
    ("name", "error", "says"),
    [
        ("tests.agent.modules:nothing_here", ModelNotFound, "nothing_here"),
        ("no.such.package:factory", ModelNotFound, "no.such"),
        ("tests.agent.modules:no_module", ModelRefused, "must return a torch.nn.Module"),
        (
            "tests.agent.modules:a_vector_and_a_number",
            ModelRefused,
            r"returned \(int, Tensor\); it must",
        ),
        ("tests.agent.modules:wants_a_size", ModelRefused, "asks for size, and a factory is called without"),
        ("tests.agent.modules:MODEL", ModelRefused, "is Linear and no function"),
        ("tests.agent.modules:always_the_same", ModelRefused, "makes a new module each time"),
        ("tests.agent.modules:images_of_no_size", ModelRefused, "begins with a Conv2d.*module, inputs"),
        ("tests.agent.modules:pairs", ModelRefused, r"guessed, float32 \[1, 8, 2\]: let .* return \(module"),
        ("tests.agent.modules:no_inputs_to_guess", ModelRefused, r"return \(module, inputs\)"),
    ],
)
def test_a_factory_that_does_not_do_is_named(name: str, error: type[Exception], says: str) -> None:
    """A factory that is missing or gives something else is an error that says what to do."""
    with pytest.raises(error, match=says):
        profiling.profile(ModelRequest(name, "module", "own"), CpuDevice(), "fp32", TINY_WORKLOAD, ListSink())


def test_more_tokens_than_positions_are_refused() -> None:
    """64 positions take a prompt of 60 and 5 new tokens, of which 4 are inputs, and no more."""
    fits = Workload(prompt_tokens=60, new_tokens=5, iterations=1, warmup=0)
    profiling.profile(request(TINY_GPT2, task="generate"), CpuDevice(), "fp32", fits, ListSink())
    with pytest.raises(WorkloadRefused, match="positions for 64"):
        profiling.profile(
            request(TINY_GPT2, task="generate"), CpuDevice(), "fp32", replace(fits, new_tokens=6), ListSink()
        )


@pytest.mark.parametrize(
    "wrong", [{"batch_size": 0}, {"prompt_tokens": 0}, {"iterations": 0}, {"warmup": -1}]
)
def test_a_workload_of_nothing_is_refused(wrong: dict[str, int]) -> None:
    """A workload names the figure that is too small."""
    with pytest.raises(WorkloadRefused, match=next(iter(wrong)).replace("_", "-")):
        Workload(**wrong)  # type: ignore[arg-type]


def test_rows_with_a_column_that_is_not_the_tables_are_an_error() -> None:
    """A misspelt column is found where the row is built."""
    with pytest.raises(KeyError, match="colour"):
        table_of("spans", [{"colour": "red"}])


def test_a_run_that_runs_out_of_memory_is_stored_with_its_peak() -> None:
    """The error says what to ask instead of the allocator's trace; the run is failed, with its peak."""
    asked = ModelRequest("tests.agent.modules:needs_too_much", "module", "own")
    sink = ListSink()
    with pytest.raises(OutOfMemory, match=r"ran out of memory with .* GiB in use.*roofleet analyze"):
        profiling.profile(asked, CpuDevice(), "fp32", TINY_WORKLOAD, sink)
    row = sink.rows("runs")[-1]
    assert row["status"] == "failed"
    assert row["peak_memory_bytes"] > 2**20
    assert row["peak_memory_source"] == "when memory ran out"


def test_what_cannot_fit_is_refused_before_it_runs() -> None:
    """Weights, cache and activations are counted on meta first, and each is told."""

    class SmallDevice(CpuDevice):
        def __init__(self) -> None:
            super().__init__()
            self.info = replace(self.info, memory_bytes=150_000)

    sink = ListSink()
    workload = replace(TINY_WORKLOAD, batch_size=8)
    with pytest.raises(WorkloadRefused, match=r"for its weights and at least .* for cache and activations"):
        profiling.profile(request(TINY_GPT2), SmallDevice(), "fp32", workload, sink)
    assert not sink.tables


def test_a_dtype_the_device_does_not_know_is_refused_with_those_it_does() -> None:
    """A device of torch without arithmetic stands for one that lacks a dtype."""

    class MetaDevice(CpuDevice):
        torch_name = "meta"

    with pytest.raises(WorkloadRefused, match="does not compute in bf16; it does in none"):
        profiling.profile(request(TINY_GPT2), MetaDevice(), "bf16", TINY_WORKLOAD, ListSink())
