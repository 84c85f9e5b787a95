"""What a watched model's run says: costs of the middle of what was called, and whose calls were timed."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from tests.support import TINY_LLAMA, ListSink, request
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM

from roofleet_agent import profiling
from roofleet_agent.devices.cpu import CpuDevice
from roofleet_agent.engines.base import Step
from roofleet_agent.measuring.steps import TimedStep
from roofleet_agent.watching import Watch, calls
from roofleet_agent.watching.phases import Phase
from roofleet_agent.workload import Workload


@pytest.fixture(scope="module")
def llama() -> Any:
    """A tiny model that generates."""
    values = dict(TINY_LLAMA)
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(values.pop("model_type"), **values)).eval()


def generate(model: Any, new_tokens: int = 40, **more: Any) -> None:
    """Generates so many tokens after a prompt of 8."""
    ids = torch.ones(1, 8, dtype=torch.long)
    model.generate(
        input_ids=ids, max_new_tokens=new_tokens, min_new_tokens=new_tokens, pad_token_id=0, **more
    )


def watched(model: nn.Module, use: Callable[[], object]) -> ListSink:
    """The rows of a model that was watched while it was used."""
    watch = Watch(model, "model")
    watch.start()
    use()
    watch.stop()
    watch.play()
    sink = ListSink()
    watch.write(sink, "done", None, lambda op: None)
    return sink


def notes(sink: ListSink) -> str:
    """What the run notes, as text."""
    return "; ".join(
        f"{n['reason']}: {n['done']}" for n in json.loads(sink.rows("runs")[0]["variant_notes"] or "[]")
    )


def products(sink: ListSink, phase: str) -> list[Any]:
    """Matrix products and attention of a phase, with the shapes they have."""
    return [
        (op["path"], op["op"], [tensor["shape"] for tensor in op["inputs"]])
        for op in sink.rows("ops")
        if op["phase"] == phase and op["op"] in ("aten.linear", "aten.scaled_dot_product_attention")
    ]


def test_a_watched_generation_costs_what_a_profiled_one_does(llama: Any) -> None:
    """40 tokens after a prompt of 8: decode stands for its middle step, after 27 cached tokens, its memory
    for the last. Products, cache and what is said of logits are those of a profile of the same work."""
    ours = watched(llama, lambda: generate(llama))
    theirs = ListSink()
    workload = Workload(prompt_tokens=8, new_tokens=40, iterations=1, warmup=0)
    profiling.profile(request(TINY_LLAMA, task="generate"), CpuDevice(), "fp32", workload, theirs)
    for phase in ("prefill", "decode"):
        assert products(ours, phase) == products(theirs, phase) != []
    for name in ("decode_cache_tokens", "logits", "prompt_tokens", "new_tokens", "batch_size"):
        assert ours.rows("runs")[0][name] == theirs.rows("runs")[-1][name]
    caches = [
        {row["phase"]: (row["kv_bytes"], row["peak_step_index"]) for row in sink.rows("phase_memory")}
        for sink in (ours, theirs)
    ]
    assert caches[0] == caches[1]


def test_logits_are_those_that_were_computed(llama: Any) -> None:
    """All where all are asked for, the last where one is, and how many where it is something else."""
    for asked, told in ((0, "all"), (1, "last"), (3, "last 3")):
        ids = torch.ones(1, 8, dtype=torch.long)
        sink = watched(llama, lambda ids=ids, asked=asked: llama(input_ids=ids, logits_to_keep=asked))
        assert sink.rows("runs")[0]["logits"] == told


def test_an_adapters_generate_is_seen_where_it_goes(llama: Any) -> None:
    """peft's generate calls the model inside of the adapter: the run has its prefill and decode, with layers
    under their paths from the adapter."""
    peft = pytest.importorskip("peft")
    adapted = peft.get_peft_model(llama, peft.LoraConfig(r=2, target_modules=["q_proj"]))
    try:
        sink = watched(adapted, lambda: generate(adapted, 6))
    finally:
        adapted.unload()
    steps = [(step["phase"], step["pass"]) for step in sink.rows("steps")]
    assert steps.count(("decode", "bare")) == 2
    assert steps.count(("decode", "timed")) == 3
    paths = {op["path"] for op in sink.rows("ops")} & {span["path"] for span in sink.rows("spans")}
    assert "base_model.model.model.layers.0.self_attn.q_proj.lora_A.default" in paths
    assert notes(sink) == ""


def in_threads(model: Any) -> None:
    """Eight generations in four threads."""
    threads = [
        threading.Thread(target=lambda: [generate(model, 8) for _ in range(2)], daemon=True) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def in_the_background(model: Any) -> None:
    """Generations that a program of coroutines sends off, and one that it waits for."""

    async def serve() -> None:
        await asyncio.gather(*(asyncio.to_thread(generate, model, 8) for _ in range(3)))
        await asyncio.to_thread(generate, model, 8)

    asyncio.run(serve())


@pytest.mark.parametrize("use", [in_threads, in_the_background])
def test_calls_beside_one_another_have_times(llama: Any, use: Callable[[Any], None]) -> None:
    """Both phases are timed, bare and with layers, ops and memory are known; if the times are of calls that
    ran beside others, or such calls were left out, the run says so."""
    sink = watched(llama, lambda: use(llama))
    steps = sink.rows("steps")
    assert {(step["phase"], step["pass"]) for step in steps} >= {("decode", "bare"), ("decode", "timed")}
    assert (
        {step["phase"] for step in steps} == {"prefill", "decode"} == {op["phase"] for op in sink.rows("ops")}
    )
    keys = [tuple(step[k] for k in ("phase", "pass", "iteration", "step_index")) for step in steps]
    assert len(keys) == len(set(keys))
    told = notes(sink)
    assert "the watching failed" not in told
    if len(steps) < {in_threads: 64, in_the_background: 32}[use]:
        assert "ran beside others" in told


def test_calls_that_ran_alone_are_told_where_there_are_enough_of_them() -> None:
    """Four of each kind are enough, however many ran beside others; one or two are not, and if only calls
    beside others were there, they are told."""

    def steps(count: int) -> list[TimedStep]:
        step = Step("decode", 0, 1, 0, lambda: None)
        return [
            TimedStep(step, kind, number, False, 0, 1)
            for number in range(count)
            for kind in ("timed", "bare")
        ]

    few, enough, many = steps(1), steps(4), steps(20)
    assert Phase("decode", alone=enough, beside=many).steps is enough
    assert Phase("decode", alone=few, beside=many).steps is many
    assert Phase("decode", beside=many[:1]).steps == many[:1]


class _Stuck(nn.Module):
    """Does not end until it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.begun, self.go = nn.Linear(2, 2), threading.Event(), threading.Event()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.begun.set()
        self.go.wait(60)
        return self.layer(x)


