"""Watching a model changes nothing: outputs, gradients, steps, state, hooks and random numbers are to the
digit those of the same code without us, whatever the model is made of."""

from __future__ import annotations

import copy
import io
import pickle
import random
import warnings
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from tests.support import TINY_LLAMA
from torch import nn
from torch.func import functional_call, grad, vmap
from torch.nn.utils import parametrizations, parametrize
from torch.nn.utils.prune import l1_unstructured
from torch.utils.checkpoint import checkpoint
from transformers import AutoConfig, AutoModelForCausalLM

import roofleet

Case = Callable[[Any], Any]
"""Makes a model, and does with it what a user does, inside of the manager that is given for the model."""
CASES: dict[str, Case] = {}


def case(made: Case) -> Case:
    """Adds a case under its name."""
    CASES[made.__name__] = made
    return made


X = torch.linspace(-1, 1, 24).reshape(4, 6)


def trained(model: nn.Module, watched: Any, rounds: int = 3, x: torch.Tensor = X) -> Any:
    """A training loop: losses, and gradients, parameters and buffers after every step."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    seen = []
    with watched(model):
        for _ in range(rounds):
            loss = model(x).square().sum()
            optimizer.zero_grad()
            loss.backward()
            seen.append((loss.detach(), [p.grad for p in model.parameters()]))
            optimizer.step()
    return seen


@case
def an_optimizer_in_a_training_loop(watched: Any) -> Any:
    return trained(nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 2)), watched)


@case
def batch_norm_in_a_training_loop(watched: Any) -> Any:
    model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.BatchNorm1d(8, momentum=None))
    return trained(model, watched)


@case
def instance_norm_with_running_statistics(watched: Any) -> Any:
    return trained(nn.InstanceNorm1d(4, affine=True, track_running_stats=True), watched, x=X.expand(3, 4, 6))


@case
def dropout_with_the_users_seed(watched: Any) -> Any:
    return trained(nn.Sequential(nn.Linear(6, 64), nn.Dropout(0.5), nn.RReLU(), nn.Linear(64, 2)), watched)


class _Draws(nn.Module):
    """Draws from Python's generator, from numpy's, and from one of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.own = nn.Linear(6, 6), torch.Generator().manual_seed(3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        import numpy as np

        noise = torch.rand(6, generator=self.own) + random.random() + float(np.random.rand())
        return self.layer(x) * noise


@case
def generators_of_python_numpy_and_its_own(watched: Any) -> Any:
    return trained(_Draws(), watched)


@case
def a_scripted_child(watched: Any) -> Any:
    child = torch.jit.script(nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6)))
    return trained(nn.Sequential(nn.Linear(6, 6), child, nn.ReLU()), watched)


@case
def a_scripted_and_a_traced_whole(watched: Any) -> Any:
    scripted = torch.jit.script(nn.Sequential(nn.Linear(6, 6), nn.ReLU()))
    return trained(scripted, watched), trained(torch.jit.trace(nn.Linear(6, 2), X), watched)


class _Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x).relu() + x


def counting_backend(graphs: list[int]) -> Any:
    """A backend that runs graphs as they are and counts them."""

    def backend(graph: Any, inputs: Any) -> Any:
        graphs.append(1)
        return graph.forward

    return backend


@case
def a_compiled_child_and_a_compiled_whole(watched: Any) -> Any:
    """Also compiled in place, and called from a compiled function: no graph more than without us."""
    graphs: list[int] = []
    backend = counting_backend(graphs)
    seen = []
    for make in (
        lambda: nn.Sequential(nn.Linear(6, 6), torch.compile(_Block(), backend=backend)),
        lambda: torch.compile(nn.Sequential(_Block(), _Block()), backend=backend),
        lambda: compiled_in_place(nn.Sequential(_Block(), nn.Linear(6, 6)), backend),
    ):
        seen.append(trained(make(), watched))
    whole = _Block()
    outer = torch.compile(lambda x: whole(x) * 2, backend=backend, fullgraph=True)
    before = outer(X)
    with watched(whole):
        whole(X)
        seen.append([before, outer(X), outer(X)])
    broken = _Block()

    def in_pieces(x: torch.Tensor) -> torch.Tensor:
        torch._dynamo.graph_break()
        return broken(x) + 1

    with watched(broken):
        pieces = torch.compile(in_pieces, backend=backend)
        seen.append([pieces(X), pieces(X)])
        broken(X)
    torch.compiler.reset()
    return seen, len(graphs)


