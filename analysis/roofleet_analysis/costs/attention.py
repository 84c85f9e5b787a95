"""Formulas of fused attention, equal to those of its parts: two products and a softmax between them."""

from __future__ import annotations

from roofleet_analysis.costs.elementwise import SOFTMAX
from roofleet_analysis.costs.registry import Op, Work, formula


@formula("higher_order.flex_attention")
def flex_attention(op: Op) -> Work:
    # q: [b, h, s, d], k: [b, g, t, d], v: [b, g, t, e] and tables of masked blocks -> [b, h, s, e]: what is
    # masked is code, which shapes do not tell, so it is counted dense, and what that code does is not
    q, k, v = op.inputs[:3]
    pairs = q.elements // q.shape[-1] * k.shape[-2]
    return Work(2 * pairs * (q.shape[-1] + v.shape[-1]), other_flops=pairs * (1 + SOFTMAX))


@formula("aten.scaled_dot_product_attention")
def scaled_dot_product_attention(op: Op) -> Work:
    # q: [b, h, s, d] @ k: [b, g, t, d] -> [b, h, s, t]; @ v: [b, g, t, e] -> [b, h, s, e]
    q, k, v = op.inputs[:3]
    *heads, s, d = q.shape
    t, e = k.shape[-2], v.shape[-1]
    pairs = s * t
    for size in heads:
        pairs *= size
    matmul_flops = 2 * pairs * (d + e)
    causal = None
    if op.attributes.get("is_causal"):
        # row i sees min(i + 1, t) positions
        seen = sum(min(i + 1, t) for i in range(s)) if s != t else s * (s + 1) // 2
        causal = matmul_flops * seen // (s * t)
    masked = pairs if len(op.inputs) > 3 else 0
    return Work(matmul_flops, other_flops=pairs * (1 + SOFTMAX) + masked, causal_flops=causal)
