"""What two blocks, and what they are called with, must have in common to do the same.

A likeness is a value: equal for things that cannot be told apart but by where they stand. Tensors are alike
in class, dtype and layout, and in which of them share a storage; an index of the block itself is the same
index in each.
"""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from enum import Enum
from functools import partial
from typing import Any

import torch
from torch import nn

from roofleet_agent.storage import plain_tensors

_KNOWN_CODE = frozenset({"torch", "transformers", "roofleet_agent"})
"""Where classes of layers come from whose forward depends on no more than what is compared here."""

_STANDARD = frozenset(vars(nn.Module())) - {"training"}
_PLAIN = (bool, int, float, complex, str, bytes, type(None), torch.dtype, torch.device, type, Enum)
_INDEX = ("the index of the block",)


class Incomparable(Exception):
    """Nothing can be said of this object by looking at it."""


class Storages:
    """Numbers for storages, in the order in which they are met: `numbers` has them by address."""

    def __init__(self) -> None:
        self.numbers: dict[int, int] = {}

    def number(self, tensor: torch.Tensor) -> int:
        """The number of a plain tensor's storage."""
        return self.numbers.setdefault(tensor.untyped_storage()._cdata, len(self.numbers))


def likeness(value: Any, index: int, storages: Storages) -> Any:
    """The likeness of an argument; Incomparable for an object that is neither data nor a cache."""
    if isinstance(value, torch.Tensor):
        return type(value), tuple(_layout(plain, storages) for plain in plain_tensors(value))
    if isinstance(value, _PLAIN):
        return type(value), value
    if isinstance(value, (list, tuple)):
        return type(value), tuple(likeness(item, index, storages) for item in value)
    if isinstance(value, dict):
        return type(value), tuple((key, likeness(item, index, storages)) for key, item in value.items())
    if is_cache(value):
        return id(value), tuple(
            (name, key, likeness(item, index, storages)) for name, key, item in entries(value, index)
        )
    raise Incomparable(type(value).__name__)


def _layout(tensor: torch.Tensor, storages: Storages) -> Any:
    nbytes = tensor.untyped_storage().nbytes()
    return (storages.number(tensor), nbytes, *layout(tensor))


def layout(tensor: torch.Tensor) -> tuple[Any, ...]:
    """How a plain tensor lies in its storage."""
    return tensor.dtype, tensor.storage_offset(), tuple(tensor.shape), tensor.stride()


def block_likeness(block: nn.Module, index: int) -> Any:
    """The likeness of a block with all inside it; Incomparable where code of the user's own may run."""
    storages = Storages()
    return tuple((path, _module_likeness(module, index, storages)) for path, module in block.named_modules())


def _module_likeness(module: nn.Module, index: int, storages: Storages) -> Any:
    if type(module).__module__.partition(".")[0] not in _KNOWN_CODE:
        raise Incomparable(type(module).__name__)
    if any(hooks for name, hooks in vars(module).items() if name.endswith("_hooks") and name in _STANDARD):
        raise Incomparable("a hook")
    tensors = [
        (name, None if tensor is None else likeness(tensor, index, storages))
        for name, tensor in (*module._parameters.items(), *module._buffers.items())
    ]
    attributes = [
        (name, _attribute_likeness(name, value, index, storages, module))
        for name, value in vars(module).items()
        if name not in _STANDARD and name != "extra_repr"  # which only prints
    ]
    return type(module), tuple(tensors), tuple(module._non_persistent_buffers_set), tuple(attributes)


def _attribute_likeness(name: str, value: Any, index: int, storages: Storages, module: nn.Module) -> Any:
    if type(value) is int and value == index and name.endswith(("idx", "index", "layer_id")):
        return _INDEX
    if isinstance(value, partial):
        named = [("", value.func), *enumerate(value.args), *value.keywords.items()]
        return tuple((key, _attribute_likeness("", item, index, storages, module)) for key, item in named)
    if getattr(value, "__self__", None) is module:  # a method of its own, given to it by hand
        value = value.__func__
    try:
        found = likeness(value, index, storages)
        hash(found)
    except (Incomparable, TypeError):
        return "one and the same", id(value)  # a configuration, a function
    return found


# -- a cache of transformers: what of it belongs to one block


def is_cache(value: Any) -> bool:
    """Whether an object is a key-value cache of transformers."""
    return type(value).__module__ == "transformers.cache_utils" and hasattr(value, "get_seq_length")


def places(cache: Any, index: int) -> Iterator[tuple[str, MutableMapping[Any, Any], list[Any]]]:
    """Where a cache keeps what belongs to a block: a name, a mapping, and those of its keys.

    Incomparable where the block's layer is not there yet.
    """
    if hasattr(cache, "cross_attention_cache"):
        for name in ("self_attention_cache", "cross_attention_cache"):
            for place, mapping, keys in places(getattr(cache, name), index):
                yield f"{name}.{place}", mapping, keys
        yield "is_updated", cache.is_updated, [index]
        return
    if index >= len(cache.layers):
        raise Incomparable("a cache that grows by layers")
    held = vars(cache.layers[index])
    yield "", held, [key for key, item in held.items() if not isinstance(item, dict)]
    for key, item in held.items():
        if isinstance(item, dict):
            yield key, item, list(item)


def entries(cache: Any, index: int) -> Iterator[tuple[str, Any, Any]]:
    """What a cache keeps for a block: place, key and value; the block's index is no key but `index`."""
    if not hasattr(cache, "cross_attention_cache"):
        yield "class", "", type(cache.layers[index]) if index < len(cache.layers) else None
    for name, mapping, keys in places(cache, index):
        for key in keys:
            yield name, "index" if name == "is_updated" else key, mapping.get(key)


def elsewhere(cache: Any, index: int) -> list[tuple[int, ...]]:
    """What the cache keeps for all other blocks, by identity."""
    parts = [getattr(cache, name, None) for name in ("self_attention_cache", "cross_attention_cache")]
    caches = [part for part in parts if part is not None] or [cache]
    found = []
    for part in caches:
        for number in range(len(part.layers)):
            if number != index:
                found.append(tuple(id(item) for _, _, item in entries(part, number)))
    return found
