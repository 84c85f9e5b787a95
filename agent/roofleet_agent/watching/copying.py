"""Copies of what a call was given, so that it can be played again when the user's own is long over."""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any

import torch
from torch import nn
from torch._subclasses import FakeTensor

MOST_PARTS = 20_000
"""More parts in one argument are a data set or a program, and no input."""


class Unplayable(Exception):
    """A call cannot be played again; the message says why."""


Copy = Callable[[torch.Tensor], torch.Tensor]


def copied(tree: Any, copy_of: Copy, memo: dict[int, Any]) -> Any:
    """The same with tensors of its own, made by `copy_of`; modules, functions and classes are shared.

    `memo` holds what was copied before, by identity, and takes what is copied now: what was one thing at two
    places stays one. Unplayable for what can be gone through only once, or cannot be copied.
    """
    room = [MOST_PARTS]
    for part in _parts(tree, set(), room):
        if id(part) not in memo:
            memo[id(part)] = _alike(part, copy_of)
    try:
        return copy.deepcopy(tree, memo)
    except Exception as error:  # an object of the user's, with reasons of its own
        raise Unplayable(f"an input of it cannot be copied ({type(error).__name__})") from error


def own_tensor(tensor: torch.Tensor, device: torch.device | None = None) -> torch.Tensor:
    """A tensor of the same numbers and layout in memory, on another device if one is given.

    Unplayable for one that has no numbers, as inside the transforms of torch.func.
    """
    if isinstance(tensor, FakeTensor) or torch._C._functorch.is_functorch_wrapped_tensor(tensor):
        raise Unplayable("it was called inside a transform of torch, where inputs have no numbers")
    plain = tensor.detach()
    if plain.layout == torch.strided and type(plain) is torch.Tensor and 0 in plain.stride():
        small = plain[tuple(slice(0, 1) if step == 0 else slice(None) for step in plain.stride())]
        return _cloned(small, device).expand(plain.shape)
    return _cloned(plain, device)


def _cloned(tensor: torch.Tensor, device: torch.device | None) -> torch.Tensor:
    return tensor.clone() if device is None or device == tensor.device else tensor.to(device)


def tensors_of(tree: Any) -> Iterator[torch.Tensor]:
    """Every tensor in nested containers and objects; modules are not looked into."""
    for part in _parts(tree, set(), [MOST_PARTS]):
        if isinstance(part, torch.Tensor):
            yield part


_SHARED = (nn.Module, FunctionType, BuiltinFunctionType, MethodType, ModuleType, type, torch.dtype,
           torch.device)  # fmt: skip
_PLAIN = (str, bytes, int, float, complex, bool, type(None), range, slice)


def _alike(part: Any, copy_of: Copy) -> Any:
    if isinstance(part, torch.Tensor):
        return copy_of(part)
    return part.clone_state() if isinstance(part, torch.Generator) else part


def _parts(value: Any, seen: set[int], room: list[int]) -> Iterator[Any]:
    """What in a tree is not copied the usual way: tensors, generators of random numbers, modules and code."""
    if isinstance(value, _PLAIN) or id(value) in seen:
        return
    seen.add(id(value))
    room[0] -= 1
    if room[0] < 0:
        raise Unplayable("an input of it is too large to be copied")
    if isinstance(value, (torch.Tensor, torch.Generator, *_SHARED)):
        yield value
        return
    if hasattr(value, "__next__"):
        raise Unplayable("an input of it can be gone through only once")
    inside: list[Any] = []
    if isinstance(value, Mapping):
        inside += [*value.keys(), *value.values()]
    elif isinstance(value, (list, tuple, set, frozenset, deque)):
        inside += value
    inside += getattr(value, "__dict__", {}).values()
    slots = (name for kind in type(value).__mro__ for name in getattr(kind, "__slots__", ()))
    inside += [getattr(value, name) for name in slots if hasattr(value, name)]
    for part in inside:
        yield from _parts(part, seen, room)
