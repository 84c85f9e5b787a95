"""Plays a call of a model again on copies of its inputs, and puts everything back as it was."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn

from roofleet_agent.engines.transformers import held_by


class Player:
    """One call that can be made on copies of its inputs; what memory and trace passes need of a session."""

    def __init__(self, model: nn.Module, args: Any, kwargs: Any) -> None:
        self.module = model
        self._args, self._kwargs = copied(args), copied(kwargs)
        self.output: Any = None

    def call(self) -> None:
        """Makes the call once more."""
        self.output = self.module(*self._args, **self._kwargs)

    def cache(self) -> Iterable[torch.Tensor]:
        """The tensors of the key-value cache it is given, as it is now."""
        _, cache = phase_of(self._args, self._kwargs)
        for layer in layers_of_cache(cache):
            yield from held_by(layer)


@contextmanager
def as_it_was(model: nn.Module) -> Iterator[None]:
    """Puts attributes, buffers and random generators back when it ends."""
    attributes = [(module, dict(module.__dict__)) for module in model.modules()]
    tables: list[tuple[dict[str, Any], dict[str, Any]]] = [
        (table, dict(table))
        for module in model.modules()
        for table in (module._buffers, module._parameters, module._modules)
    ]
    buffers = [(buffer, buffer.detach().clone()) for buffer in model.buffers()]
    devices = {p.device for p in model.parameters() if p.device.type not in ("cpu", "meta")}
    with ExitStack() as stack:
        for device in devices:
            stack.enter_context(torch.random.fork_rng([device], device_type=device.type))
        stack.enter_context(torch.random.fork_rng([]))
        try:
            yield
        finally:
            for module, before in attributes:
                module.__dict__.clear()
                module.__dict__.update(before)
            for table, entries in tables:
                table.clear()
                table.update(entries)
            with torch.no_grad():
                for buffer, value in buffers:
                    if not buffer.is_inference():
                        buffer.copy_(value)


def copied(tree: Any) -> Any:
    """The same arguments with tensors and caches of their own; what cannot be copied is shared."""
    if isinstance(tree, torch.Tensor):
        return tree.detach().clone()
    if isinstance(tree, tuple) and not hasattr(tree, "_fields"):
        return tuple(copied(item) for item in tree)
    if isinstance(tree, list):
        return [copied(item) for item in tree]
    if type(tree) is dict:
        return {key: copied(value) for key, value in tree.items()}
    try:
        return copy.deepcopy(tree)
    except Exception:  # an object of the user's, with reasons of its own
        return tree


def phase_of(args: Any, kwargs: Any) -> tuple[str, Any]:
    """Which phase a call is, by the cache it is given, and that cache."""
    cache = kwargs.get("past_key_values", kwargs.get("cache_params"))
    if cache is None or not (hasattr(cache, "layers") or hasattr(cache, "self_attention_cache")):
        return "forward", None
    return ("decode" if cached_tokens(cache) else "prefill"), cache


def layers_of_cache(cache: Any) -> list[Any]:
    """The layers of a transformers cache, of both halves where a model has an encoder and a decoder."""
    halves = [getattr(cache, name, None) for name in ("self_attention_cache", "cross_attention_cache")]
    whole = [half for half in halves if half is not None] or [cache]
    return [layer for half in whole for layer in getattr(half, "layers", ())]


def cached_tokens(cache: Any) -> int:
    """Tokens in a cache; 0 without one."""
    ask = getattr(cache, "get_seq_length", None)
    return int(ask()) if callable(ask) else 0


def shape_of(args: Any, kwargs: Any) -> tuple[int, int]:
    """Batch and positions of a call, from the first tensor it is given; 1 where it has no such dimension."""
    named = [kwargs[name] for name in ("input_ids", "inputs_embeds") if kwargs.get(name) is not None]
    for value in (*named, *args, *kwargs.values()):
        if isinstance(value, torch.Tensor) and value.dim():
            return int(value.shape[0]), int(value.shape[1]) if value.dim() > 1 else 1
    return 1, 1
