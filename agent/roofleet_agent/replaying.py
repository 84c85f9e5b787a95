"""Plays a call of a model again on copies of its inputs, and puts everything back as it was."""

from __future__ import annotations

import copy
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterable, Iterator
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
    """Puts attributes, buffers and random generators back when it ends.

    Attributes that are lists, dicts, sets, deques or tensors are put back with what was in them; deeper, and
    outside of the model, nothing is.
    """
    attributes = [(module, dict(module.__dict__)) for module in model.modules()]
    tables: list[tuple[dict[str, Any], dict[str, Any]]] = [
        (table, dict(table))
        for module in model.modules()
        for table in (module._buffers, module._parameters, module._modules)
    ]
    buffers = [(buffer, buffer.detach().clone()) for buffer in model.buffers()]
    insides = [
        put_back
        for module in model.modules()
        for name, value in module.__dict__.items()
        if name not in _TORCHS_OWN and (put_back := _keeper(value)) is not None
    ]
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
            for put_back in insides:
                put_back()
            with torch.no_grad():
                for buffer, value in buffers:
                    if not buffer.is_inference():
                        buffer.copy_(value)


_TORCHS_OWN = frozenset(nn.Module().__dict__)


def _keeper(value: Any) -> Callable[[], None] | None:
    """What puts a container or a tensor back as it is now; None for anything else."""
    if isinstance(value, torch.Tensor):
        return _tensor_keeper(value)
    if type(value) in (list, deque):
        before, tensors = list(value), [_tensor_keeper(v) for v in value if isinstance(v, torch.Tensor)]

        def put_back() -> None:
            value.clear()
            value.extend(before)
            for keeper in tensors:
                keeper()

        return put_back
    if type(value) in (dict, OrderedDict, defaultdict, set):
        content = dict(value) if isinstance(value, dict) else set(value)
        inside = content.values() if isinstance(content, dict) else content
        keepers = [_tensor_keeper(v) for v in inside if isinstance(v, torch.Tensor)]

        def put_back_content() -> None:
            value.clear()
            value.update(content)
            for keeper in keepers:
                keeper()

        return put_back_content
    return None


def _tensor_keeper(tensor: torch.Tensor) -> Callable[[], None]:
    before = tensor.detach().clone()
    version = None if tensor.is_inference() else tensor._version

    def put_back() -> None:
        if version is None or tensor._version != version:
            with torch.inference_mode(tensor.is_inference()), torch.no_grad():
                tensor.copy_(before)

    return put_back


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
    if not callable(ask):
        return 0
    try:
        return int(ask())
    except ValueError:  # the states of a scan, which have no length: there or not
        return int(any(True for layer in layers_of_cache(cache) for _ in held_by(layer)))


def shape_of(args: Any, kwargs: Any) -> tuple[int, int]:
    """Batch and positions of a call, from the first tensor it is given; 1 where it has no such dimension."""
    named = [kwargs[name] for name in ("input_ids", "inputs_embeds") if kwargs.get(name) is not None]
    for value in (*named, *args, *kwargs.values()):
        if isinstance(value, torch.Tensor) and value.dim():
            # ids are [batch, tokens]; of numbers, [batch, features] has one position
            positions = value.dim() > (2 if value.is_floating_point() else 1)
            return int(value.shape[0]), int(value.shape[1]) if positions else 1
    return 1, 1
