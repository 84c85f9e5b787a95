"""What tensors take as stored: a tensor subclass, such as a quantised weight, is the plain tensors in it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy

_SPARSE = {
    torch.sparse_coo: ("_indices", "_values"),
    torch.sparse_csr: ("crow_indices", "col_indices", "values"),
    torch.sparse_bsr: ("crow_indices", "col_indices", "values"),
    torch.sparse_csc: ("ccol_indices", "row_indices", "values"),
    torch.sparse_bsc: ("ccol_indices", "row_indices", "values"),
}
"""What a sparse tensor is stored as, by its layout."""


def plain_tensors(tensor: torch.Tensor) -> Iterator[torch.Tensor]:
    """The tensors that hold the data: the tensor itself, those inside one that wraps others or is
    sparse, and none of one that waits for the first call to tell its shape."""
    if is_lazy(tensor):
        return
    for name in _SPARSE.get(tensor.layout, ()):
        yield getattr(tensor.detach(), name)()
    if tensor.layout in _SPARSE:
        return
    flatten = getattr(tensor, "__tensor_flatten__", None)
    if flatten is None:
        yield tensor
        return
    for name in flatten()[0]:
        inner = getattr(tensor, name)  # such as a mesh of devices beside the tensor
        if isinstance(inner, torch.Tensor):
            yield from plain_tensors(inner)


def state_tensors(module: nn.Module) -> Iterator[torch.Tensor]:
    """The plain tensors of all parameters and buffers."""
    for tensor in (*module.parameters(), *module.buffers()):
        yield from plain_tensors(tensor)


def _packed_tensors(module: nn.Module) -> Iterator[torch.Tensor]:
    """Copies of the weights that layers keep packed."""
    for part in module.modules():
        for packed in _packed(part):
            yield from plain_tensors(packed)


def stored_bytes(module: nn.Module) -> int:
    """Bytes of parameters, buffers and weights that layers keep packed; shared storage counts once."""
    sizes: dict[int, int] = {}
    # all at once: an unpacked copy that is let go gives its address to the next
    for tensor in [*state_tensors(module), *_packed_tensors(module)]:
        storage = tensor.untyped_storage()
        sizes[storage._cdata] = max(tensor.numel() * tensor.element_size(), sizes.get(storage._cdata, 0))
    return sum(sizes.values())


def held_parameters(module: nn.Module) -> int:
    """Parameters of a module and all inside it, tied ones once, packed ones as many as they stand for."""
    inside = sum(packed_parameters(part)[0] for part in module.modules())
    return inside + sum(p.numel() for p in module.parameters() if not is_lazy(p))


def packed_parameters(part: nn.Module) -> tuple[int, int]:
    """How many parameters a layer itself keeps packed beside its others, and their bytes."""
    stands_for = getattr(part, "packed_parameters", None)
    if isinstance(stands_for, int):
        return stands_for, sum(b.numel() * b.element_size() for b in part.buffers(recurse=False))
    found = list(_packed(part))
    return sum(t.numel() for t in found), sum(t.numel() * t.element_size() for t in found)


def _packed(part: nn.Module) -> Iterator[torch.Tensor]:
    """Weights of torch's dynamic quantisation, which live in an object that is no parameter."""
    unpack: Any = getattr(part, "_weight_bias", None)
    if (
        callable(unpack) and next(part.children(), None) is None
    ):  # a layer asks the part of it that holds them
        for tensor in unpack():
            if isinstance(tensor, torch.Tensor):
                yield tensor
