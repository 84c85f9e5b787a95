"""`with roofleet.profile(model) as run:` on models as users have them, which it leaves as they were."""

from __future__ import annotations

import copy
import subprocess
import sys
import threading
from collections import deque
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.families import FAMILIES
from tests.support import TINY_GPT2, TINY_LLAMA, collector, laid
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM

import roofleet
from roofleet.errors import UserError
from roofleet_agent.watching import calls as watching


@pytest.fixture
def data(tmp_path: Path) -> str:
    """A data folder without runs."""
    return str(laid(tmp_path / "data"))


def language_model(config: dict[str, Any]) -> Any:
    """A tiny model with random weights."""
    values = dict(config)
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(values.pop("model_type"), **values)).eval()


def test_calls_are_timed_with_layers_and_without_in_turns(data: str) -> None:
    """Of ten calls five are timed and five bare, in pairs, the first of them warm-up; layers have costs."""
    model = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 8))
    with roofleet.profile(model, "mlp", data=data, roofs=False) as run:
        for _ in range(10):
            model(torch.zeros(32, 64))
    layers = {row["path"]: row for row in run.layers().to_pylist()}
    assert layers["0"]["matmul_flops"] == 2 * 32 * 64 * 256
    assert layers["2"]["self_ns"] > 0
    steps = run.sql("SELECT pass, is_warmup, iteration FROM steps ORDER BY start_ns").to_pylist()
    assert [s["pass"] for s in steps] == ["timed", "bare"] * 5
    assert [s["iteration"] for s in steps] == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    assert [s["is_warmup"] for s in steps] == [True] * 2 + [False] * 8
    row = run.sql("SELECT * FROM run_summary").to_pylist()[0]
    assert (row["status"], row["batch_size"], row["model_name"]) == ("done", 32, "mlp")
    assert row["pairs_unknown"] == "forward: 4 pairs of bare and timed steps, 6 are needed"


