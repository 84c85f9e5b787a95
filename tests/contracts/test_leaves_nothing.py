"""Profiling is repeatable and leaves nothing behind: rounds agree, and torch and the model are as before."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from tests.families import FAMILIES
from tests.support import request
from torch import nn
from torch.overrides import _get_current_function_mode_stack
from torch.utils._python_dispatch import _get_current_dispatch_mode_stack

from roofleet_agent.engines.base import Session
from roofleet_agent.measuring.clocks import HostClock
from roofleet_agent.measuring.layer_timer import LayerTimer
from roofleet_agent.measuring.step_memory import memory_of
from roofleet_agent.passes.tracing import trace_phases
from roofleet_agent.registry import find_engine
from roofleet_agent.tracing import trace
from roofleet_agent.workload import Workload, phases_of

WORKLOAD = Workload(batch_size=2, prompt_tokens=8, new_tokens=3)
LONG = Workload(batch_size=2, prompt_tokens=80, new_tokens=3)
PLACES = (
    "torch",
    "torch.nn",
    "torch.nn.functional",
    "torch.nn.modules.module",
    "torch.nn.attention.flex_attention",
    "torch.utils._python_dispatch",
    "torch.overrides",
    "torch._C",
    "torch._C._nn",
    "torch.ops.aten",
    "transformers.cache_utils",
    "transformers.modeling_utils",
    "transformers.integrations.moe",
    "transformers.integrations.sdpa_attention",
    "transformers.models.mamba.modeling_mamba",
)
"""Modules whose attributes profilers replace, or well might."""


def attributes(thing: Any) -> dict[str, int]:
    """Which object each attribute is."""
    return {name: id(value) for name, value in vars(thing).items() if name != "__warningregistry__"}


def state_of_torch() -> dict[str, Any]:
    """The attributes of modules and classes, and the modes and switches that are on."""
    places = {place: attributes(_find(place)) for place in PLACES}
    classes = {c.__name__: attributes(c) for c in (torch.Tensor, nn.Module, nn.Linear, nn.Embedding)}
    return {
        **places,
        **classes,
        "modes": len(_get_current_dispatch_mode_stack()) + len(_get_current_function_mode_stack()),
        "inference": torch.is_inference_mode_enabled(),
        "gradients": torch.is_grad_enabled(),
        "default dtype": torch.get_default_dtype(),
        "grouped experts on meta": _grouped_on_meta(),
    }


def _find(place: str) -> Any:
    try:
        return importlib.import_module(place)
    except ImportError:
        return torch.ops.aten


def _grouped_on_meta() -> bool:
    """Whether `meta` can do grouped products of fp32, as it can while a session lives there."""
    a, b = torch.empty(8, 16, device="meta"), torch.empty(4, 16, 32, device="meta")
    try:
        torch._grouped_mm(a, b, offs=torch.empty(4, dtype=torch.int32, device="meta"))
    except RuntimeError:
        return False
    return True


def state_of_model(model: nn.Module) -> list[Any]:
    """Every module with the objects it holds, its hooks and what its class is."""
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_forward_hooks_with_kwargs")
    return [
        (
            path,
            type(module),
            attributes(module),
            [list(getattr(module, name)) for name in hooks],
            [(name, id(t), t._version) for name, t in module.named_parameters(recurse=False)],
            [(name, id(t)) for name, t in module.named_buffers(recurse=False)],
        )
        for path, module in model.named_modules()
    ]


def rounds(session: Session) -> dict[str, Any]:
    """What a round of trace, timed and memory pass counts."""
    found: dict[str, Any] = {}
    phases = phases_of(session.task, session.new_tokens)
    for phase in phases:
        call = session.single(phase).call
        found[f"ops of {phase}"] = trace(
            session.module, call, cache=session.cache, experts_per_token=session.experts_per_token
        )
    timer = LayerTimer(session.module, HostClock())
    paths: list[list[str]] = []
    for step in session.iteration():
        with timer.timing():
            timer.begin()
            step.call()
        paths.append([interval.path for interval in timer.intervals()])
    found["layers timed"] = paths
    memory = memory_of(session, session.iteration())
    found["memory"] = (memory.phases, memory.layers)
    return found


@contextmanager
def session_of(name: str) -> Iterator[Session]:
    """A tiny model on the CPU."""
    wanted = request(FAMILIES[name].config)
    session = find_engine(wanted).load(wanted, torch.device("cpu"), "fp32", WORKLOAD)
    try:
        yield session
    finally:
        session.close()


@pytest.mark.parametrize("name", ["gpt2", "mixtral", "mamba", "t5", "bert"])
def test_four_rounds_count_the_same_and_leave_nothing(name: str) -> None:
    """Trace, timed and memory pass, four times over: the same numbers each time, and afterwards every
    attribute of torch, of transformers and of the module tree is the object it was, also those of a model
    that failed under them."""
    with session_of(name) as session:
        first = rounds(session)  # what is imported on the way is there now
        torch_before, model_before = state_of_torch(), state_of_model(session.module)
        for _ in range(3):
            assert rounds(session) == first
        with pytest.raises(ZeroDivisionError):
            trace(session.module, failing(session.module))
        assert changed(torch_before, state_of_torch()) == {}
        assert state_of_model(session.module) == model_before


def failing(model: nn.Module) -> Callable[[], None]:
    """A call that breaks inside the model's first leaf."""
    leaf = next(m for m in model.modules() if not any(m.children()))

    def call() -> None:
        with torch.no_grad():
            hook = leaf.register_forward_pre_hook(lambda *_: 1 // 0)
            try:
                leaf(torch.zeros(1, 1, dtype=torch.long))
            finally:
                hook.remove()

    return call


def changed(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    """What differs, by place and attribute."""
    different: dict[str, Any] = {}
    for place, was in before.items():
        now = after[place]
        if isinstance(was, dict):
            keys = set(was) ^ set(now) | {k for k in set(was) & set(now) if was[k] != now[k]}
            different |= {place: sorted(keys)} if keys else {}
        elif was != now:
            different[place] = (was, now)
    return different


def test_a_change_would_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """The comparison finds what profilers do that replace functions of torch or put one over a module's."""
    before = state_of_torch()
    monkeypatch.setattr(torch.nn.functional, "linear", lambda *_: None)
    monkeypatch.setattr(torch.Tensor, "matmul", lambda *_: None)
    assert changed(before, state_of_torch()) == {"torch.nn.functional": ["linear"], "Tensor": ["matmul"]}
    model = nn.Sequential(nn.Linear(2, 2))
    tree = state_of_model(model)
    model[0].forward = lambda x: x  # type: ignore[method-assign]
    assert state_of_model(model) != tree


@pytest.mark.parametrize("name", ["mixtral", "mamba"])
def test_tracing_on_meta_leaves_torch_as_it_was(name: str) -> None:
    """What `meta` learned for a session it forgets with it."""
    wanted = request(FAMILIES[name].config)
    engine = find_engine(wanted)
    trace_phases(engine, wanted, "fp32", WORKLOAD).session.close()  # what is imported on the way is there now
    before = state_of_torch()
    traced = trace_phases(engine, wanted, "fp32", LONG if name == "mamba" else WORKLOAD)
    assert state_of_torch()["grouped experts on meta"] is True
    traced.session.close()
    assert changed(before, state_of_torch()) == {}
