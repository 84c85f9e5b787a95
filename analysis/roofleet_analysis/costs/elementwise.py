"""Formulas of work done on each element: one operation for each arithmetic step, comparison or function."""

from __future__ import annotations

from roofleet_analysis.costs.registry import FORMULAS, Op, Work, formula

SOFTMAX = 5  # largest, difference, exponential, sum, quotient

# operations for each element of the output
_PER_OUTPUT: dict[int, tuple[str, ...]] = {
    1: (
        "add", "sub", "rsub", "mul", "div", "neg", "abs", "pow", "square", "sqrt", "rsqrt", "reciprocal",
        "exp", "log", "sin", "cos", "tanh", "sigmoid", "erf", "relu", "clamp", "clamp_min", "clamp_max",
        "maximum", "minimum", "eq", "ne", "lt", "le", "gt", "ge", "logical_and", "logical_or",
        "logical_not", "logical_xor", "bitwise_and", "bitwise_or", "bitwise_not", "bitwise_right_shift",
        "bitwise_left_shift", "bitwise_xor", "__and__", "__or__", "__xor__", "where", "masked_fill",
        "floor_divide", "floor", "ceil", "round", "remainder", "fmod", "sign", "threshold", "leaky_relu",
        "log1p", "expm1", "tril", "triu", "cumsum", "isnan", "isinf", "isin", "true_divide", "atan2",
        "log2", "exp2", "greater", "greater_equal", "less", "less_equal", "not_equal", "multiply", "subtract",
        "divide", "negative", "absolute", "clip", "tan", "erfc", "isfinite", "xlogy", "logaddexp", "prelu",
    ),
    2: ("addcmul", "addcdiv", "lerp", "hardtanh", "hardsigmoid", "softsign"),
    3: ("softplus", "log_sigmoid", "elu"),
    4: ("silu", "hardswish", "mish"),  # silu: negate, exponential, add, divide
    5: ("gelu",),  # scale, error function, add, two products; the tanh form is counted the same
}  # fmt: skip

# operations for each element of the first input
_PER_INPUT: dict[int, tuple[str, ...]] = {
    1: (
        "sum", "mean", "amax", "amin", "max", "min", "argmax", "argmin", "any", "all", "prod", "norm",
        "linalg_vector_norm", "count_nonzero",
    ),
    3: ("var", "std", "var_mean"),
    4: ("rms_norm",),  # square, sum, scale by the root, weight
    7: ("layer_norm", "group_norm", "native_layer_norm", "batch_norm"),
    # layer_norm: sum, difference, square, sum, scale by the root, weight, bias
}  # fmt: skip


def _per_output(operations: int) -> None:
    def rule(op: Op) -> Work:
        return Work(other_flops=operations * op.outputs[0].elements)

    rule.__name__ = f"{operations} per output"
    for name in _PER_OUTPUT[operations]:
        # a name with an underscore is the same work in place
        FORMULAS[f"aten.{name}"] = rule
        FORMULAS[f"aten.{name}_"] = rule


def _per_input(operations: int) -> None:
    def rule(op: Op) -> Work:
        return Work(other_flops=operations * op.inputs[0].elements)

    rule.__name__ = f"{operations} per input"
    for name in _PER_INPUT[operations]:
        FORMULAS[f"aten.{name}"] = rule


for _operations in _PER_OUTPUT:
    _per_output(_operations)
for _operations in _PER_INPUT:
    _per_input(_operations)


@formula("aten.softmax", "aten._softmax", "aten.log_softmax", "aten._log_softmax", "aten._safe_softmax")
def softmax(op: Op) -> Work:
    # each element once through largest, difference, exponential, sum, quotient
    return Work(other_flops=SOFTMAX * op.inputs[0].elements)


@formula("aten.topk", "aten.sort", "aten.argsort")
def select_largest(op: Op) -> Work:
    # at least one comparison an element; sorting fully would take log2(n) of them
    return Work(other_flops=op.inputs[0].elements)


@formula("aten.histc", "aten.bincount", "aten.one_hot")
def count(op: Op) -> Work:
    # one addition an element
    return Work(other_flops=op.inputs[0].elements)
