"""Gives a model state of its own while a call is played again, and puts the user's back untouched.

Autograd remembers the version of a tensor, which every write raises, also one that restores it: so nothing of
the user's is written to. The tables that name buffers and attributes are exchanged for tables of copies.
"""

from __future__ import annotations

import random
import sys
from collections import OrderedDict, defaultdict, deque
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from roofleet_agent.watching.copying import Unplayable, copied, own_tensor, tensors_of
from roofleet_agent.watching.quietly import is_of_a_library

_TORCHS_OWN = frozenset(nn.Module().__dict__) | {"_compiled_call_impl"}
_TABLES = ("_parameters", "_buffers", "_modules")
_CONTAINERS = (list, dict, set, tuple, deque, OrderedDict, defaultdict, torch.Tensor, torch.Generator)


@contextmanager
def apart(
    model: nn.Module, training: Sequence[bool], *, parameters: bool = False
) -> Iterator[list[torch.Tensor]]:
    """The model with copies of its buffers and attributes, and of its `parameters` if so; gives the copies.

    `training` is the mode of each module, in the order of `modules`. When it ends, the model has what it had
    before, the same objects with the same versions, and random generators are where they were.
    """
    modules = [module for module in model.modules() if not isinstance(module, torch.jit.ScriptModule)]
    before = [(module, dict(vars(module))) for module in modules]
    memo: dict[int, Any] = {}
    with ExitStack() as stack:
        stack.enter_context(random_numbers(model))
        try:
            for module, mode in zip(model.modules(), training, strict=False):
                if not isinstance(module, torch.jit.ScriptModule):
                    vars(module)["training"] = mode
            for module in modules:
                _exchange_tables(module, memo, parameters=parameters)
            for module in modules:
                _exchange_attributes(module, memo)
            yield [value for value in memo.values() if isinstance(value, torch.Tensor)]
        finally:
            for module, attributes in before:
                held = vars(module)
                for name in held.keys() - attributes.keys():
                    del held[name]
                held.update(attributes)  # never empty: others may be looking


def _exchange_tables(module: nn.Module, memo: dict[int, Any], *, parameters: bool) -> None:
    held = vars(module)
    for name in _TABLES:
        held[name] = type(held[name])(held[name])
    for name, buffer in held["_buffers"].items():
        if buffer is not None and not is_lazy(buffer):
            held["_buffers"][name] = _one(buffer, memo)
    if parameters:
        for name, parameter in held["_parameters"].items():
            if parameter is not None and not is_lazy(parameter):
                held["_parameters"][name] = _one(parameter, memo)


def _exchange_attributes(module: nn.Module, memo: dict[int, Any]) -> None:
    held = vars(module)
    for name in held.keys() - _TORCHS_OWN:
        value = held[name]
        if not isinstance(value, nn.Module) and _is_state(value):
            try:
                held[name] = copied(value, _not_of_parameters(memo), memo)
            except Unplayable:  # it stays the user's; guarding.py sees to it that it is not written to
                held[name] = value


def _one(tensor: torch.Tensor, memo: dict[int, Any]) -> Any:
    if id(tensor) not in memo:
        own = own_tensor(tensor)
        is_parameter = isinstance(tensor, nn.Parameter)
        memo[id(tensor)] = nn.Parameter(own, tensor.requires_grad) if is_parameter else own
    return memo[id(tensor)]


def _not_of_parameters(memo: dict[int, Any]) -> Any:
    """A parameter that is also an attribute, as in a list of weights, is the one of the table."""
    return lambda tensor: tensor if isinstance(tensor, nn.Parameter) else own_tensor(tensor)


def _is_state(value: Any) -> bool:
    """Whether an attribute is something a call may change: a container or a tensor, an object of the user's,
    or of a library if tensors lie in it, such as a cache."""
    if type(value) in _CONTAINERS or isinstance(value, torch.Tensor):
        return True
    if callable(value) or not hasattr(value, "__dict__"):
        return False
    try:
        return not is_of_a_library(type(value)) or any(True for _ in tensors_of(value))
    except Unplayable:
        return False


@contextmanager
def random_numbers(model: nn.Module) -> Iterator[None]:
    """Puts the generators of torch, also those of the model's devices, of Python and of numpy back."""
    devices = {p.device for p in model.parameters() if p.device.type not in ("cpu", "meta")}
    state, numpy = random.getstate(), sys.modules.get("numpy")
    numpys = None if numpy is None else numpy.random.get_state()
    with ExitStack() as stack:
        for device in devices:
            stack.enter_context(torch.random.fork_rng([device], device_type=device.type))
        stack.enter_context(torch.random.fork_rng([]))
        try:
            yield
        finally:
            random.setstate(state)
            if numpy is not None:
                numpy.random.set_state(numpys)
