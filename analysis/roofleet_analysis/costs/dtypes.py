"""The type an op computes in, which decides the roof it is held against."""

from __future__ import annotations

from roofleet_analysis.costs.registry import Op

QUANTIZED = {
    "quantized.linear": "int8",
    "quantized.linear_dynamic": "int8",
    "quantized.linear_dynamic_fp16": "fp16",
    "aten._int_mm": "int8",
    "aten._scaled_mm": "fp8",
    "aten._scaled_grouped_mm": "fp8",
}
"""Operators that multiply in another type than the one their first operand arrives in."""
_FLOATING = ("fp64", "fp32", "bf16", "fp16", "fp8")


def computing_dtype(op: Op) -> str | None:
    """The type an op computes in; None for one without tensors.

    The first floating operand tells: a weight that is stored in fewer bits than its input is unpacked to the
    input's type before it is multiplied (`int8-weight-only`), unless the input is quantised on the way, which
    the tracer notes in the attribute `quantized_input`. Without floating operands the first one tells.
    """
    noted = op.attributes.get("quantized_input")
    if isinstance(noted, str):
        return noted
    if op.name in QUANTIZED:
        return QUANTIZED[op.name]
    tensors = [*op.inputs, *op.outputs]
    return next((t.dtype for t in tensors if t.dtype in _FLOATING), tensors[0].dtype if tensors else None)
