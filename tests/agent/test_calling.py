"""What is put around a module's calls is seen by nobody else, and gone when it ends."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from roofleet_agent.calling import Call, around
from roofleet_agent.measuring.clocks import HostClock
from roofleet_agent.measuring.layer_timer import LayerTimer


def noting(seen: list[str], name: str) -> Callable[[Call], Call]:
    """Notes that a call begins and that it ends."""

    def make(call: Call) -> Call:
        def noted(*args: Any, **kwargs: Any) -> Any:
            seen.append(name)
            try:
                return call(*args, **kwargs)
            finally:
                seen.append(f"/{name}")

        return noted

    return make


def test_a_call_goes_through_what_is_around_it_and_through_the_modules_hooks() -> None:
    """The later is the outer, hooks lie inside, an error passes, and then the module is as it was."""
    model, seen = nn.Linear(2, 2), list[str]()
    model.register_forward_hook(lambda *_: seen.append("hook"))
    before = dict(vars(model))
    with around([(model, noting(seen, "inner")), (model, noting(seen, "outer"))]):
        model(torch.zeros(1, 2))
        with pytest.raises(RuntimeError):
            model(torch.zeros(1, 3))
    assert seen == ["outer", "inner", "hook", "/inner", "/outer", "outer", "inner", "/inner", "/outer"]
    assert vars(model) == before


def test_whoever_ends_first_leaves_nothing_behind() -> None:
    """Of two that overlap without lying inside one another, as in two threads, neither stays."""
    model, seen = nn.Linear(2, 2), list[str]()
    before = dict(vars(model))
    first, second = around([(model, noting(seen, "first"))]), around([(model, noting(seen, "second"))])
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    model(torch.zeros(1, 2))
    second.__exit__(None, None, None)
    assert seen == ["second", "/second"]
    assert vars(model) == before


def test_copies_and_pickles_of_a_module_know_nothing_of_it() -> None:
    """Also those of modules that copy their attributes by themselves, as torch.fx makes them."""
    for model in (nn.Sequential(nn.Linear(2, 2)), torch.fx.symbolic_trace(nn.Sequential(nn.Linear(2, 2)))):
        seen: list[str] = []
        with around((part, noting(seen, "part")) for part in model.modules()):
            copies = copy.deepcopy(model), pickle.loads(pickle.dumps(model))
        for copied in copies:
            assert torch.equal(copied(torch.ones(1, 2)), model(torch.ones(1, 2)))
        assert seen == []


class _Doubles(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * 2


def test_compiled_code_is_not_compiled_anew() -> None:
    """Timing layers of a model that has compiled parts costs no compilation, whoever compiled what."""
    torch.compiler.reset()
    graphs: list[int] = []

    def backend(graph: Any, inputs: Any) -> Any:
        graphs.append(1)
        return graph.forward

    model = nn.Sequential(_Doubles(), torch.compile(_Doubles(), backend=backend), _Doubles())
    model[2].compile(backend=backend)
    whole = torch.compile(lambda x: model[0](x) + 1, backend=backend)
    x = torch.ones(1, 2)
    for _ in range(2):
        model(x)
        whole(x)
    compiled = len(graphs)
    timer = LayerTimer(model, HostClock(), opaque=["1", "2"])
    for _ in range(3):
        with timer.timing():
            timer.begin()
            model(x)
            paths = [interval.path for interval in timer.intervals()]
            whole(x)
    assert paths == ["0", "1", "2", ""]
    assert len(graphs) == compiled > 0


def test_torchs_fused_encoder_stays_fused_while_it_is_timed() -> None:
    """Its inner layers are not called, with or without us: its time is one."""
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval()
    timer = LayerTimer(layer, HostClock())
    with timer.timing(), torch.inference_mode():
        timer.begin()
        layer(torch.zeros(1, 3, 8))
    assert [interval.path for interval in timer.intervals()] == [""]
