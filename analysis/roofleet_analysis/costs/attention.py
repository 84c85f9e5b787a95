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
    return _attention(pairs, q.shape[-1], k.shape[-2], v.shape[-1])


@formula("aten.scaled_dot_product_attention")
def scaled_dot_product_attention(op: Op) -> Work:
    # q: [b, h, s, d] @ k: [b, g, t, d] -> [b, h, s, t]; @ v: [b, g, t, e] -> [b, h, s, e]
    q, k, v = op.inputs[:3]
    *heads, s, d = q.shape
    t, e = k.shape[-2], v.shape[-1]
    pairs = s * t
    for size in heads:
        pairs *= size
    masked = pairs if len(op.inputs) > 3 else 0
    work = _attention(pairs, d, t, e, masked)
    if op.attributes.get("is_causal"):
        # row i sees min(i + 1, t) positions
        seen = sum(min(i + 1, t) for i in range(s)) if s != t else s * (s + 1) // 2
        return replace(work, causal_flops=work.matmul_flops * seen // (s * t))
    return work


def _attention(pairs: int, d: int, t: int, e: int, masked: int = 0) -> Work:
    """The work of `pairs` of queries and keys: [s, d] @ [d, t], scaled, softmax, [s, t] @ [t, e]."""
    scores, values = product(pairs, d, 1), product(pairs // t, t, e)
    other = pairs * (1 + SOFTMAX) + masked + scores.other_flops + values.other_flops
    return Work(scores.matmul_flops + values.matmul_flops, other)