def test_one_call_is_enough(data: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Layers have their times and costs, and the summary tells how long the call took."""
    model = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 2))
    with roofleet.profile(model, data=data, roofs=False) as run:
        model(torch.zeros(3, 4))
    layers = {row["path"]: row for row in run.layers().to_pylist()}
    assert layers["1"]["self_ns"] > 0
    assert layers["1"]["matmul_flops"] == 2 * 3 * 8 * 2
    run.summary()
    shown = capsys.readouterr().out
    assert "Sequential" in shown
    assert "time of a forward" in shown


def test_generation_has_prefill_and_decode(data: str) -> None:
    """generate() calls the model with a growing cache: phases and cached tokens are told apart."""
    model = language_model(TINY_LLAMA)
    with roofleet.profile(model, data=data, roofs=False) as run:
        model.generate(torch.ones(1, 8, dtype=torch.long), max_new_tokens=7, do_sample=False, pad_token_id=0)
    steps = run.sql("SELECT phase, cache_tokens FROM steps ORDER BY start_ns").to_pylist()
    assert [s["phase"] for s in steps] == ["prefill"] + ["decode"] * 6
    assert [s["cache_tokens"] for s in steps] == [0, 8, 9, 10, 11, 12, 13]
    kv = run.sql("SELECT sum(kv_read_bytes) AS kv FROM op_costs WHERE phase = 'decode'").to_pylist()
    assert kv[0]["kv"] > 0
    assert run.sql("SELECT tokens_per_s FROM run_summary").to_pylist() == [{"tokens_per_s": None}]


@pytest.mark.parametrize("tokens", [4, 5])
def test_every_phase_takes_turns_by_itself(data: str, tokens: int) -> None:
    """However many calls a generation makes, half of the prefills are timed; no two steps have one key."""
    model = language_model(TINY_LLAMA)
    with roofleet.profile(model, data=data, roofs=False) as run:
        for _ in range(4):
            model.generate(
                torch.ones(1, 8, dtype=torch.long), max_new_tokens=tokens, do_sample=False, pad_token_id=0
            )
    steps = run.sql("SELECT phase, pass, iteration, step_index FROM steps").to_pylist()
    assert sorted(s["pass"] for s in steps if s["phase"] == "prefill") == ["bare"] * 2 + ["timed"] * 2
    assert len({tuple(s.values()) for s in steps}) == len(steps) == 4 * tokens
    calls = run.sql("SELECT max(calls) AS most FROM layer_summary WHERE path = 'lm_head'").to_pylist()
    assert calls == [{"most": 1}]


def test_calls_of_another_shape_are_told_and_not_mixed_in(data: str) -> None:
    """Costs are those of the first call, so only calls like it are timed; the run says how many were not."""
    model = nn.Linear(4, 4)
    with roofleet.profile(model, data=data, roofs=False) as run:
        for rows in (2, 64, 64, 2):
            model(torch.zeros(rows, 4))
    assert run.sql("SELECT count(*) AS n FROM steps").to_pylist() == [{"n": 2}]
    notes = run.sql("SELECT variant_notes FROM runs").to_pylist()[0]["variant_notes"]
    assert "2 calls of forward had another shape than the first, 2 x 4" in notes


def test_an_encoder_and_its_decoder_are_told_apart(data: str) -> None:
    """T5's generate(): one prefill with the encoder, then decode with both caches."""
    model = FAMILIES["t5"].config
    values = dict(model)
    t5 = AutoModelForSeq2SeqLM.from_config(AutoConfig.for_model(values.pop("model_type"), **values)).eval()
    with roofleet.profile(t5, data=data, roofs=False) as run:
        t5.generate(
            input_ids=torch.ones(1, 8, dtype=torch.long),
            max_new_tokens=5,
            min_new_tokens=5,
            decoder_start_token_id=0,
        )
    phases = {p["phase"]: p for p in run.sql("SELECT * FROM phase_summary").to_pylist()}
    assert set(phases) == {"prefill", "decode"}
    assert phases["decode"]["kv_read_bytes"] > 0


_MASKS: dict[int, torch.Tensor] = {}


class _Caches(nn.Module):
    """Makes a mask at its first call and keeps it for all, in the model and outside of it."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.kept = nn.Linear(4, 4), {}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mask = _MASKS.setdefault(len(x), torch.ones(len(x), 1))
        scale = self.kept.setdefault(len(x), torch.full((4,), 2.0))
        return self.layer(x * mask) * scale


def test_what_a_model_keeps_from_its_first_call_can_be_trained_through(data: str) -> None:
    """A cache that the watched call filled holds tensors like any other."""
    model = _Caches()
    with roofleet.profile(model, data=data, roofs=False):
        for _ in range(3):
            model(torch.ones(2, 4)).sum().backward()
    assert model.layer.weight.grad is not None


class _Keeps(nn.Module):
    """Keeps state in every kind of container, and gives nothing back."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 2)
        self.list, self.dict, self.queue = [0], {"n": 0}, deque([0])
        self.tensor, self.inside = torch.zeros(1), {"t": torch.zeros(1)}

    def forward(self, x: torch.Tensor) -> None:
        self.list.append(1)
        self.queue.append(1)
        self.dict["n"] += 1
        self.tensor.add_(1)
        self.inside["t"].add_(1)
        self.out = self.layer(x)


def test_state_in_containers_is_put_back_and_none_is_an_answer(data: str) -> None:
    """After four calls everything was counted four times; a model that returns None has its times."""
    model = _Keeps()
    with roofleet.profile(model, data=data, roofs=False) as run:
        for _ in range(4):
            model(torch.zeros(1, 2))
    assert (len(model.list), len(model.queue), model.dict["n"]) == (5, 5, 4)
    assert (model.tensor.item(), model.inside["t"].item()) == (4, 4)
    assert run.sql("SELECT count(*) AS n FROM steps").to_pylist() == [{"n": 4}]


def test_threads_are_served_and_not_mixed_up(data: str) -> None:
    """Four threads get their answers; calls that overlap are told and not timed."""
    model = nn.Sequential(*(nn.Linear(64, 64) for _ in range(8)))
    answers: list[torch.Tensor] = []

    def use() -> None:
        for _ in range(20):
            answers.append(model(torch.zeros(8, 64)))

    with roofleet.profile(model, data=data, roofs=False) as run:
        threads = [threading.Thread(target=use) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        model(torch.zeros(8, 64))
    assert len(answers) == 80
    assert run.sql("SELECT status FROM runs").to_pylist() == [{"status": "done"}]
    assert run.sql("SELECT max(calls) AS most FROM layer_summary").to_pylist() == [{"most": 1}]


def test_a_scan_generates_under_watch(data: str) -> None:
    """Mamba's cache has states and no length."""
    values = dict(FAMILIES["mamba"].config)
    mamba = AutoModelForCausalLM.from_config(AutoConfig.for_model(values.pop("model_type"), **values)).eval()
    with roofleet.profile(mamba, data=data, roofs=False) as run:
        mamba.generate(
            torch.ones(1, 8, dtype=torch.long), max_new_tokens=5, min_new_tokens=5, do_sample=False
        )
    assert run.sql("SELECT count(*) AS n FROM steps").to_pylist() == [{"n": 5}]


def test_one_model_is_watched_once_at_a_time(data: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The inner with statement says so and watches nothing; the code in it runs, and the outer goes on."""
    model = nn.Linear(2, 2)
    with roofleet.profile(model, data=data, roofs=False) as run:
        with roofleet.profile(model, data=data, roofs=False) as inner:
            model(torch.zeros(1, 2))
    assert run.layers().num_rows == 1
    assert "it is being profiled already" in capsys.readouterr().err
    with pytest.raises(UserError, match="is being profiled already"):
        inner.layers()


class _Picky(nn.Module):
    """Needs gradients, which a copy that is played again does not have."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.layer(x)
        return torch.autograd.grad(y.sum(), self.layer.weight)[0]


def test_a_model_that_cannot_be_played_again_is_timed_all_the_same(data: str) -> None:
    """The user's call goes on; the run says that its ops are not known."""
    model = _Picky()
    with roofleet.profile(model, data=data, roofs=False) as run:
        assert model(torch.ones(2, 4)).shape == (4, 4)
    assert run.layers().num_rows == 2
    notes = run.sql("SELECT variant_notes FROM runs").to_pylist()[0]["variant_notes"]
    assert "the ops and memory of forward are not known" in notes


class _Stateful(nn.Module):
    """Counts its calls, keeps its last input, draws random numbers and has running statistics."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(4)
        self.calls = 0
        self.last: torch.Tensor | None = None
        self.register_forward_hook(lambda *_: None)

    def forward(self, x: torch.Tensor) -> dict[str, Any]:
        self.calls += 1
        self.last = x * torch.rand(())
        return {"out": [self.norm(x)], "note": "no tensor"}


def shape_of(model: nn.Module) -> Any:
    """Everything about a model that a profiler could leave changed, to be compared."""
    return [
        (
            path,
            sorted(module.__dict__),
            {key: id(value) for key, value in module.__dict__.items() if callable(value)},
            list(module._forward_hooks),
            list(module._forward_pre_hooks),
            list(module._forward_hooks_always_called),
            list(module._forward_hooks_with_kwargs),
            list(module._forward_pre_hooks_with_kwargs),
        )
        for path, module in model.named_modules()
    ]


def test_the_model_and_torch_are_left_as_they_were(data: str) -> None:
    """Watched or not, the same numbers come out and the same state is left: statistics, counters, hooks,
    random numbers and torch itself."""
    states = []
    torch_before = {name: dict(vars(m)) for name, m in (("torch", torch), ("functional", nn.functional))}
    for watched in (False, True):
        torch.manual_seed(7)
        model = _Stateful()
        before = shape_of(model)
        if watched:
            with roofleet.profile(model, data=data, roofs=False):
                outputs = [model(torch.full((5, 4), float(i)))["out"][0] for i in range(3)]
        else:
            outputs = [model(torch.full((5, 4), float(i)))["out"][0] for i in range(3)]
        assert shape_of(model) == before
        assert model.last is not None
        assert not model.last.is_inference()
        states.append((outputs, model.norm.running_mean, model.calls, model.last, torch.rand(3)))
    assert model.norm.num_batches_tracked == 3
    assert states[0][2] == states[1][2] == 3
    for plain, seen in zip(states[0], states[1], strict=True):
        if isinstance(plain, list):
            assert all(torch.equal(a, b) for a, b in zip(plain, seen, strict=True))
        elif isinstance(plain, torch.Tensor):
            assert torch.equal(plain, seen)
    for name, module in (("torch", torch), ("functional", nn.functional)):
        after = dict(vars(module))
        changed = {key for key, value in torch_before[name].items() if after.get(key) is not value}
        assert not changed


def test_a_model_still_trains_after_it_was_watched(data: str) -> None:
    """Gradients flow through calls inside the with statement and after it."""
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 1))
    with roofleet.profile(model, data=data, roofs=False):
        model(torch.ones(2, 4)).sum().backward()
    inside = model[0].weight.grad
    assert inside is not None
    model.zero_grad()
    model(torch.ones(2, 4)).sum().backward()
    assert torch.equal(inside, model[0].weight.grad)


def test_wrappers_of_other_libraries_are_models_too(data: str) -> None:
    """peft adapters and accelerate's hooks replace layers and forwards: their layers and work are seen."""
    peft, accelerate = pytest.importorskip("peft"), pytest.importorskip("accelerate")
    base = language_model(TINY_LLAMA)
    adapted = peft.get_peft_model(
        base, peft.LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM")
    )
    accelerate.hooks.add_hook_to_module(
        adapted.get_submodule("base_model.model.lm_head"), accelerate.hooks.ModelHook()
    )
    with roofleet.profile(adapted, data=data, roofs=False) as run:
        adapted(input_ids=torch.ones(1, 6, dtype=torch.long))
    work = {row["path"]: row["matmul_flops"] for row in run.layers().to_pylist()}
    # [6, 32] @ [32, 2] of the adapter's first matrix, and the head's [6, 32] @ [32, 101]
    assert work["base_model.model.model.layers.0.self_attn.q_proj.lora_A.default"] == 2 * 6 * 32 * 2
    assert work["base_model.model.lm_head"] == 2 * 6 * 32 * 101


def test_something_that_holds_a_model_is_watched_by_its_model(data: str) -> None:
    """A pipeline has its network as .model."""

    class Pipeline:
        def __init__(self) -> None:
            self.model = nn.Linear(2, 2)

        def __call__(self, x: float) -> Any:
            return self.model(torch.full((1, 2), x)).tolist()

    pipeline = Pipeline()
    with roofleet.profile(pipeline, "pipe", data=data, roofs=False) as run:
        pipeline(1.0)
    assert run.layers().num_rows == 1


def test_an_error_in_the_users_code_is_theirs_and_stored(data: str) -> None:
    """It goes on its way; the run is stored as failed, with every hook off."""
    model = nn.Linear(4, 4)
    run = roofleet.profile(model, data=data, roofs=False)

    def evaluate() -> None:
        with run:
            model(torch.zeros(1, 4))
            raise ZeroDivisionError("theirs")

    with pytest.raises(ZeroDivisionError):
        evaluate()
    assert run.sql("SELECT status, error FROM runs").to_pylist() == [
        {"status": "failed", "error": "ZeroDivisionError: theirs"}
    ]
    assert not model._forward_hooks
    assert not model._forward_pre_hooks


def test_an_error_inside_the_model_ends_its_call_only(data: str) -> None:
    """A call that raises is not counted; later calls are."""
    model = nn.Sequential(nn.Linear(4, 4))
    with roofleet.profile(model, data=data, roofs=False) as run:
        model(torch.zeros(1, 4))
        for _ in range(2):
            with pytest.raises(RuntimeError):
                model(torch.zeros(1, 3))
        model(torch.zeros(1, 4))
    assert run.sql("SELECT count(*) AS n FROM steps").to_pylist() == [{"n": 2}]


@pytest.mark.parametrize("wrong", [3, "gpt2"])
def test_what_is_no_model_is_refused(wrong: Any) -> None:
    """The message says what is wanted."""
    with pytest.raises(UserError, match=r"torch\.nn\.Module"):
        roofleet.profile(wrong)


def test_a_model_that_is_not_called_is_said(data: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing is stored and nothing raised; the word says which part was called in its place."""
    model = nn.Sequential(nn.Linear(1, 1), nn.Linear(1, 1))
    for call, said in ((lambda: None, "call the model itself"), (model[1], "its part `1` was called once")):
        with roofleet.profile(model, data=data, roofs=False) as run:
            call(torch.zeros(1, 1)) if call is model[1] else call()
        assert said in capsys.readouterr().err
        with pytest.raises(UserError, match="was not called"):
            run.layers()


def test_the_run_can_be_asked_for_only_when_it_is_stored(data: str) -> None:
    """Inside the with statement there is nothing to read yet."""
    model = nn.Linear(1, 1)
    with roofleet.profile(model, data=data, roofs=False) as run:
        model(torch.zeros(1, 1))
        with pytest.raises(UserError, match="when the with statement ends"):
            run.layers()


def test_a_long_evaluation_is_watched_for_its_first_calls(data: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """After so many calls the rest go on unwatched."""
    monkeypatch.setattr(watching, "MOST_CALLS", 6)
    model = nn.Linear(2, 2)
    with roofleet.profile(model, data=data, roofs=False) as run:
        for _ in range(50):
            model(torch.zeros(1, 2))
    assert run.sql("SELECT count(*) AS n FROM steps").to_pylist() == [{"n": 6}]


def test_the_run_goes_to_a_collector(tmp_path: Path) -> None:
    """And is read from it, by the run and by roofleet.connect."""
    with collector(tmp_path) as running:
        model = nn.Linear(2, 2)
        with roofleet.profile(model, "sent", collector=running.grpc, roofs=False) as run:
            model(torch.zeros(1, 2))
        assert run.layers().num_rows == 1
        with roofleet.connect(running.sql) as connection:
            found = connection.sql("SELECT model_name FROM run_summary").to_pylist()
    assert found == [{"model_name": "sent"}]


def test_models_are_equal_to_copies_made_before(data: str) -> None:
    """Weights and buffers are bit for bit what they were."""
    model = language_model(TINY_GPT2)
    before = copy.deepcopy(model.state_dict())
    with roofleet.profile(model, data=data, roofs=False):
        model(torch.ones(1, 4, dtype=torch.long))
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_importing_roofleet_does_not_import_torch() -> None:
    """The command's help must not wait for it."""
    code = "import roofleet, sys; roofleet.profile; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
