"""Says of each op of an attention layer what it is there, and what of the positions its mask lets through.

A mask is a tensor, or code, whose values a trace does not have. But what is masked is no secret: transformers
makes every mask of a model from a few lines of its configuration (causal or not, a sliding window or chunks,
by layer), and so does this. Only models of transformers are told; a module of the user's own may do anything.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from roofleet_agent.tracing.records import TracedOp, TracedTensor

_FUSED = frozenset({"aten.scaled_dot_product_attention", "higher_order.flex_attention"})
_PRODUCTS = frozenset({"aten.matmul", "aten.bmm", "aten.baddbmm"})
_ROOM = frozenset({"aten.zeros", "aten.zeros_like", "aten.empty", "aten.empty_like"})
_SOFTMAX = frozenset({"aten.softmax", "aten._softmax"})

_OPEN = frozenset({"full_attention", "attention", "hybrid", "global"})
_SLIDING = frozenset({"sliding_attention", "hybrid_sliding", "local", "local_attention"})
_CHUNKED = frozenset({"chunked_attention"})


@dataclass(frozen=True)
class Mask:
    """What the mask of a layer lets through; see roofleet_analysis.costs.attending."""

    causal: bool
    window: int | None = None
    chunk: int | None = None


def masks_of(model: nn.Module) -> dict[str, Mask]:
    """The masks of a model's attention layers, by path; none for a model that is not transformers' own.

    Where a layer's kind is not known (an index picks what is seen, for one) its mask is as narrow as can be:
    what is called needed is never more than that.
    """
    found: dict[str, Mask] = {}
    for path, module in model.named_modules():
        if "Attention" in type(module).__name__:
            config = _config_of(model, path)
            if config is not None:
                found[path] = _mask(module, path, config)
    return found


def _config_of(model: nn.Module, path: str) -> Any:
    """transformers' configuration nearest above a layer, of the text part where it has several."""
    parts = path.split(".") if path else []
    for end in range(len(parts), -1, -1):
        config: Any = getattr(model.get_submodule(".".join(parts[:end])), "config", None)
        if hasattr(config, "get_text_config"):
            return config.get_text_config()
    return None


def _mask(module: nn.Module, path: str, config: Any) -> Mask:
    causal = getattr(module, "is_causal", True)  # those that do not say are older decoders, such as BLOOM's
    if not causal:
        return Mask(False)
    window, chunk = _positive(config, "sliding_window"), _positive(config, "attention_chunk_size")
    kinds = getattr(config, "layer_types", None) or getattr(config, "attention_layers", None)
    if not kinds:
        return Mask(True, window, None if window else chunk)
    index = _index(module, path)
    kind = kinds[index] if index is not None and index < len(kinds) else None
    if kind in _OPEN:
        return Mask(True)
    if kind in _SLIDING and (window or _positive(config, "window_size")):
        return Mask(True, window or _positive(config, "window_size"))
    if kind in _CHUNKED and chunk:
        return Mask(True, chunk=chunk)
    return Mask(True, window=1)


def _positive(config: Any, name: str) -> int | None:
    value = getattr(config, name, None)
    return value if isinstance(value, int) and value > 0 else None


def _index(module: nn.Module, path: str) -> int | None:
    """The number of the layer in its model: its own word, else the first number in its path."""
    stated = getattr(module, "layer_idx", None)
    if isinstance(stated, int):
        return stated
    return next((int(part) for part in path.split(".") if part.isdigit()), None)


def attended(
    ops: Sequence[TracedOp], model: nn.Module, tokens: int | None, cached_tokens: int | None
) -> list[TracedOp]:
    """The ops, those of attention layers with the attribute `attends`.

    `tokens` are new in this step and `cached_tokens` were in the cache before it, of each sequence. Not
    known is None: every row of queries is a token then, and as many are cached as keys have no query.
    """
    masks = masks_of(model)
    if not masks:
        return list(ops)
    layers: dict[str, list[int]] = {}
    for number, op in enumerate(ops):
        layer = _layer(op.path, masks)
        if layer is not None and not op.is_view:
            layers.setdefault(layer, []).append(number)
    told = list(ops)
    for layer, numbers in layers.items():
        for number, attends in _told(ops, numbers, masks[layer], tokens, cached_tokens):
            told[number] = replace(ops[number], attributes={**ops[number].attributes, "attends": attends})
    return told


