"""Operators of a user's own: unknown by name, and known where the user says what they cost."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.own_ops import with_formula, without_formula
from tests.support import ListSink, collector, roofed
from tests.support import roofleet as command

import roofleet
from roofleet.analyzing.analysis import phase_cost
from roofleet.api import formulas
from roofleet_agent.tracing import TracedOp, TracedTensor, trace
from roofleet_analysis.costs import FORMULAS, Cost, derive_op_costs
from roofleet_analysis.costs.rows import stated_cost

OWN = ("roofleet_tests.scan", "roofleet_tests.double_", "roofleet_tests.kernel")


@pytest.fixture(autouse=True)
def forget() -> Iterator[None]:
    """What a test registers is gone after it."""
    yield
    formulas.forget(*OWN)


def test_unknown_operators_are_named() -> None:
    """A custom op, one that only writes into its argument and one made for Triton come out by name."""
    model, x = without_formula()
    traced = trace(model, lambda: model(x))
    assert [op.op for op in traced.ops] == [OWN[0], "aten.linear", OWN[1], OWN[2]]
    assert phase_cost(traced)[1] == list(OWN)
    written = traced.ops[2]
    assert [t.shape for t in written.inputs] == [t.shape for t in written.outputs] == [(2, 5, 8)]
    assert not written.is_view
    assert traced.ops[0].attributes == {"decay": 0.5}


def test_a_users_formula_makes_an_operator_known() -> None:
    """2 x 80 operations, and the bytes of what goes in and comes out."""
    model, x = with_formula()
    cost, unknown = phase_cost(trace(model, lambda: model(x)))
    assert unknown == list(OWN[1:])
    assert cost.matmul_flops == 2 * 2 * 5 * 8 * 8
    assert cost.other_flops == 2 * 80 + 80  # and the bias


def an_op(name: str = OWN[0]) -> TracedOp:
    """One op of the user's on 4 numbers."""
    tensor = TracedTensor((4,), "fp32", "activation", 16)
    return TracedOp("layer", name, (tensor,), (tensor,), False, {})


def test_a_formula_travels_as_the_cost_it_gave() -> None:
    """What an agent states is the whole cost, and only of the user's own operators."""
    with_formula()
    stated = formulas.stated_cost(an_op())
    assert stated_cost(stated) == Cost(other_flops=8, activation_bytes=32)
    assert formulas.stated_cost(an_op("aten.mm")) is None
    assert formulas.stated_cost(an_op(OWN[2])) is None


def test_a_formula_that_fails_leaves_the_operator_unknown() -> None:
    """The user is told which formula failed on what; the run goes on."""

    @roofleet.formula(OWN[0])
    def wrong(op: roofleet.Op) -> roofleet.Work:
        return op.nothing_like_that  # type: ignore[attr-defined, no-any-return]

    with pytest.warns(
        UserWarning, match=r"formula for roofleet_tests\.scan failed on inputs \[4\].*nothing_like"
    ):
        assert formulas.stated_cost(an_op()) is None
    model, x = without_formula()
    assert OWN[0] in phase_cost(trace(model, lambda: model(x)))[1]


def test_a_formula_may_be_registered_again() -> None:
    """In a notebook a cell runs twice: the later formula counts. Roofleet's own are not to be replaced."""
    for operations in (1, 3):

        @roofleet.formula(OWN[0])
        def again(op: roofleet.Op, operations: int = operations) -> roofleet.Work:
            return roofleet.Work(other_flops=operations)

    assert json.loads(formulas.stated_cost(an_op()) or "")["other_flops"] == 3
    with pytest.raises(ValueError, match=r"aten\.mm has a formula already"):
        roofleet.formula("aten::mm")(lambda op: roofleet.Work())
    assert "aten.mm" in FORMULAS


@pytest.mark.parametrize(
    "text", ["", "[]", "no json", '{"other_flops": -1}', '{"other_flops": 1.5}', '{"colour": 1}']
)
def test_a_cost_that_is_none_is_unknown(text: str) -> None:
    """What another machine states is checked before it is stored."""
    assert stated_cost(text) is None


def test_formulas_import_no_torch() -> None:
    """A user's module may import them anywhere: neither torch nor pandas comes along."""
    program = (
        "import sys, roofleet; roofleet.formula('mine::op')(lambda op: roofleet.Work());"
        "print(sorted({'torch', 'pandas', 'transformers'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_collector_without_the_formula_knows_what_the_agent_stated(tmp_path: Path) -> None:
    """Two runs of one model on a collector in another process: with the user's formula the scan is known
    there, and without it unknown; the others are unknown in both, by name."""
    with collector(tmp_path / "collector") as running:
        for factory in ("without_formula", "with_formula"):
            options = ("--collector", running.grpc, "--iterations", "1", "--warmup", "0")
            done = command("profile", f"tests.own_ops:{factory}", *options, data=roofed(tmp_path / "agent"))
            assert done.returncode == 0, done.stderr
        with roofleet.connect(running.sql) as connection:
            rows = connection.sql(
                "SELECT model_name, op, is_known, other_flops FROM ops JOIN op_costs USING (run_id, phase, "
                "op_index) JOIN run_summary USING (run_id) WHERE op LIKE 'roofleet_tests.%'"
            ).to_pylist()
    found = {(row["model_name"].partition(":")[2], row["op"]): row["other_flops"] for row in rows}
    assert found == {
        ("without_formula", OWN[0]): None,
        ("with_formula", OWN[0]): 2 * 80,
        **{(factory, op): None for factory in ("without_formula", "with_formula") for op in OWN[1:]},
    }
    assert {row["op"] for row in rows if row["is_known"]} == {OWN[0]}


def test_costs_derived_again_keep_what_was_stated() -> None:
    """Rows of `ops` carry the stated cost, so that an older run is derived the same where nobody has the
    formula."""
    from tests.support import TINY_WORKLOAD

    from roofleet_agent import profiling
    from roofleet_agent.devices.cpu import CpuDevice
    from roofleet_agent.workload import ModelRequest

    sink = ListSink()
    model = ModelRequest("tests.own_ops:with_formula", "module", "own")
    profiling.profile(model, CpuDevice(), "fp32", TINY_WORKLOAD, sink, stated_cost=formulas.stated_cost)
    formulas.forget(*OWN)
    costs = derive_op_costs(sink.tables["ops"][0]).to_pylist()
    assert [row["other_flops"] for row in costs] == [2 * 80, 80, None, None]
