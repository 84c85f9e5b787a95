"""Cost formulas: floating-point operations and bytes of an op, from its shapes and dtypes alone."""

from roofleet_analysis.costs import attention, data, einsum, elementwise, experts, matmul, recurrent
from roofleet_analysis.costs.registry import (
    FORMULA_VERSION,
    FORMULAS,
    Cost,
    Op,
    Tensor,
    Work,
    cost_of,
    formula,
)
from roofleet_analysis.costs.rows import derive_op_costs

__all__ = [
    "FORMULAS",
    "FORMULA_VERSION",
    "Cost",
    "Op",
    "Tensor",
    "Work",
    "attention",
    "cost_of",
    "data",
    "derive_op_costs",
    "einsum",
    "elementwise",
    "experts",
    "formula",
    "matmul",
    "recurrent",
]