def compiled_in_place(model: nn.Module, backend: Any) -> nn.Module:
    """A model and its first layer, compiled by themselves."""
    model[0].compile(backend=backend)
    model.compile(backend=backend)
    return model


@case
def fsdp_on_one_rank(watched: Any) -> Any:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard

    store = torch.distributed.HashStore()
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        seen = []
        cpu = torch.device("cpu")
        wrapped = FullyShardedDataParallel(
            nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6)), device_id=cpu, use_orig_params=True
        )
        seen.append(trained(wrapped, watched))
        sharded = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 2))
        fully_shard(sharded, mesh=init_device_mesh("cpu", (1,)))
        with watched(sharded):
            loss = sharded(X).sum()
            loss.backward()
            seen.append([loss.detach(), [p.grad.full_tensor() for p in sharded.parameters()]])
        parallel = nn.parallel.DistributedDataParallel(nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6)))
        seen.append(trained(parallel, watched))
        return seen
    finally:
        torch.distributed.destroy_process_group()


class _Sparse(nn.Module):
    def __init__(self, layout: str) -> None:
        super().__init__()
        dense = torch.eye(6) * 2
        self.weight = nn.Parameter(dense.to_sparse_csr() if layout == "csr" else dense.to_sparse())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.sparse.mm(self.weight, x.T)


@case
def sparse_parameters_and_gradients(watched: Any) -> Any:
    seen = []
    for model in (_Sparse("coo"), _Sparse("csr")):
        with watched(model):
            out = model(X)
            out.sum().backward()
        seen.append([out.detach(), model.weight.grad.to_dense()])
    bag = nn.EmbeddingBag(10, 4, sparse=True)
    with watched(bag):
        out = bag(torch.tensor([[1, 2], [3, 1]]))
        out.sum().backward()
    return seen, out.detach(), bag.weight.grad.to_dense()


@case
def quantised_by_torch_and_by_torchao(watched: Any) -> Any:
    from torchao.quantization import Int8WeightOnlyConfig, quantize_

    model = nn.Sequential(nn.Linear(32, 32), nn.ReLU(), nn.LSTM(32, 8))
    dynamic = torch.ao.quantization.quantize_dynamic(copy.deepcopy(model), {nn.Linear, nn.LSTM})
    quantize_(model, Int8WeightOnlyConfig(version=2))
    x = torch.linspace(-1, 1, 64).reshape(1, 2, 32)
    seen = []
    for one in (dynamic, model):
        with watched(one), torch.no_grad():
            seen.append([one(x)[0] for _ in range(3)])
    return seen


@case
def parametrized_and_pruned(watched: Any) -> Any:
    class Symmetric(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.triu() + x.triu(1).T

    model = nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 6))
    parametrize.register_parametrization(model[0], "weight", Symmetric())
    parametrizations.orthogonal(model[1])
    l1_unstructured(model[2], "weight", amount=0.5)
    return trained(model, watched)


@case
def weight_norm_and_spectral_norm_old_and_new(watched: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = nn.Sequential(
            nn.utils.weight_norm(nn.Linear(6, 6)),
            parametrizations.weight_norm(nn.Linear(6, 6)),
            nn.utils.spectral_norm(nn.Linear(6, 6)),
            parametrizations.spectral_norm(nn.Linear(6, 6)),
        )
    return trained(model, watched)


@case
def hooks_of_others(watched: Any) -> Any:
    """Forward, backward, on everything, on tensors: each is called as often, with the same."""
    log: list[Any] = []
    model = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 2))
    model[0].register_forward_pre_hook(lambda m, args: (args[0] * 2,))
    model[0].register_forward_hook(lambda m, args, out: log.append(out.detach().clone()))
    model[2].register_full_backward_hook(lambda m, given, out: log.append(out[0].clone()))
    model[2].register_full_backward_pre_hook(lambda m, out: log.append(out[0].clone()))
    model.register_forward_hook(lambda m, args, kwargs, out: out + 1, with_kwargs=True)
    everywhere = nn.modules.module.register_module_forward_hook(lambda m, a, o: log.append(type(m).__name__))
    try:
        seen = trained(model, watched)
    finally:
        everywhere.remove()
    return seen, log


