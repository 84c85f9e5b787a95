"""Formulas of sums of products over several dimensions, several operands, or pairs and bags of rows."""

from __future__ import annotations

from math import prod

from roofleet_analysis.costs.matmul import product
from roofleet_analysis.costs.registry import Op, Work, formula

_PAIRS_BY_PRODUCT = 25
"""More points than this on either side, and torch works Euclidean distances out by a matrix product."""


@formula("aten.tensordot")
def tensordot(op: Op) -> Work:
    # a and b, of which the dimensions named are added up: 2 operations a multiply-add
    a = op.inputs[0]
    inner = prod(a.shape[d] for d in op.attributes.get("dims_self", ()))
    return product(op.outputs[0].elements, inner, 1)


@formula("aten.bilinear")
def bilinear(op: Op) -> Work:
    # a: [..., i], w: [n, i, j], b: [..., j] -> [..., n]: a @ w gives [..., n, j], and of that each row with b
    a, _, w = op.inputs[:3]
    n, i, j = w.shape
    rows = a.elements // i
    first, second = product(rows, i, n * j), product(rows * n, j, 1)
    bias = rows * n if len(op.inputs) > 3 else 0
    return Work(first.matmul_flops + second.matmul_flops, first.other_flops + second.other_flops + bias)


@formula("aten._compute_linear_combination")
def linear_combination(op: Op) -> Work:
    # parts: [k, *], coefficients: [n, k] -> [n, *]
    return product(op.outputs[0].elements, op.inputs[0].shape[0], 1)


@formula("aten.cdist", "aten._cdist_forward", "aten._euclidean_dist")
def cdist(op: Op) -> Work:
    # a: [..., p, m], b: [..., r, m] -> [..., p, r]. Euclidean distances of many points are the root of
    # |a|^2 - 2 ab + |b|^2: a product and both squares, and for each pair two sums, a comparison and the root.
    # Others take three operations an element of each difference, and one a pair.
    a, b = op.inputs[:2]
    pairs, features = op.outputs[0].elements, a.shape[-1]
    mode = op.attributes.get("compute_mode") or 0
    many = max(a.shape[-2], b.shape[-2]) > _PAIRS_BY_PRODUCT
    if op.attributes.get("p", 2) == 2 and (mode == 1 or (mode == 0 and many)):
        return product(pairs, features, 1, 4 * pairs + 2 * (a.elements + b.elements))
    return Work(other_flops=pairs * (3 * features + 1))


@formula("aten.pdist", "aten._pdist_forward")
def pdist(op: Op) -> Work:
    # a: [n, m] -> [n (n - 1) / 2]: difference, power and sum of every feature, and a root
    return Work(other_flops=op.outputs[0].elements * (3 * op.inputs[0].shape[-1] + 1))


@formula("aten.embedding_bag", "aten._embedding_bag", "aten._embedding_bag_forward_only")
def embedding_bag(op: Op) -> Work:
    # table: [n, d], ids: [k], offsets: [bags], weights of each id or none -> [bags, d]: every row is added
    # once, and weighted before where it has a weight; only rows that are picked are read
    table, ids = op.inputs[:2]
    width = table.shape[1]
    weighted = any(t.shape == ids.shape and not t.dtype.startswith("int") for t in op.inputs[2:])
    read = min(table.bytes, ids.elements * table.bytes // table.shape[0])
    return Work(other_flops=ids.elements * width * (2 if weighted else 1), read={0: read})


@formula("aten.affine_grid_generator", "aten.cudnn_affine_grid_generator")
def affine_grid(op: Op) -> Work:
    # theta: [b, 2, 3] or [b, 3, 4] times the homogeneous place of every pixel -> [b, *, 2 or 3]
    return product(op.outputs[0].elements, op.inputs[0].shape[-1], 1)
