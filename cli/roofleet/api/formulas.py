"""Cost formulas for operators of the user's own: registered in their code, and sent along with a run."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from roofleet_analysis.costs.registry import FORMULAS, Formula, Op, Tensor, Work, cost_of, dotted
from roofleet_analysis.costs.registry import formula as register

if TYPE_CHECKING:
    from roofleet_agent.tracing import TracedOp

_own: dict[str, Formula] = {}


def formula(*names: str) -> Callable[[Formula], Formula]:
    """Registers what an operator costs, for one that Roofleet does not know, such as a kernel of your own.

        @roofleet.formula("mylib::scan")
        def scan(op: roofleet.Op) -> roofleet.Work:
            # x: [batch, tokens, features]: two operations an element
            return roofleet.Work(other_flops=2 * op.inputs[0].elements)

    `op.inputs` and `op.outputs` have `shape`, `dtype`, `role` (`weight`, `kv` or `activation`), `bytes` and
    `elements`; `op.attributes` holds the other arguments. Bytes are those of all operands unless the Work
    says otherwise. A name is that of the operator, not of an overload. Registering again replaces the
    formula; ValueError for a name without a namespace and for an operator that Roofleet has a formula for.
    """
    operators = [dotted(name) for name in names]

    def take(function: Formula) -> Formula:
        for name in operators:
            if name in _own:
                del FORMULAS[name]
            register(name)(_guarded(function))
            _own[name] = function
        return function

    return take


def forget(*names: str) -> None:
    """Takes formulas of the user's own out again."""
    for name in map(dotted, names):
        if name in _own:
            del FORMULAS[name], _own[name]


def stated_cost(op: TracedOp) -> str | None:
    """JSON of what an op costs by the user's own formula, for those who have not the formula; None without.

    A formula that fails leaves its op unknown, and the user is warned.
    """
    if op.op not in _own:
        return None
    inputs, outputs = ([Tensor(**asdict(t)) for t in side] for side in (op.inputs, op.outputs))
    given = Op(op.op, tuple(inputs), tuple(outputs), op.is_view, op.attributes)
    try:
        work = _own[op.op](given)
        _check(work)
    except Exception as error:  # whatever the user's code raises, the run is worth more
        shapes = ", ".join(str(list(t.shape)) for t in op.inputs)
        warnings.warn(
            f"the formula for {op.op} failed on inputs {shapes}: {type(error).__name__}: {error}. "
            "Its cost stays unknown",
            stacklevel=2,
        )
        return None
    cost = cost_of(given)
    return None if cost is None else json.dumps(asdict(cost))


def _check(work: Any) -> None:
    """ValueError for what is no Work, or whose figures are no whole numbers that can be stored."""
    if not isinstance(work, Work):
        raise ValueError(f"it returned {type(work).__name__}; it must return roofleet.Work")
    stated = [figure for figure in (work.causal_flops, work.needed_flops) if figure is not None]
    figures = [work.matmul_flops, work.other_flops, *stated, *work.read.values(), *work.written.values()]
    for figure in figures:
        if not isinstance(figure, int) or not 0 <= figure < 2**62:
            raise ValueError(f"a figure is {figure!r}; it must be a whole number from 0 to 2^62")


def _guarded(function: Formula) -> Formula:
    """The same for `cost_of`, to which an op is unknown when its formula cannot tell: whatever goes wrong."""

    def guarded(op: Op) -> Work:
        try:
            work = function(op)
        except Exception as error:
            raise ValueError(str(error)) from error
        _check(work)
        return work

    return guarded
