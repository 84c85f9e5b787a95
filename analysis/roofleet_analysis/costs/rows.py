"""Costs of whole tables of ops: rows of `ops` in, rows of `op_costs` out."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import pyarrow as pa

from roofleet_analysis.costs.dtypes import computing_dtype
from roofleet_analysis.costs.registry import FORMULA_VERSION, FORMULAS, Cost, Op, Tensor, cost_of
from roofleet_proto.tables import OP_COSTS


def op_of(row: dict[str, Any]) -> Op:
    """An Op from a row of the `ops` table."""
    return Op(
        name=row["op"],
        inputs=tuple(_tensor(t) for t in row["inputs"]),
        outputs=tuple(_tensor(t) for t in row["outputs"]),
        is_view=row["is_view"],
        attributes=json.loads(row["attributes"]) if row["attributes"] else {},
    )


def _tensor(value: dict[str, Any]) -> Tensor:
    return Tensor(tuple(value["shape"]), value["dtype"], value["role"], value["bytes"])


def derive_op_costs(ops: pa.Table) -> pa.Table:
    """The `op_costs` rows of these `ops` rows, in their order; unknown ops have NULL figures.

    An op that has no formula here costs what a formula stated where it ran, if one did.
    """
    rows = []
    for row in ops.to_pylist():
        op = op_of(row)
        cost = cost_of(op)
        if cost is None and op.name not in FORMULAS:
            cost = stated_cost(row.get("stated_cost"))
        rows.append(_row(row, cost) | {"dtype": computing_dtype(op)})
    return pa.Table.from_pylist(rows, schema=OP_COSTS.schema)


def stated_cost(text: str | None) -> Cost | None:
    """The cost an agent stated, JSON of Cost's fields, those left out being 0; None if it is none."""
    try:
        figures = json.loads(text or "")
        if all(type(figure) is int and 0 <= figure < 2**63 for figure in figures.values()):
            # what agents before 0005 did not state
            figures.setdefault("needed_flops", figures.get("causal_flops", 0))
            cached = figures.get("kv_read_bytes", 0) + figures.get("kv_write_bytes", 0)
            figures.setdefault("needed_kv_bytes", cached)
            return Cost(**figures)
    except (ValueError, TypeError, AttributeError):
        pass
    return None


def _row(op: dict[str, Any], cost: Cost | None) -> dict[str, Any]:
    row = {name: op[name] for name in ("run_id", "phase", "op_index", "path")}
    if cost is not None and max(getattr(cost, name) for name in Cost.__dataclass_fields__) >= 2**63:
        cost = None  # more than a column holds
    row.update(is_known=cost is not None, formula_version=FORMULA_VERSION)
    if cost is not None:
        row.update({name: getattr(cost, name) for name in Cost.__dataclass_fields__})
    return row


def total(costs: Iterable[Cost]) -> Cost:
    """The sum of costs, figure by figure."""
    sums = dict.fromkeys(Cost.__dataclass_fields__, 0)
    for cost in costs:
        for name in sums:
            sums[name] += getattr(cost, name)
    return Cost(**sums)
