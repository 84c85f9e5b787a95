"""Formulas of convolutions: every output sums a window, or every input is spread over one."""

from __future__ import annotations

from dataclasses import replace

from roofleet_analysis.costs.matmul import product
from roofleet_analysis.costs.registry import FORMULAS, Op, Work, formula


@formula(
    "aten.conv1d", "aten.conv2d", "aten.conv3d", "aten._convolution_mode", "aten.mkldnn_convolution",
    "aten.cudnn_convolution", "aten.miopen_convolution", "aten._mps_convolution",
    "aten.miopen_depthwise_convolution", "aten._conv_depthwise2d", "aten.conv_depthwise3d",
    "aten._slow_conv2d_forward", "aten.thnn_conv2d", "aten.slow_conv3d", "aten.slow_conv3d_forward",
    "aten.slow_conv_dilated2d", "aten.slow_conv_dilated3d", "aten._nnpack_spatial_convolution",
    "quantized.conv1d", "quantized.conv2d", "quantized.conv3d", "quantized.conv1d_dynamic",
    "quantized.conv2d_dynamic", "quantized.conv3d_dynamic",
)  # fmt: skip
def convolution(op: Op) -> Work:
    # x: [b, c_in, *], w: [c_out, c_in / groups, *kernel] -> [b, c_out, *]: an output has the same window
    # whatever its dilation, and padding is counted like the rest
    w, out = op.inputs[1], op.outputs[0]
    inner = w.elements // w.shape[0]
    work = product(out.elements, inner, 1, out.elements if len(op.inputs) > 2 else 0)
    return replace(work, needed_flops=_needed(op, work))


def _needed(op: Op, work: Work) -> int:
    """Of the matrix work what falls on the input and not on padding around it. Of a depthwise one over time
    nothing: state-space models cut off a part of what it gives, and how much cannot be seen here."""
    x, w, out, given = op.inputs[0], op.inputs[1], op.outputs[0], op.attributes
    if len(w.shape) == 3 and given.get("groups", 1) > 1:
        return 0
    padding, stride, dilation = given.get("padding"), given.get("stride"), given.get("dilation")
    needed = work.matmul_flops
    if not (isinstance(padding, list) and isinstance(stride, list) and isinstance(dilation, list)):
        return needed
    for size, kernel, made, before, step, apart in zip(
        x.shape[2:], w.shape[2:], out.shape[2:], padding, stride, dilation, strict=False
    ):
        if kernel > _WIDEST:
            continue
        inside = sum(_within(size, made, before - tap * apart, step) for tap in range(kernel))
        needed = needed * inside // (made * kernel)
    return needed


_WIDEST = 1024
"""Kernels wider than that are taken to have no padding worth looking for."""


def _within(size: int, made: int, before: int, step: int) -> int:
    """How many of so many positions, `step` apart from `before` places ahead of the input, lie on it."""
    first = max(-(-before // step), 0)
    last = min((size - 1 + before) // step, made - 1)
    return max(last - first + 1, 0)


@formula(
    "aten.conv_transpose1d", "aten.conv_transpose2d", "aten.conv_transpose3d",
    "aten.cudnn_convolution_transpose", "aten.miopen_convolution_transpose",
    "aten._mps_convolution_transpose", "aten.slow_conv_transpose2d", "aten.slow_conv_transpose3d",
    "quantized.conv_transpose1d", "quantized.conv_transpose2d", "quantized.conv_transpose3d",
    "quantized.conv_transpose1d_dynamic", "quantized.conv_transpose2d_dynamic",
    "quantized.conv_transpose3d_dynamic",
)  # fmt: skip
def transposed_convolution(op: Op) -> Work:
    # x: [b, c_in, *], w: [c_in, c_out / groups, *kernel] -> [b, c_out, *]: every input is multiplied by its
    # channel's kernels and added to the outputs; output_padding adds outputs and no work
    x, w, out = op.inputs[0], op.inputs[1], op.outputs[0]
    bias = out.elements if len(op.inputs) > 2 else 0
    return Work(matmul_flops=2 * x.elements * (w.elements // w.shape[0]), other_flops=bias)


@formula("aten.convolution", "aten._convolution", "aten.convolution_overrideable")
def either_convolution(op: Op) -> Work:
    # the general operator, which says whether it is a transposed one
    return transposed_convolution(op) if op.attributes.get("transposed") else convolution(op)


@formula("aten.conv_tbc")
def convolution_tbc(op: Op) -> Work:
    # x: [t, b, c_in], w: [kernel, c_in, c_out], bias -> [t, b, c_out]
    w, out = op.inputs[1], op.outputs[0]
    return product(out.elements, w.shape[0] * w.shape[1], 1, out.elements)


def _with_relu(op: Op) -> Work:
    # and what is compared with 0 afterwards, added to before where a third operand of its shape comes
    work, out = convolution(op), op.outputs[0].elements
    return Work(work.matmul_flops, work.other_flops + out * (2 if "add" in op.name else 1))


for _name in (
    "aten.cudnn_convolution_relu", "aten.cudnn_convolution_add_relu", "aten.miopen_convolution_relu",
    "aten.miopen_convolution_add_relu", "quantized.conv1d_relu", "quantized.conv2d_relu",
    "quantized.conv3d_relu", "quantized.conv2d_add", "quantized.conv2d_add_relu",
):  # fmt: skip
    FORMULAS[_name] = _with_relu
