"""Layers that torch runs as one kernel: inside them there is nothing to time, whatever a trace shows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from roofleet_agent.variants.notes import Note


def fused_layers(model: nn.Module, device: torch.device) -> list[str]:
    """Paths of the encoder layers that torch runs fused on this device when no gradient is wanted.

    It asks what torch itself asks before it does (nn.TransformerEncoderLayer.forward), as far as that can be
    known before the call: inputs without a batch dimension are the rest. Nothing on `meta` is fused.
    """
    if device.type == "meta" or not torch.backends.mha.get_fastpath_enabled():
        return []
    return [
        path
        for path, layer in model.named_modules()
        if isinstance(layer, nn.TransformerEncoderLayer) and _is_fused(layer)
    ]


def told_whole(paths: list[str]) -> Iterator[Note]:
    """What a run says of such layers."""
    for path in paths:
        yield Note(
            path,
            "torch runs it as one kernel",
            "timed as one thing; its costs are those of the parts that it stands for",
        )


def _is_fused(layer: Any) -> bool:
    attention = layer.self_attn
    weights = [p for part in (attention, layer.norm1, layer.norm2, layer.linear1, layer.linear2)
               for p in part.parameters()]  # fmt: skip
    hooked = any(part._forward_hooks or part._forward_pre_hooks for part in layer.modules())
    return bool(
        not layer.training
        and type(layer).forward is nn.TransformerEncoderLayer.forward
        and attention.batch_first
        and attention.in_proj_bias is not None
        and attention._qkv_same_embed_dim
        and attention.num_heads % 2 == 0
        and layer.activation_relu_or_gelu
        and layer.norm1.eps == layer.norm2.eps
        and not hooked
        and not torch.is_autocast_enabled()
        and not torch.overrides.has_torch_function(tuple(weights))
    )
