"""Calls modules without the hooks that others put on them, which would count or keep what we play."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from torch import nn
from torch.nn.modules import module as torchs

from roofleet_agent.calling import Call, around

LIBRARIES = frozenset({"torch", "torchao", "torchvision", "transformers", "peft", "accelerate", "diffusers"})
"""Whose hooks are part of how a layer works, such as torch's weight norm."""


def is_of_a_library(thing: Any) -> bool:
    """Whether a function, a method, an object or a class is made by one of the libraries."""
    while isinstance(thing, partial):
        thing = thing.func
    owner = getattr(thing, "__self__", thing)
    places = {getattr(owner, "__module__", None) or "", getattr(thing, "__module__", None) or ""}
    return any(place.partition(".")[0] in LIBRARIES for place in places)


@contextmanager
def quietly(model: nn.Module) -> Iterator[list[str]]:
    """Calls of layers leave the hooks of others out; gives the paths of the layers that have some."""
    everywhere = [*torchs._global_forward_pre_hooks.values(), *torchs._global_forward_hooks.values()]
    foreign = any(not is_of_a_library(hook) for hook in everywhere)
    found = [(path, part) for path, part in model.named_modules() if foreign or _has_foreign(part)]
    with around((part, _without_foreign(part)) for _, part in found):
        yield [path for path, _ in found]


def _has_foreign(module: nn.Module) -> bool:
    hooks = (*module._forward_pre_hooks.values(), *module._forward_hooks.values())
    return any(not is_of_a_library(hook) for hook in hooks)


def _without_foreign(module: nn.Module) -> Callable[[Call], Call]:
    before = [(hook, number in module._forward_pre_hooks_with_kwargs)
              for number, hook in module._forward_pre_hooks.items() if is_of_a_library(hook)]  # fmt: skip
    after = [(hook, number in module._forward_hooks_with_kwargs)
             for number, hook in module._forward_hooks.items() if is_of_a_library(hook)]  # fmt: skip

    def call(*args: Any, **kwargs: Any) -> Any:
        for hook, named in before:
            given = hook(module, args, kwargs) if named else hook(module, args)
            if given is not None and named:
                args, kwargs = given
            elif given is not None:
                args = given if isinstance(given, tuple) else (given,)
        output = module.forward(*args, **kwargs)
        for hook, named in after:
            given = hook(module, args, kwargs, output) if named else hook(module, args, output)
            output = output if given is None else given
        return output

    return lambda _: call
