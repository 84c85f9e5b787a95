"""Takes weights out of a model: single ones by size, or whole features of its feed-forward layers."""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import nn
from torch.nn.utils import prune

from roofleet_agent.errors import WorkloadRefused
from roofleet_agent.variants.matrices import expert_matrices, keep_features, linear_layers, sizes
from roofleet_agent.variants.notes import Note

_ATTENTION = re.compile(r"attn|attention", re.IGNORECASE)
_MULTIPLE = 8
"""Features are kept in multiples of this, as kernels like them."""


def prune_weights(model: nn.Module, share: float) -> list[Note]:
    """Sets the smallest `share` of each matrix to zero, by magnitude; embeddings and head are left alone.

    Storage and arithmetic stay dense: torch's kernels for dense matrices gain nothing from zeros.
    """
    for _, layer in linear_layers(model):
        if not layer.weight.is_meta:
            prune.l1_unstructured(layer, "weight", amount=share)
            prune.remove(layer, "weight")
    for _, experts in expert_matrices(model):
        if not experts.is_meta:
            for matrix in experts.data:
                mask = prune.L1Unstructured(share).compute_mask(matrix, torch.ones_like(matrix))
                matrix.mul_(mask)
    return []


def prune_features(model: nn.Module, share: float) -> list[Note]:
    """Cuts `share` of the intermediate features out of every feed-forward layer: the model becomes smaller.

    Kept are those with the largest columns in the projection back (Euclidean norm). WorkloadRefused if the
    model has no feed-forward layer that is two linear layers or three.
    """
    cut, notes = 0, list[Note]()
    pending: list[Any] = []
    for path, layer in linear_layers(model):
        if _ATTENTION.search(path) or _mixes_more(model, path):
            continue
        inside, outside = sizes(layer)
        ups = [up for up in pending if _joins(sizes(up), (inside, outside))]
        if ups:
            _cut(ups, layer, share)
            cut, pending = cut + 1, []
        else:
            pending.append(layer)
    for path, _ in expert_matrices(model):
        notes.append(Note(path, "experts in one parameter are no linear layers", "left as they were"))
    if not cut:
        raise WorkloadRefused(
            f"{type(model).__name__} has no feed-forward layer of linear layers to take features out of: "
            "use pruned-50, which sets single weights to zero"
        )
    return notes


def _mixes_more(model: nn.Module, path: str) -> bool:
    """Whether the layer sits beside a convolution or weights of no layer, as in Mamba's mixer: its features
    are then more than those of a feed-forward layer."""
    around = model.get_submodule(path.rpartition(".")[0])
    convolutions = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
    own = next(around.parameters(recurse=False), None) is not None
    return own or any(isinstance(child, convolutions) for child in around.children())


def _joins(up: tuple[int, int], down: tuple[int, int]) -> bool:
    # [hidden -> features] or [hidden -> gate and features], then [features -> hidden]
    return up[0] == down[1] and up[1] in (down[0], 2 * down[0]) and down[0] != down[1]


def _cut(ups: list[Any], down: Any, share: float) -> None:
    features = sizes(down)[0]
    kept = max(round(features * (1 - share) / _MULTIPLE) * _MULTIPLE, min(_MULTIPLE, features))
    weight = down.weight.detach()
    if weight.is_meta:
        index = torch.arange(kept, device="meta")
    else:
        along = 0 if weight.shape[0] != features else 1
        norms = weight.float().norm(dim=along)
        index = norms.topk(kept).indices.sort().values
    for up in ups:
        fused = sizes(up)[1] == 2 * features
        keep_features(up, torch.cat([index, index + features]) if fused else index, outputs=True)
    keep_features(down, index, outputs=False)
