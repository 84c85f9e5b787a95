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


@formula(
    "aten.linear", "aten.mkldnn_linear", "aten._mixed_dtypes_linear", "aten.fbgemm_linear_int8_weight",
    "aten.fbgemm_linear_int8_weight_fp32_activation", "aten.fbgemm_linear_fp16_weight",
    "aten.fbgemm_linear_fp16_weight_fp32_activation", "quantized.linear", "quantized.linear_relu",
    "quantized.linear_leaky_relu", "quantized.linear_tanh", "quantized.linear_dynamic",
    "quantized.linear_relu_dynamic", "quantized.linear_dynamic_fp16", "quantized.linear_relu_dynamic_fp16",
    "quantized.linear_dynamic_fp16_unpacked_weight",
)  # fmt: skip
def linear(op: Op) -> Work:
    # x: [..., k] @ w: [n, k] -> [..., n]; a bias is one addition for each output
    x, out = op.inputs[0], op.outputs[0].elements
    return product(out, x.shape[-1], 1, out if len(op.inputs) > 2 else 0)


@formula("aten.mm", "aten._int_mm", "aten._scaled_mm", "aten._scaled_mm_v2", "aten.linalg_matmul",
         "quantized.matmul")  # fmt: skip
def mm(op: Op) -> Work:
    # a: [m, k] @ b: [k, n] -> [m, n]; scales of fp8 operands follow them
    return matmul(op)


@formula(
    "aten._weight_int8pack_mm", "aten._weight_int4pack_mm", "aten._weight_int4pack_mm_for_cpu",
    "aten._weight_int4pack_mm_with_scales_and_zeros", "aten._dyn_quant_matmul_4bit",
    "aten._wrapped_quantized_linear_prepacked", "quantized.int4mm_packed_weight_cpu",
)  # fmt: skip
def packed_mm(op: Op) -> Work:
    # a: [m, k] @ packed w -> [m, n]: w has another shape in every packing, so inputs and outputs tell
    return product(op.outputs[0].elements, op.inputs[0].shape[-1], 1)


@formula("aten.addmm", "aten.addmm_", "aten._addmm_activation")
def addmm(op: Op) -> Work:
    # c: [n] or [m, n], a: [m, k] @ b: [k, n] -> [m, n]; an activation fused to it is one operation more
    _, a, b = op.inputs[:3]
    out = op.outputs[0].elements
    return product(a.shape[0], a.shape[1], b.shape[1], out * (2 if op.name.endswith("activation") else 1))


@formula("aten.bmm")
def bmm(op: Op) -> Work:
    # a: [b, m, k] @ b: [b, k, n] -> [b, m, n]
    a, b = op.inputs[:2]
    return product(a.shape[0] * a.shape[1], a.shape[2], b.shape[2])


@formula("aten.baddbmm", "aten.baddbmm_")
def baddbmm(op: Op) -> Work:
    # c, a: [b, m, k] @ b: [b, k, n] -> [b, m, n]
    _, a, b = op.inputs[:3]
    return product(a.shape[0] * a.shape[1], a.shape[2], b.shape[2], op.outputs[0].elements)


@formula("aten.addbmm", "aten.addbmm_")
def addbmm(op: Op) -> Work:
    # c, a: [b, m, k] @ b: [b, k, n], the batch added up too -> [m, n]
    _, a, b = op.inputs[:3]
    return product(a.shape[1], a.shape[0] * a.shape[2], b.shape[2], op.outputs[0].elements)


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


@formula("aten.addmv", "aten.addmv_")
def addmv(op: Op) -> Work:
    # c: [m], a: [m, k] @ b: [k] -> [m]
    return product(op.outputs[0].elements, op.inputs[2].shape[0], 1, op.outputs[0].elements)


@formula("aten.outer", "aten.ger", "aten.kron")
def outer(op: Op) -> Work:
    # a: [m], b: [n] -> [m, n], or every element of a matrix with every one of another
    return Work(other_flops=op.outputs[0].elements)


@formula("aten.addr", "aten.addr_")
def addr(op: Op) -> Work:
    # c: [m, n] and a: [m] with b: [n]: a product and a sum for each element
    return Work(other_flops=2 * op.outputs[0].elements)


@formula("aten.inner", "aten.linalg_vecdot")
def inner(op: Op) -> Work:
    # a: [..., k], b: [..., k] -> what is left; a number with anything is an elementwise product
    a, b = op.inputs[:2]
    if not a.shape or not b.shape:
        return Work(other_flops=op.outputs[0].elements)
    return product(op.outputs[0].elements, a.shape[op.attributes.get("dim", -1)], 1)


@formula("aten.cov", "aten.corrcoef")
def covariance(op: Op) -> Work:
    # x: [v, n] -> [v, v]: means, differences, x @ x^T, each scaled by the count, or by both deviations
    x = op.inputs[0]
    variables = x.shape[0] if len(x.shape) > 1 else 1
    extra = 2 * x.elements + variables**2 * (1 if op.name.endswith("cov") else 2)
    return product(variables, x.shape[-1], variables, extra)


@formula("aten.linalg_multi_dot", "aten.chain_matmul")
def chain(op: Op) -> Work:
    # [a, b] @ [b, c] @ [c, d] ...: two at a time in the cheapest order, which torch looks for too; the first
    # and the last may be vectors
    first, *rest = op.inputs
    sizes = [1, *first.shape] if len(first.shape) == 1 else list(first.shape)
    sizes += [t.shape[1] if len(t.shape) > 1 else 1 for t in rest]
    count = len(sizes) - 1
    best = {(i, i): 0 for i in range(count)}
    for length in range(1, count):
        for i in range(count - length):
            j = i + length
            best[i, j] = min(
                best[i, k] + best[k + 1, j] + sizes[i] * sizes[k + 1] * sizes[j + 1] for k in range(i, j)
            )
    return Work(matmul_flops=2 * best[0, count - 1])


@formula("aten.matrix_power", "aten.linalg_matrix_power")
def power(op: Op) -> Work:
    # a: [..., n, n]: squared for every binary digit of the exponent but the first, and once more for each 1
    a, exponent = op.inputs[0], op.attributes["n"]
    if exponent < 0:
        raise ValueError("the inverse of a matrix first")
    products = max(exponent.bit_length() + exponent.bit_count() - 2, 0)
    return product(a.elements * products, a.shape[-1], 1)
