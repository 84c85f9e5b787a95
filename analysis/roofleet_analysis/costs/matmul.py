"""Formulas of matrix products: two operations for every multiply-add."""

from __future__ import annotations

from roofleet_analysis.costs.registry import Op, Work, formula


def _product(rows: int, inner: int, columns: int, extra: int = 0) -> Work:
    # A product over an inner dimension of 1 adds nothing up: an outer product is elementwise work. (Rotary
    # embeddings make their angles that way, and a model's matrix work must not depend on it.)
    if inner == 1:
        return Work(other_flops=rows * columns + extra)
    return Work(matmul_flops=2 * rows * inner * columns, other_flops=extra)


@formula("aten.linear")
def linear(op: Op) -> Work:
    # x: [..., k] @ w: [n, k] -> [..., n]; a bias is one addition for each output
    w = op.inputs[1]
    out = op.outputs[0].elements
    inner = w.shape[-1]
    return _product(out, inner, 1, out if len(op.inputs) > 2 else 0)


@formula("aten.mm")
def mm(op: Op) -> Work:
    # a: [m, k] @ b: [k, n] -> [m, n]
    a, b = op.inputs[:2]
    return _product(a.shape[0], a.shape[1], b.shape[1])


@formula("aten.addmm")
def addmm(op: Op) -> Work:
    # c: [n] or [m, n], a: [m, k] @ b: [k, n] -> [m, n]
    _, a, b = op.inputs[:3]
    return _product(a.shape[0], a.shape[1], b.shape[1], op.outputs[0].elements)


@formula("aten.bmm")
def bmm(op: Op) -> Work:
    # a: [b, m, k] @ b: [b, k, n] -> [b, m, n]
    a, b = op.inputs[:2]
    return _product(a.shape[0] * a.shape[1], a.shape[2], b.shape[2])


@formula("aten.baddbmm")
def baddbmm(op: Op) -> Work:
    # c, a: [b, m, k] @ b: [b, k, n] -> [b, m, n]
    _, a, b = op.inputs[:3]
    return _product(a.shape[0] * a.shape[1], a.shape[2], b.shape[2], op.outputs[0].elements)


@formula("aten.matmul")
def matmul(op: Op) -> Work:
    # a: [..., m, k] @ b: [..., k, n] -> [..., m, n]; a vector on either side has no m or n
    a, out = op.inputs[0], op.outputs[0]
    inner = a.shape[-1]
    return _product(out.elements, inner, 1)


@formula("aten.mv", "aten.dot", "aten.vdot")
def vector(op: Op) -> Work:
    # a: [m, k] @ b: [k] -> [m]; of two vectors -> one number
    return _product(op.outputs[0].elements, op.inputs[1].shape[0], 1)


@formula("aten.outer", "aten.ger")
def outer(op: Op) -> Work:
    # a: [m], b: [n] -> [m, n]
    return Work(other_flops=op.outputs[0].elements)


@formula("aten.einsum")
def einsum(op: Op) -> Work:
    # "bsd,hd->bsh": every combination of all letters is one multiply-add; with more than two operands the
    # order decides and shapes do not tell it, so that is left unknown (by the unpacking)
    left, _, right = op.attributes["equation"].replace(" ", "").partition("->")
    first, second = left.split(",")
    sizes = dict(zip(first, op.inputs[0].shape, strict=True)) | dict(
        zip(second, op.inputs[1].shape, strict=True)
    )
    inner = 1
    for letter, size in sizes.items():
        inner *= size if letter not in right else 1
    return _product(op.outputs[0].elements, inner, 1)


@formula("aten.conv1d", "aten.conv2d", "aten.convolution")
def convolution(op: Op) -> Work:
    # x: [b, c_in, *], w: [c_out, c_in / groups, *kernel] -> [b, c_out, *]
    w, out = op.inputs[1], op.outputs[0]
    inner = w.elements // w.shape[0]
    return _product(out.elements, inner, 1, out.elements if len(op.inputs) > 2 else 0)


@formula("aten._grouped_mm")
def grouped_mm(op: Op) -> Work:
    # a: [t, k], w: [experts, k, n], offsets: [experts] -> [t, n]: every row meets one expert's matrix.
    # Shapes do not say which experts a batch meets: counted are the distinct ones that tokens meet on
    # average when each goes to k different experts of E, spread evenly: E * (1 - (1 - k/E)^tokens).
    a, w, out = op.inputs[0], op.inputs[1], op.outputs[0]
    if len(w.shape) == 2:  # both sides ragged: the groups share the inner dimension
        return Work(matmul_flops=2 * a.shape[0] * a.shape[1] * w.shape[1])
    experts = w.shape[0]
    k = min(op.attributes.get("experts_per_token", 1), experts)
    touched = experts * (1 - (1 - k / experts) ** (a.shape[0] / k))
    return Work(
        matmul_flops=2 * a.elements * out.shape[-1],
        read={1: min(w.bytes, round(w.bytes * touched / experts))},
    )