@case
def a_hook_registered_while_it_is_watched(watched: Any) -> Any:
    model, log = nn.Sequential(nn.Linear(6, 6), nn.ReLU()), []
    with watched(model):
        model(X)
        handle = model[0].register_forward_hook(lambda *_: log.append("called"))
        model(X)
        handle.remove()
        model(X)
    return log, len(model[0]._forward_hooks)


@case
def lora_by_peft(watched: Any) -> Any:
    import peft

    values = dict(TINY_LLAMA)
    base = AutoModelForCausalLM.from_config(AutoConfig.for_model(values.pop("model_type"), **values))
    config = peft.LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM", lora_dropout=0.1)
    model = peft.get_peft_model(base, config).train()
    ids = torch.arange(6)[None]
    with watched(model):
        loss = model(input_ids=ids, labels=ids).loss
        loss.backward()
        text = model.generate(input_ids=ids, max_new_tokens=3, do_sample=True, pad_token_id=0)
    return loss.detach(), [p.grad for p in model.parameters()], text


@case
def double_backward(watched: Any) -> Any:
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 1))
    x = X.clone().requires_grad_()
    with watched(model):
        (slope,) = torch.autograd.grad(model(x).sum(), x, create_graph=True)
        slope.square().sum().backward()
    return [p.grad for p in model.parameters()], x.grad


@case
def gradient_checkpointing(watched: Any) -> Any:
    class Checkpointed(nn.Module):
        def __init__(self, reentrant: bool) -> None:
            super().__init__()
            self.first, self.second, self.reentrant = (
                _Block(),
                nn.Sequential(_Block(), nn.Dropout()),
                reentrant,
            )

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = checkpoint(self.first, x, use_reentrant=self.reentrant)
            return checkpoint(self.second, x, use_reentrant=self.reentrant)

    x = X.clone().requires_grad_()
    seen = [trained(Checkpointed(reentrant), watched, x=x) for reentrant in (True, False)]
    whole = _Block()
    with watched(whole):
        checkpoint(whole, x, use_reentrant=False).sum().backward()
    return seen, [p.grad for p in whole.parameters()]


@case
def autocast(watched: Any) -> Any:
    model = nn.Sequential(nn.Linear(6, 8), nn.LayerNorm(8), nn.Linear(8, 2))
    with watched(model):
        for _ in range(2):
            with torch.autocast("cpu", dtype=torch.bfloat16):
                out = model(X)
                again = model(X)
            (out + again).float().sum().backward()
    return out.detach(), [p.grad for p in model.parameters()]


@case
def data_parallel_on_the_cpu(watched: Any) -> Any:
    return trained(nn.DataParallel(nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6))), watched)


@case
def transforms_of_torch_func(watched: Any) -> Any:
    model = nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 1))
    parameters = {name: p.detach() for name, p in model.named_parameters()}

    def loss(given: Any, x: torch.Tensor) -> torch.Tensor:
        return functional_call(model, given, (x[None],)).sum()

    with watched(model):
        each = vmap(grad(loss), in_dims=(None, 0))(parameters, X)
        whole = torch.func.jacrev(loss)(parameters, X[0])
        plain = functional_call(model, parameters, (X,))
        mapped = vmap(model)(X)
    return each, whole, plain, mapped.detach()


