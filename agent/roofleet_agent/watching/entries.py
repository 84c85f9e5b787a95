"""Where the calls of a model come in, and where they cannot be followed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DataParallel

from roofleet_agent.calling import is_compiled


def entries_of(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Paths and modules that may be called as the model: itself, and those it only wraps.

    An adapter's `generate` calls the model inside of it and not the adapter. A module wraps another if that
    has all its parameters.
    """
    path, module = "", model
    while True:
        yield path, module
        all_of_it = {id(parameter) for parameter in module.parameters()}
        inside = [
            (name, child)
            for name, child in module.named_children()
            if all_of_it and all_of_it == {id(parameter) for parameter in child.parameters()}
        ]
        if len(inside) != 1:
            return
        name, module = inside[0]
        path = f"{path}.{name}" if path else name


def opaque_layers(model: nn.Module) -> frozenset[str]:
    """Paths of layers inside which nothing can be timed: compiled and scripted ones, and those that
    are copied at each call. Of some inside one another the outermost."""
    found: list[str] = []
    for path, module in model.named_modules():  # callers come before what they call
        if not any(around == "" or path.startswith(f"{around}.") for around in found) and _is_opaque(module):
            found.append(path)
    return frozenset(found)


def _is_opaque(module: nn.Module) -> bool:
    if isinstance(module, torch.jit.ScriptModule) or "_orig_mod" in module._modules:
        return True
    if isinstance(module, DataParallel) and module.device_ids:
        return True
    forward: Any = vars(module).get("forward")
    return is_compiled(module) or hasattr(forward, "_torchdynamo_orig_callable")
