"""Formulas of mixtures of experts: products with each token's own matrices, and how many are read."""

from __future__ import annotations

from roofleet_analysis.costs.registry import Op, Tensor, Work, formula


def distinct_experts(experts: int, rows: int, per_token: int) -> float:
    """How many of `experts` a batch meets, on average.

    Shapes do not say which: tokens = rows / k, each sent to k different experts of E, spread evenly, meet
    E * (1 - (1 - k/E)^tokens) of them.
    """
    k = min(per_token, experts)
    return float(experts * (1 - (1 - k / experts) ** (rows / k)))


def read_of_experts(weights: Tensor, rows: int, per_token: int) -> int:
    """Bytes read of stacked weights [experts, ...] by rows that each meet one expert."""
    experts = weights.shape[0]
    return min(weights.bytes, round(weights.bytes * distinct_experts(experts, rows, per_token) / experts))


@formula("aten._grouped_mm", "aten._scaled_grouped_mm", "aten._scaled_grouped_mm_v2")
def grouped_mm(op: Op) -> Work:
    # a: [t, k], w: [experts, k, n], offsets: [experts] -> [t, n]: every row meets one expert's matrix
    a, w, out = op.inputs[0], op.inputs[1], op.outputs[0]
    if len(w.shape) == 2:  # both sides ragged: the groups share the inner dimension
        return Work(matmul_flops=2 * a.shape[0] * a.shape[1] * w.shape[1])
    per_token = op.attributes.get("experts_per_token", 1)
    return Work(
        matmul_flops=2 * a.elements * out.shape[-1], read={1: read_of_experts(w, a.shape[0], per_token)}
    )


@formula("transformers.grouped_mm_fallback")
def grouped_mm_fallback(op: Op) -> Work:
    # the same product where torch has none: one matrix product an expert
    return grouped_mm(op)