class _InPlace(nn.Module):
    """Writes to its input, to its buffers, and to a parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 6)
        self.scale = nn.Parameter(torch.ones(6), requires_grad=False)
        self.average: torch.Tensor
        self.register_buffer("average", torch.zeros(6))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            self.scale.mul_(1.5)
            self.average.lerp_(x.mean(0), 0.5)
        y = self.layer(x * 1).relu_()
        x.add_(1)
        return y * self.scale.clone() + self.average.clone()


@case
def writes_in_place_to_inputs_buffers_and_parameters(watched: Any) -> Any:
    model, x = _InPlace(), X.clone()
    with watched(model):
        for _ in range(3):
            model(x).sum().backward()
    embedding = nn.Embedding(5, 4, max_norm=0.5)
    return x, model.layer.weight.grad, trained(embedding, watched, x=torch.tensor([[0, 1], [2, 3]]))


class _Loops(nn.Module):
    """One layer at two places, a list of modules called in a loop, and weights tied."""

    def __init__(self) -> None:
        super().__init__()
        shared = nn.Linear(6, 6)
        self.layers = nn.ModuleList([shared, nn.ReLU(), shared])
        self.named = nn.ModuleDict({"a": nn.Linear(6, 6), "b": shared})
        self.head = nn.Linear(6, 6)
        self.head.weight = shared.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for _ in range(3):
            for layer in self.layers:
                x = layer(x)
        return self.head(self.named["a"](x))


@case
def shared_modules_called_in_loops(watched: Any) -> Any:
    return trained(_Loops(), watched)


@case
def inference_tensors(watched: Any) -> Any:
    model = nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6)).eval()
    with torch.inference_mode():
        inside = nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6))
        with watched(inside):
            seen = [inside(X) for _ in range(3)]
    with watched(model), torch.inference_mode():
        seen.append(model(X.clone()))
    model(X).sum().backward()
    return seen, [p.grad for p in model.parameters()]


@case
def recurrent_layers(watched: Any) -> Any:
    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm, self.gru = nn.LSTM(6, 5, 2, dropout=0.1, batch_first=True), nn.GRUCell(5, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            out, _ = self.lstm(x[None])
            return self.gru(out[0])

    return trained(Recurrent(), watched)


class _Lazy(nn.Module):
    """Makes a layer, a buffer and a cache at its first call."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.norm = nn.LazyLinear(5), nn.LazyBatchNorm1d()
        self.cache: dict[int, torch.Tensor] = {}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not hasattr(self, "mask"):
            self.register_buffer("mask", torch.ones(5))
            self.late = nn.Linear(5, 5)
        scale = self.cache.setdefault(len(x), torch.full((5,), 2.0))
        return self.late(self.norm(self.layer(x)) * self.mask) * scale


@case
def lazy_layers_and_buffers(watched: Any) -> Any:
    model = _Lazy()
    with watched(model):
        for _ in range(3):
            model(X).sum().backward()
    return [p.grad for p in model.parameters()], dict(model.named_buffers()), model.cache


@case
def copied_pickled_and_saved_inside(watched: Any) -> Any:
    model = nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6))
    with watched(model):
        model(X)
        file = io.BytesIO()
        torch.save(model, file)
        others = [copy.deepcopy(model), copy.copy(model), pickle.loads(pickle.dumps(model))]
        others.append(torch.load(io.BytesIO(file.getvalue()), weights_only=False))
        others.append(torch.fx.symbolic_trace(model))
        outputs = [other(X) for other in others]
        exported = torch.export.export(model.eval(), (X,)).module()(X)
        model.train()(X)
    assert all("_compiled_call_impl" not in vars(part) for other in others for part in other.modules())
    return outputs, exported, sorted(vars(others[0])), len(file.getvalue())


@case
def errors_in_the_users_forward(watched: Any) -> Any:
    model, caught = nn.Sequential(nn.BatchNorm1d(6), nn.Linear(6, 6)), []
    with watched(model):
        for wrong in (torch.zeros(4, 5), None, X):
            try:
                model(wrong)
            except Exception as error:
                caught.append((type(error), str(error)))
    return caught


@dataclass
class _Answer:
    values: torch.Tensor
    parts: list[torch.Tensor] = field(default_factory=list)


class _Pair(NamedTuple):
    first: torch.Tensor
    second: dict[str, torch.Tensor]


class _Gives(nn.Module):
    """Answers in every way there is, and is asked in some."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 6)

    def forward(self, x: Any, how: str, **more: Any) -> Any:
        y = self.layer(x["x"] if isinstance(x, dict) else x)
        if how == "generator":
            return (part * 2 for part in y)
        if how == "dataclass":
            return _Answer(y, [y + 1])
        return {"dict": {"y": y}, "pair": _Pair(y, {"z": y}), "none": None, "text": "no tensor"}[how]


@case
def answers_of_every_kind(watched: Any) -> Any:
    model, seen = _Gives(), []
    with watched(model):
        for how in ("dict", "pair", "dataclass", "none", "text"):
            seen.append(model(X, how, note=object()))
        seen.append(list(model({"x": X}, "generator")))
        seen.append(list(model(X, "generator", rows=iter([1, 2]))))
    return [[vars(one) if isinstance(one, _Answer) else one] for one in seen]


class _Counts(nn.Module):
    """Counts its calls in itself and in an object of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.calls, self.book = nn.Linear(6, 6), 0, _Book()

    def forward(self, rows: Iterator[torch.Tensor]) -> torch.Tensor:
        self.calls += 1
        self.book.pages.append(self.calls)
        return self.layer(next(rows))


class _Book:
    def __init__(self) -> None:
        self.pages: list[int] = []


