"""Formulas of whole layers that torch runs as one op, equal to those of their parts."""

from __future__ import annotations

from dataclasses import replace

from roofleet_analysis.costs.attention import attention
from roofleet_analysis.costs.elementwise import GELU, LAYER_NORM
from roofleet_analysis.costs.matmul import product
from roofleet_analysis.costs.registry import Op, Tensor, Work, formula


@formula("aten._native_multi_head_attention", "aten._triton_multi_head_attention")
def multi_head_attention(op: Op) -> Work:
    # q, k, v: [b, t, e], w: [3 e, e] and its bias, out: [e, e] and its bias, mask or none -> [b, t, e]. It is
    # run only where all three are one tensor, which is read once.
    q, k, v = op.inputs[:3]
    work = _self_attention(q, k, op.attributes["num_head"], masked=len(op.inputs) > 7)
    return replace(work, read={1: 0, 2: 0} if q == k == v else {})


@formula("aten._transformer_encoder_layer_fwd")
def encoder_layer(op: Op) -> Work:
    # x: [b, t, e]; attention as above with its four weights, two norms with two each, up: [f, e] and its
    # bias, down: [e, f] and its bias, mask or none -> [b, t, e]. Two sums with what went in.
    x, up = op.inputs[0], op.inputs[9]
    rows, e, f = x.elements // x.shape[-1], x.shape[-1], up.shape[0]
    attended = _self_attention(x, x, op.attributes["num_heads"], masked=len(op.inputs) > 13)
    wide, narrow = product(rows, e, f, rows * f), product(rows, f, e, rows * e)
    activation = rows * f * (GELU if op.attributes.get("use_gelu") else 1)
    around = 2 * x.elements * (LAYER_NORM + 1)
    return Work(
        attended.matmul_flops + wide.matmul_flops + narrow.matmul_flops,
        attended.other_flops + wide.other_flops + narrow.other_flops + activation + around,
        needed_flops=(attended.needed_flops or 0) + wide.matmul_flops + narrow.matmul_flops,
    )


@formula("aten._transform_bias_rescale_qkv")
def rescaled(op: Op) -> Work:
    # qkv: [b, t, 3 e] and a bias: added, and the queries scaled
    qkv = op.inputs[0].elements
    return Work(other_flops=qkv + qkv // 3)


def _self_attention(q: Tensor, k: Tensor, heads: int, masked: bool) -> Work:
    """Projections with their biases, attention in `heads` of e / heads, and the projection back."""
    e = q.shape[-1]
    queries, keys = q.elements // e, k.elements // e
    t = k.shape[-2]
    pairs = queries * t * heads
    inside = attention(pairs, e // heads, t, e // heads, pairs if masked else 0)
    projected = product(queries, e, 2 * e, 2 * queries * e)  # to queries, and back from the values
    stored = product(keys, e, 2 * e, 2 * keys * e)
    around = projected.matmul_flops + stored.matmul_flops
    return Work(
        around + inside.matmul_flops,
        projected.other_flops + stored.other_flops + inside.other_flops,
        # what a mask hides is not known here: at least one key for each query is not
        needed_flops=around + inside.matmul_flops // (t if masked else 1),
    )
