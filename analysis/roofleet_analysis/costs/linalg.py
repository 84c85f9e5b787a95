"""Formulas of solvers and factorisations: the counts of LAPACK (its Installation Guide, appendix C).

They are no matrix products, and no device reaches its roof in them: all of it is `other_flops`. What iterates
until it converges, such as a singular value decomposition, has no formula: its work depends on the values.
"""

from __future__ import annotations

from collections.abc import Callable

from roofleet_analysis.costs.registry import FORMULAS, Op, Work, formula


def _of_square(operations: Callable[[int], int]) -> Callable[[Op], Work]:
    def rule(op: Op) -> Work:
        # a: [..., n, n]
        a = op.inputs[0]
        n = a.shape[-1]
        return Work(other_flops=a.elements // n**2 * operations(n))

    return rule


# Factors, and what follows from them: a determinant, an inverse from its columns.
for _names, _operations in (
    (("cholesky", "linalg_cholesky", "linalg_cholesky_ex"), lambda n: n**3 // 3),
    (("linalg_lu_factor", "linalg_lu_factor_ex", "_lu_with_info", "linalg_lu", "linalg_ldl_factor",
      "linalg_ldl_factor_ex"), lambda n: 2 * n**3 // 3),
    (("det", "linalg_det", "_linalg_det", "logdet", "slogdet", "linalg_slogdet", "_linalg_slogdet"),
     lambda n: 2 * n**3 // 3 + n),
    (("inverse", "linalg_inv", "linalg_inv_ex"), lambda n: 2 * n**3),
    (("cholesky_inverse",), lambda n: 2 * n**3 // 3),
):  # fmt: skip
    for _name in _names:
        FORMULAS[f"aten.{_name}"] = _of_square(_operations)


def _solved(matrix: int, right: int, factored: bool, triangles: int) -> Callable[[Op], Work]:
    def rule(op: Op) -> Work:
        # a: [..., n, n], b: [..., n, k] or [..., n]: one triangle is n^2 operations a column
        a, b = op.inputs[matrix], op.inputs[right]
        n = a.shape[-1]
        batch = a.elements // n**2
        columns = max(b.elements // (batch * n), 1)
        return Work(other_flops=batch * ((2 * n**3 // 3 if factored else 0) + triangles * n**2 * columns))

    return rule


FORMULAS["aten.linalg_solve"] = FORMULAS["aten.linalg_solve_ex"] = _solved(0, 1, True, 2)
FORMULAS["aten._linalg_solve_ex"] = _solved(0, 1, True, 2)
FORMULAS["aten.linalg_solve_triangular"] = _solved(0, 1, False, 1)
FORMULAS["aten.triangular_solve"] = _solved(1, 0, False, 1)
FORMULAS["aten.cholesky_solve"] = FORMULAS["aten._cholesky_solve_helper"] = _solved(1, 0, False, 2)
FORMULAS["aten.lu_solve"] = _solved(1, 0, False, 2)
FORMULAS["aten.linalg_lu_solve"] = _solved(0, 2, False, 2)
FORMULAS["aten.linalg_ldl_solve"] = _solved(0, 2, False, 2)


@formula("aten.qr", "aten.linalg_qr", "aten.geqrf")
def qr(op: Op) -> Work:
    # a: [..., m, n] with k = min(m, n) reflections; forming q takes as much again as 4 m^2 n says less what
    # they have in common
    a = op.inputs[0]
    m, n = a.shape[-2:]
    k = min(m, n)
    factors = 2 * m * n * k - (m + n) * k**2 + 2 * k**3 // 3
    wanted = op.name != "aten.geqrf" and op.attributes.get("mode") != "r"
    columns = m if op.attributes.get("mode") == "complete" or op.attributes.get("some") is False else k
    return Work(other_flops=a.elements // (m * n) * (factors + (_orthogonal(m, columns, k) if wanted else 0)))


@formula("aten.linalg_householder_product", "aten.orgqr")
def householder_product(op: Op) -> Work:
    # a: [..., m, n], tau: [..., k]
    a, tau = op.inputs[:2]
    m, n = a.shape[-2:]
    return Work(other_flops=a.elements // (m * n) * _orthogonal(m, n, tau.shape[-1]))


@formula("aten.ormqr")
def multiplied_by_q(op: Op) -> Work:
    # a: [..., m, k] reflections, tau: [..., k], c: [..., m, n] -> q @ c: 4 m n k - 2 n k^2, or from the right
    tau, c = op.inputs[1:3]
    m, n = c.shape[-2:]
    k = tau.shape[-1]
    mine, other = (m, n) if op.attributes.get("left", True) else (n, m)
    return Work(other_flops=c.elements // (m * n) * (4 * m * n * k - 2 * other * k**2) if mine else 0)


def _orthogonal(m: int, n: int, k: int) -> int:
    """Forming q: [m, n] out of k reflections."""
    return 4 * m * n * k - 2 * (m + n) * k**2 + 4 * k**3 // 3


@formula("aten.linalg_tensorinv")
def tensorinv(op: Op) -> Work:
    # a: [*, *] that is a square [n, n] when folded
    n = round(op.inputs[0].elements ** 0.5)
    return Work(other_flops=2 * n**3)


@formula("aten.linalg_tensorsolve")
def tensorsolve(op: Op) -> Work:
    # a: [*, *] folded to [n, n], b: [n] when folded
    n = op.inputs[1].elements
    return Work(other_flops=2 * n**3 // 3 + 2 * n**2)