@case
def inputs_that_can_be_gone_through_once(watched: Any) -> Any:
    model, rows = _Counts(), iter([X, X + 1, X + 2, X + 3])
    with watched(model):
        seen = [model(rows) for _ in range(3)]
    return seen, model.calls, model.book.pages, list(rows)


@case
def convolutions_and_torchs_fused_encoder(watched: Any) -> Any:
    picture = torch.linspace(-1, 1, 2 * 3 * 8 * 8).reshape(2, 3, 8, 8)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1))
    encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 2).eval()
    words = torch.linspace(-1, 1, 48).reshape(2, 3, 8)
    with watched(encoder), torch.no_grad():
        fused = encoder(words)
    return trained(net, watched, x=picture), fused


@case
def generate_with_a_cache_and_sampling(watched: Any) -> Any:
    values = dict(TINY_LLAMA)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(values.pop("model_type"), **values)).eval()
    with watched(model):
        out = model.generate(
            torch.ones(2, 4, dtype=torch.long), max_new_tokens=6, do_sample=True, num_beams=2
        )
    return out


def test_at_least_thirty_unlike_models_are_tried() -> None:
    """The contract says thirty."""
    assert len(CASES) >= 30


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One data folder for all."""
    return tmp_path_factory.mktemp("harms-nothing")


@pytest.mark.parametrize("name", CASES)
def test_nothing_differs_to_the_digit(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The case runs without us and with us, from the same seed: all that it gives and keeps is equal, and the
    watching neither failed nor raised."""
    from roofleet.api import watched as api

    told: list[Any] = []
    monkeypatch.setattr(api, "store", lambda watch, *_, **__: told.append(rows_of(watch)))
    models: list[list[nn.Module]] = [[], []]
    plain = seeded(CASES[name], lambda model: models[0].append(model) or nullcontext())
    ours = seeded(
        CASES[name],
        lambda model: models[1].append(model) or roofleet.profile(model, data=str(folder), roofs=False),
    )
    assert equal(plain, ours)
    for before, after in zip(*models, strict=True):
        assert equal(state_of(before), state_of(after))
    assert len(told) == len(models[1])
    for tables in told:
        assert tables["runs"][0]["status"] == "done"
        assert "the watching failed" not in (tables["runs"][0]["variant_notes"] or "")
        assert tables["steps"]


def rows_of(watch: Any) -> dict[str, Any]:
    """What a run would store, by table; a fault of ours in making it is raised here."""
    found: dict[str, Any] = {}

    class Sink:
        def write(self, table: str, rows: Any) -> None:
            found.setdefault(table, []).extend(rows.to_pylist())

    watch.write(Sink(), "done", None, lambda op: None)
    return found


def seeded(made: Case, watched: Any) -> Any:
    """What a case gives from a seed, and the random numbers that come after it."""
    import numpy as np

    torch.manual_seed(11)
    random.seed(11)
    np.random.seed(11)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        given = made(watched)
    return given, torch.rand(3), random.random(), float(np.random.rand())


def state_of(model: nn.Module) -> Any:
    """All that a model holds: numbers, versions, modes, hooks and the names of its attributes."""
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_forward_hooks_with_kwargs")
    return [
        (
            path,
            type(part).__name__,
            part.training,
            sorted(vars(part)),
            [len(getattr(part, name)) for name in hooks],
            [(n, version_of(p), p.detach(), p.grad) for n, p in part.named_parameters(recurse=False)],
            [(n, version_of(b), b) for n, b in part.named_buffers(recurse=False)],
        )
        for path, part in model.named_modules()
    ]


def version_of(tensor: torch.Tensor) -> int | None:
    """How often it was written to, as autograd counts."""
    return None if tensor.is_inference() else tensor._version


def equal(a: Any, b: Any) -> bool:
    """Whether two trees are the same, tensors to the last digit and in dtype, gradients needed or not."""
    if isinstance(a, torch.Tensor):
        a, b = (getattr(t, "to_local", lambda t=t: t)() for t in (a, b))
        if a.layout != torch.strided:
            a, b = a.to_dense(), b.to_dense()
        if hasattr(a, "dequantize") and type(a) not in (torch.Tensor, nn.Parameter):
            a, b = a.dequantize(), b.dequantize()
        return (a.dtype, a.requires_grad) == (b.dtype, b.requires_grad) and torch.equal(a, b)
    if isinstance(a, dict):
        return list(a) == list(b) and all(equal(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(equal, a, b))
    return bool(a == b)
