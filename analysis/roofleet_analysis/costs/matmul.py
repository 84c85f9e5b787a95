"""Formulas of matrix products: two operations for every multiply-add."""

from __future__ import annotations

from roofleet_analysis.costs.registry import Op, Work, formula


def product(rows: int, inner: int, columns: int, extra: int = 0) -> Work:
    """[rows, inner] @ [inner, columns], and `extra` operations that are none of the product."""
    # A product over an inner dimension of 1 adds nothing up: an outer product is elementwise work. (Rotary
    # embeddings make their angles that way, and a model's matrix work must not depend on it.)
    if inner == 1:
        return Work(other_flops=rows * columns + extra)
    return Work(matmul_flops=2 * rows * inner * columns, other_flops=extra)


@formula("aten.linear", "quantized.linear_dynamic", "quantized.linear", "quantized.linear_dynamic_fp16")
def linear(op: Op) -> Work:
    # x: [..., k] @ w: [n, k] -> [..., n]; a bias is one addition for each output
    w = op.inputs[1]
    out = op.outputs[0].elements
    inner = w.shape[-1]
    return product(out, inner, 1, out if len(op.inputs) > 2 else 0)


@formula("aten.mm", "aten._int_mm", "aten._scaled_mm")
def mm(op: Op) -> Work:
    # a: [m, k] @ b: [k, n] -> [m, n]
    a, b = op.inputs[:2]
    return product(a.shape[0], a.shape[1], b.shape[1])


@formula("aten._weight_int8pack_mm", "aten._weight_int4pack_mm", "aten._weight_int4pack_mm_for_cpu")
def packed_mm(op: Op) -> Work:
    # a: [m, k] @ packed w -> [m, n]: w has another shape in every packing, so inputs and outputs tell
    return product(op.outputs[0].elements, op.inputs[0].shape[-1], 1)


@formula("aten.addmm")
def addmm(op: Op) -> Work:
    # c: [n] or [m, n], a: [m, k] @ b: [k, n] -> [m, n]
    _, a, b = op.inputs[:3]
    return product(a.shape[0], a.shape[1], b.shape[1], op.outputs[0].elements)


@formula("aten.bmm")
def bmm(op: Op) -> Work:
    # a: [b, m, k] @ b: [b, k, n] -> [b, m, n]
    a, b = op.inputs[:2]
    return product(a.shape[0] * a.shape[1], a.shape[2], b.shape[2])


@formula("aten.baddbmm")
def baddbmm(op: Op) -> Work:
    # c, a: [b, m, k] @ b: [b, k, n] -> [b, m, n]
    _, a, b = op.inputs[:3]
    return product(a.shape[0] * a.shape[1], a.shape[2], b.shape[2], op.outputs[0].elements)


@formula("aten.matmul")
def matmul(op: Op) -> Work:
    # a: [..., m, k] @ b: [..., k, n] -> [..., m, n]; a vector on either side has no m or n
    a, out = op.inputs[0], op.outputs[0]
    inner = a.shape[-1]
    return product(out.elements, inner, 1)


@formula("aten.mv", "aten.dot", "aten.vdot")
def vector(op: Op) -> Work:
    # a: [m, k] @ b: [k] -> [m]; of two vectors -> one number
    return product(op.outputs[0].elements, op.inputs[1].shape[0], 1)


@formula("aten.outer", "aten.ger")
def outer(op: Op) -> Work:
    # a: [m], b: [n] -> [m, n]
    return Work(other_flops=op.outputs[0].elements)


@formula("aten.conv1d", "aten.conv2d", "aten.convolution")
def convolution(op: Op) -> Work:
    # x: [b, c_in, *], w: [c_out, c_in / groups, *kernel] -> [b, c_out, *]
    w, out = op.inputs[1], op.outputs[0]
    inner = w.elements // w.shape[0]
    return product(out.elements, inner, 1, out.elements if len(op.inputs) > 2 else 0)
