"""What a call is, by the arguments it is given and by what it gives back."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from roofleet_agent.engines.module import tokens_of
from roofleet_agent.engines.transformers import held_by
from roofleet_agent.tracing.operands import tensors_in


def phase_of(kwargs: Any) -> tuple[str, Any]:
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


def first_tensor(args: Any, kwargs: Any) -> torch.Tensor | None:
    """The tensor that tells a call's size: ids or embeddings by their name, else the first there is."""
    named = [kwargs[name] for name in ("input_ids", "inputs_embeds") if kwargs.get(name) is not None]
    return next((t for t in tensors_in((named, args, kwargs)) if t.dim()), None)


def batch_and_tokens(model: nn.Module, args: Any, kwargs: Any) -> tuple[int, int]:
    """Inputs in the batch of a call, and tokens of each; no tokens for images and other inputs."""
    first = first_tensor(args, kwargs)
    return (1, 0) if first is None else (int(first.shape[0]), tokens_of(model, first))


def logits_of(output: Any, tokens: int) -> str:
    """For which positions of a call logits were computed: `all`, `last`, or `last 3`."""
    logits = getattr(output, "logits", output)
    if not isinstance(logits, torch.Tensor) or logits.dim() != 3 or logits.shape[1] >= tokens:
        return "all"
    return "last" if logits.shape[1] == 1 else f"last {logits.shape[1]}"