def test_a_call_that_is_still_under_way_is_left_alone() -> None:
    """Nothing is played beside it, and the run says why ops are not known."""
    model = _Stuck()
    thread = threading.Thread(target=model, args=(torch.zeros(1, 2),), daemon=True)

    def use() -> None:
        thread.start()
        model.begun.wait(60)

    try:
        sink = watched(model, use)
    finally:
        model.go.set()
        thread.join()
    assert "1 calls were still under way" in notes(sink)
    assert sink.rows("runs")[0]["status"] == "done"


def test_a_fault_of_ours_ends_the_watching_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """The user's calls go on, the run says what happened, and the model is as it was."""
    model = nn.Sequential(nn.Linear(2, 2))
    before = dict(vars(model))
    given: list[torch.Tensor] = []

    def broken(*_: object) -> None:
        raise LookupError("ours")

    def use() -> None:
        given.append(model(torch.ones(1, 2)))
        monkeypatch.setattr(calls, "cached_tokens", broken)
        given.extend(model(torch.ones(1, 2)) for _ in range(3))

    sink = watched(model, use)
    assert all(torch.equal(one, given[0]) for one in given)
    assert "the watching failed (LookupError: ours)" in notes(sink)
    assert len(sink.rows("steps")) == 1
    assert vars(model) == before


def test_a_training_loop_is_told_that_backward_is_not_profiled() -> None:
    """And an evaluation is not."""
    model = nn.Linear(2, 2)
    assert "backward is not profiled" in notes(
        watched(model, lambda: model(torch.zeros(1, 2)).sum().backward())
    )
    assert notes(watched(model.eval(), lambda: model(torch.zeros(1, 2)))) == ""


def test_images_have_no_tokens() -> None:
    """A convolution's channels are none; another picture size is another shape."""
    model = nn.Conv2d(3, 4, 3)

    def use() -> None:
        for size in (8, 8, 9):
            model(torch.zeros(2, 3, size, size))

    sink = watched(model, use)
    run = sink.rows("runs")[0]
    assert (run["batch_size"], run["prompt_tokens"], run["weights"]) == (2, 0, "own")
    assert run["quality_unknown"] is None
    assert "1 calls of forward had another shape than the first, 2 x 3 x 8 x 8" in notes(sink)


def test_what_would_be_written_to_twice_is_not_played() -> None:
    """A model that writes to a tensor of somebody else's is timed, and its ops are not known."""
    log = torch.zeros(1)

    class Logs(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            log.add_(1)
            return super().forward(x)

    model = Logs(2, 2)
    sink = watched(model, lambda: model(torch.zeros(1, 2)))
    assert log.item() == 1
    assert "it writes to tensors that cannot be exchanged for copies (aten.add_" in notes(sink)
    assert len(sink.rows("steps")) == 1