def _layer(path: str, masks: dict[str, Mask]) -> str | None:
    """The attention layer a path lies in, the innermost."""
    while path not in masks:
        if not path:
            return None
        path = path.rpartition(".")[0]
    return path


def _told(
    ops: Sequence[TracedOp],
    numbers: Sequence[int],
    mask: Mask,
    tokens: int | None,
    cached_tokens: int | None,
) -> Iterator[tuple[int, dict[str, Any]]]:
    """The `attends` of the ops of one layer that have one, by their number.

    A product of the cache with a weight, as latents are expanded to keys and values, is needed for the new
    positions only: an implementation may keep what it made, or take the weight to the other side.
    """
    pairs = dict(_pairs(ops, numbers, tokens))
    if not pairs:
        return
    usual = next(iter(pairs.values()))
    stores = {number for number in numbers if _stores(ops[number])}
    for number in numbers:
        op, told = ops[number], {}
        queries, keys = pairs.get(number, usual)
        kept = _kept(op)
        if number in pairs:
            told["work"] = "pairs"
        elif kept > queries and any(tensor.role == "weight" for tensor in op.inputs):
            told["work"], keys = "positions", kept
        if number in stores:
            told["cache"] = "store"
        elif kept and not stores:
            told["cache"] = "load"
        elif not told and all(tensor.role != "kv" for tensor in (*op.inputs, *op.outputs)):
            continue
        cached = max(keys - queries, 0) if cached_tokens is None else cached_tokens
        limits = {"window": mask.window, "chunk": mask.chunk}
        yield number, {
            "queries": queries, "keys": keys, "cached": cached, "causal": mask.causal, **told,
            **{name: size for name, size in limits.items() if size is not None},
        }  # fmt: skip


def _stores(op: TracedOp) -> bool:
    """Whether an op puts new positions into the cache; making room for them is not that."""
    return op.op not in _ROOM and any(tensor.role == "kv" for tensor in op.outputs)


def _kept(op: TracedOp) -> int:
    """Positions of the cache that an op is given; 0 for one that is given none."""
    return max((t.shape[-2] for t in op.inputs if t.role == "kv" and len(t.shape) > 1), default=0)


def _pairs(
    ops: Sequence[TracedOp], numbers: Sequence[int], tokens: int | None
) -> Iterator[tuple[int, tuple[int, int]]]:
    """The products over pairs of queries and keys, and how many of each: fused ones, and of those apart the
    ones before a softmax that give its shape, and the one after it."""

    def shape(rows: int, keys: int) -> tuple[int, int]:
        # heads that share keys may be rows of queries beside one another, each for the same tokens
        grouped = tokens is not None and rows > tokens and rows % tokens == 0
        return (tokens or 0) if grouped else rows, keys

    before: list[int] = []
    after = False
    for number in numbers:
        op = ops[number]
        if op.op in _FUSED:
            yield number, shape(op.inputs[0].shape[-2], op.inputs[1].shape[-2])
        elif op.op in _SOFTMAX:
            if before:
                made = _last_two(ops[before[-1]].outputs[0])
                yield from ((n, shape(*made)) for n in before if _last_two(ops[n].outputs[0]) == made)
            before, after = [], True
        elif op.op in _PRODUCTS and all(tensor.role != "weight" for tensor in op.inputs):
            if after:
                yield number, shape(*_last_two(op.inputs[0]))
            else:
                before.append(number)
            after = False


def _last_two(tensor: TracedTensor) -> tuple[int, int]:
    return tensor.shape[-2], tensor.shape[-1]
