"""Formulas of work done on each element: one operation for each arithmetic step, comparison or function."""

from __future__ import annotations

from roofleet_analysis.costs.registry import FORMULAS, Op, Work, formula

SOFTMAX = 5  # largest, difference, exponential, sum, quotient
GELU = 5  # scale, error function, add, two products; the tanh form is counted the same
LAYER_NORM = 7  # sum, difference, square, sum, scale by the root, weight, bias

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
        "acos", "acosh", "angle", "asin", "asinh", "atan", "atanh", "copysign", "cosh", "deg2rad", "digamma",
        "equal", "erfinv", "float_power", "fmax", "fmin", "frac", "frexp", "gcd", "heaviside", "hypot", "i0",
        "igamma", "igammac", "isneginf", "isposinf", "lcm", "ldexp", "lgamma", "log10", "logaddexp2",
        "nan_to_num", "nextafter", "polygamma", "positive", "rad2deg", "relu6", "sgn", "signbit", "sinc",
        "sinh", "trunc", "fix", "conj_physical", "_conj_physical", "special_zeta", "special_xlog1py",
        "special_entr", "hardshrink", "softshrink", "rrelu", "__lshift__", "__rshift__", "__ilshift__",
        "__irshift__", "__iand__", "__ior__", "__ixor__", "cumprod", "cummax", "cummin",
        "logcumsumexp", "masked_scatter", "arccos", "arcsin", "arctan", "arctan2", "diff", "bucketize",
        "searchsorted",
    ),
    2: ("addcmul", "addcdiv", "lerp", "hardtanh", "hardsigmoid", "softsign"),
    3: ("softplus", "log_sigmoid", "elu", "celu", "selu", "logit", "cross", "linalg_cross", "mvlgamma"),
    4: ("silu", "hardswish", "mish"),  # silu: negate, exponential, add, divide
    GELU: ("gelu", "glu"),  # glu: the gate's sigmoid of four, and a product
}  # fmt: skip

# operations for each element of the first input
_PER_INPUT: dict[int, tuple[str, ...]] = {
    1: (
        "sum", "mean", "amax", "amin", "max", "min", "argmax", "argmin", "any", "all", "prod", "norm",
        "linalg_vector_norm", "count_nonzero",
        "nansum", "nanmean", "aminmax", "linalg_norm", "frobenius_norm", "trace", "median", "nanmedian",
        "kthvalue", "mode", "linalg__powsum",
    ),
    3: ("var", "std", "var_mean", "std_mean"),
    # square, sum, scale by the root, weight; largest, difference, exponential, sum
    4: ("rms_norm", "_fused_rms_norm", "logsumexp", "special_logsumexp", "renorm",
        "_weight_norm", "_weight_norm_interface", "norm_except_dim",
   ),
    LAYER_NORM: ("layer_norm", "group_norm", "native_layer_norm", "native_group_norm", "instance_norm"),
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


# Of these nobody writes in place, and the series behind each is counted as the one function it is.
for _name in (
    "airy_ai", "bessel_j0", "bessel_j1", "bessel_y0", "bessel_y1", "chebyshev_polynomial_t",
    "chebyshev_polynomial_u", "chebyshev_polynomial_v", "chebyshev_polynomial_w", "erfcx",
    "hermite_polynomial_h", "hermite_polynomial_he", "i0e", "i1", "i1e", "laguerre_polynomial_l",
    "legendre_polynomial_p", "log_ndtr", "modified_bessel_i0", "modified_bessel_i1", "modified_bessel_k0",
    "modified_bessel_k1", "ndtri", "scaled_modified_bessel_k0", "scaled_modified_bessel_k1",
    "shifted_chebyshev_polynomial_t", "shifted_chebyshev_polynomial_u", "shifted_chebyshev_polynomial_v",
    "shifted_chebyshev_polynomial_w", "spherical_bessel_j0",
):  # fmt: skip
    FORMULAS[f"aten.special_{_name}"] = FORMULAS["aten.exp"]


@formula(
    "aten.batch_norm", "aten.native_batch_norm", "aten._native_batch_norm_legit", "aten.cudnn_batch_norm",
    "aten._native_batch_norm_legit_no_training", "aten._batch_norm_no_update", "aten.miopen_batch_norm",
    "aten._batch_norm_with_update", "aten._batch_norm_impl_index", "aten.quantized_batch_norm",
)  # fmt: skip
def batch_norm(op: Op) -> Work:
    # x: [b, c, *]: difference, scale by the root, weight, bias; in training the sums of mean and variance too
    each = LAYER_NORM if op.attributes.get("training") else 4
    return Work(other_flops=each * op.inputs[0].elements)


@formula("aten.topk", "aten.sort", "aten.argsort")
def select_largest(op: Op) -> Work:
    # at least one comparison an element; sorting fully would take log2(n) of them
    return Work(other_flops=op.inputs[0].elements)


@formula("aten.histc", "aten.bincount", "aten.one_hot")
def count(op: Op) -> Work:
    # one addition an element
    return Work(other_flops=op.inputs[0].elements)
