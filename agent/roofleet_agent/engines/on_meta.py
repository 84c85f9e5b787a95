"""What a Hugging Face model needs to run on torch's meta device, where there are shapes and no data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from roofleet_agent.tracing.loops import cut_scans_short


def attention_on_meta(model_class: Any, config: Any, wanted: str) -> str:
    """The attention to trace with: `wanted`, or what stands for it where `meta` cannot run it.

    Flex attention insists on a device that computes. The products are the same in each, and fused attention
    moves the same bytes; a model whose scores are capped has no fused one.
    """
    if wanted != "flex_attention":
        return wanted
    capped = getattr(config.get_text_config(), "attn_logit_softcapping", None) is not None
    return "sdpa" if getattr(model_class, "_supports_sdpa", False) and not capped else "eager"


def settle_on_meta(model: Any) -> None:
    """Leaves out what looks at data and what takes too long, without changing what is counted.

    Experts run as grouped products where a loop was asked for over those that were met: the work is the same,
    and the weights read are those met on average. Nobody looks for padding among the tokens to warn of it. A
    scan goes through a few tokens for all.
    """
    model.config.pad_token_id = None
    cut_scans_short(model)
    if model._can_set_experts_implementation() and model.config._experts_implementation == "eager":
        model.set_experts_implementation("grouped_mm")


class Uninitialised(TorchFunctionMode):
    """While it is entered weights, which have no data on `meta`, are not given any."""

    _names = frozenset({"uniform_", "normal_", "trunc_normal_", "kaiming_uniform_", "zeros_", "ones_"})

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__module__", None) == "torch.nn.init" and func.__name__ in self._names:
            return kwargs.get("tensor", args[0] if args else None)
        return func(*args, **kwargs)


def meta_kernels() -> torch.library.Library:
    """Lets `meta` do what it cannot by itself, while the object that is returned lives.

    torch's own grouped product there is for bf16 alone, and mixtures of experts run in every dtype.
    """
    library = torch.library.Library("aten", "IMPL", "Meta")
    library.impl("_grouped_mm", _grouped_mm, allow_override=True)
    return library


def _grouped_mm(
    a: torch.Tensor, b: torch.Tensor, offs: Any = None, bias: Any = None, out_dtype: Any = None
) -> torch.Tensor:
    # a: [t, k] @ b: [experts, k, n] -> [t, n]; of two matrices, which share the ragged inner dimension,
    # one product a group: [m, t] @ [t, n] -> [groups, m, n]; and two batches as in a batched product
    if a.dim() == 2 and b.dim() == 2:
        return a.new_empty(offs.shape[0], a.shape[0], b.shape[1], dtype=out_dtype)
    if a.dim() == 3 and b.dim() == 3:
        return a.new_empty(a.shape[0], a.shape[1], b.shape[2], dtype=out_dtype)
    return a.new_empty(a.shape[-2], b.shape[-1], dtype=out_dtype)
