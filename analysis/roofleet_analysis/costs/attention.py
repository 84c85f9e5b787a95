"""Formulas of fused attention, equal to those of its parts: two products and a softmax between them."""

from __future__ import annotations

from dataclasses import replace

from roofleet_analysis.costs.elementwise import SOFTMAX
from roofleet_analysis.costs.matmul import product
from roofleet_analysis.costs.registry import Op, Work, formula


@formula("higher_order.flex_attention")
def flex_attention(op: Op) -> Work:
    # q: [b, h, s, d], k: [b, g, t, d], v: [b, g, t, e] and tables of masked blocks -> [b, h, s, e]: what is
    # masked is code, which shapes do not tell, so it is counted dense, and what that code does is not
    q, k, v = op.inputs[:3]
    pairs = q.elements // q.shape[-1] * k.shape[-2]
    return _least(attention(pairs, q.shape[-1], k.shape[-2], v.shape[-1]), k.shape[-2])


@formula(
    "aten.scaled_dot_product_attention", "aten._scaled_dot_product_attention_math",
    "aten._scaled_dot_product_attention_math_for_mps", "aten._scaled_dot_product_flash_attention",
    "aten._scaled_dot_product_flash_attention_for_cpu", "aten._scaled_dot_product_efficient_attention",
    "aten._scaled_dot_product_cudnn_attention", "aten._scaled_dot_product_fused_attention_overrideable",
    "aten._triton_scaled_dot_attention", "aten._cudnn_attention_forward",
)  # fmt: skip
def scaled_dot_product_attention(op: Op) -> Work:
    # q: [b, h, s, d] @ k: [b, g, t, d] -> [b, h, s, t]; @ v: [b, g, t, e] -> [b, h, s, e]
    q, k, v = op.inputs[:3]
    *heads, s, d = q.shape
    t, e = k.shape[-2], v.shape[-1]
    pairs = s * t
    for size in heads:
        pairs *= size
    masked = pairs if len(op.inputs) > 3 else 0
    work = attention(pairs, d, t, e, masked)
    if op.attributes.get("is_causal"):
        return _causal(work, s, t)
    return _least(work, t) if masked else work


def _least(work: Work, t: int) -> Work:
    """The work, with what is needed of it when nothing is known of the mask: one of `t` keys a query."""
    return replace(work, needed_flops=work.matmul_flops // t)


@formula(
    "aten._flash_attention_forward", "aten._flash_attention_forward_no_dropout_inplace",
    "aten._efficient_attention_forward",
)  # fmt: skip
def sequence_first_attention(op: Op) -> Work:
    # q: [b, s, h, d], k: [b, t, g, d], v: [b, t, g, e] -> [b, s, h, e]; or sequences of unlike lengths one
    # after the other, q: [s, h, d], with a table [n + 1] of where each begins: shapes do not tell more than
    # that, so they are counted as long as one another
    q, k, v = op.inputs[:3]
    tables = [t for t in op.inputs[3:] if len(t.shape) == 1 and t.dtype == "int32" and t.shape[0] > 1]
    s, d = q.shape[-3], q.shape[-1]
    t, e = k.shape[-3], v.shape[-1]
    packed = tables[0].shape[0] - 1 if tables else 1
    s, t = max(s // packed, 1), max(t // packed, 1)
    work = attention(q.elements // d * t, d, t, e)
    causal = op.attributes.get("is_causal") or op.attributes.get("custom_mask_type")
    return _causal(work, s, t) if causal else work


def _causal(work: Work, s: int, t: int) -> Work:
    """The same with what it would be without the masked half: row i sees min(i + 1, t) positions."""
    seen = sum(min(i + 1, t) for i in range(s)) if s != t else s * (s + 1) // 2
    return replace(work, causal_flops=work.matmul_flops * seen // (s * t))


def attention(pairs: int, d: int, t: int, e: int, masked: int = 0) -> Work:
    """The work of `pairs` of queries and keys: [s, d] @ [d, t], scaled, softmax, [s, t] @ [t, e]."""
    scores, values = product(pairs, d, 1), product(pairs // t, t, e)
    other = pairs * (1 + SOFTMAX) + masked + scores.other_flops + values.other_flops
    return Work(scores.matmul_flops + values.matmul_flops, other)
