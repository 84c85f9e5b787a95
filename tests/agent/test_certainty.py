"""Iterations go on until what they measure is known well enough, or the time for them is up."""

from __future__ import annotations

import math
import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support import TINY_BERT, TINY_GPT2, TINY_WORKLOAD, ListSink, request

from roofleet_agent import profiling
from roofleet_agent.devices.cpu import CpuDevice
from roofleet_agent.engines.base import Step
from roofleet_agent.errors import WorkloadRefused
from roofleet_agent.measuring.certainty import Certainty, mean_margin, median_margin
from roofleet_agent.measuring.steps import Kind, TimedStep
from roofleet_agent.passes import timing


def steps(ratio: float, noise: float, seed: int, pairs: int = 8) -> list[TimedStep]:
    """An iteration of decode steps, bare and timed in turns, on a machine whose speed is anybody's guess."""
    some = random.Random(seed)
    speed = some.uniform(0.5, 2)
    made = []
    for index in range(2 * pairs):
        kind: Kind = "timed" if (index + seed) % 2 else "bare"
        slow = math.exp(some.gauss(0, noise)) * (ratio if kind == "timed" else 1)
        step = Step("decode", index, 1, index, lambda: None)
        made.append(TimedStep(step, kind, seed, False, 0, round(1e7 * speed * slow)))
    return made


def test_a_mean_of_three_is_as_sure_as_students_table_says() -> None:
    """The logarithms 0, 1 and 2: 4.303 x 1 / sqrt(3) = 2.484; two tell nothing."""
    assert mean_margin([0.0, 1.0, 2.0]) == pytest.approx(4.303 / math.sqrt(3), rel=0.04)
    assert mean_margin([0.0, 1.0]) == math.inf


def test_a_median_of_a_hundred_lies_between_its_40th_and_60th() -> None:
    """Ranks 0.5 -+ 0.98 / sqrt(100) of 0 to 99: half of 19.4 ranks; of five values no interval has 95 %."""
    assert median_margin([float(n) for n in range(100)], 100) == pytest.approx(9.7, abs=0.05)
    assert median_margin([0.0] * 5, 5) == math.inf


@settings(max_examples=40, deadline=None)
@given(st.floats(0.9, 1.2), st.integers(0, 1000))
def test_what_pairs_say_does_not_move_with_the_machine(ratio: float, seed: int) -> None:
    """Iterations of which each runs at another speed have narrow pairs, and a wide interval of the time."""
    certainty = Certainty()
    for number in range(8):
        certainty.take(steps(ratio, 0.01, seed + number))
    assert certainty.pair_margins()["decode"] < 0.02
    assert certainty.time_margin() > 0.03


def test_a_phase_without_pairs_holds_nothing_up() -> None:
    """A single decode step an iteration has none beside it."""
    certainty = Certainty()
    certainty.take(steps(1.0, 0.0, 0)[:1])
    assert certainty.pair_margins() == {}


@pytest.fixture(scope="module")
def runs() -> dict[str, dict[str, object]]:
    """The row of a run of a tiny model by what its iterations are ended by."""
    found = {}
    workload = replace(TINY_WORKLOAD, prompt_tokens=4, new_tokens=0)
    with pytest.MonkeyPatch.context() as patch:
        for by, changes, narrow in (
            ("asked", {"iterations": 3}, 0.0),
            ("interval", {"iterations": None}, math.inf),
            ("budget", {"iterations": None, "budget_s": 1e-6}, 0.0),
            ("most", {"iterations": None, "budget_s": 1e6}, 0.0),
        ):
            patch.setattr(timing, "NARROW_TIME", narrow)
            patch.setattr(timing, "NARROW_PAIRS", narrow)
            sink = ListSink()
            model = request(TINY_BERT, task="encode")
            profiling.profile(model, CpuDevice(), "fp32", replace(workload, **changes), sink)  # type: ignore[arg-type]
            found[by] = sink.rows("runs")[-1]
    return found


@pytest.mark.parametrize(
    ("by", "iterations"),
    [("asked", 3), ("interval", timing.LEAST_ITERATIONS), ("budget", timing.LEAST_ITERATIONS),
     ("most", timing.MOST_ITERATIONS)],
)  # fmt: skip
def test_iterations_end_when_they_are_asked_to_or_know_enough(
    runs: dict[str, dict[str, object]], by: str, iterations: int
) -> None:
    """As many as asked; else until the intervals are narrow, the budget is spent, or there are very many."""
    assert (runs[by]["iterations_ended_by"], runs[by]["iterations"]) == (by, iterations)


@pytest.fixture(scope="module")
def in_turns() -> tuple[list[str], ListSink]:
    """Two tiny models that took turns: the ids of their runs, and the rows."""
    sink = ListSink()
    workload = replace(TINY_WORKLOAD, new_tokens=9, iterations=4)
    plan = profiling.Plan(request(TINY_GPT2, task="generate"), CpuDevice(), "fp32", workload, {})
    return profiling.profile_in_turns([plan, plan], sink), sink


def test_models_in_turns_are_runs_of_one_group(in_turns: tuple[list[str], ListSink]) -> None:
    """Each is a run that is done, with iterations of its own; they share an id."""
    ids, sink = in_turns
    rows = {row["run_id"]: row for row in sink.rows("runs")}
    assert set(rows) == set(ids)
    assert {row["turns_id"] for row in rows.values()} == {ids[0]}
    assert {(row["status"], row["iterations"]) for row in rows.values()} == {("done", 4)}


def test_models_in_turns_are_timed_step_by_step(in_turns: tuple[list[str], ListSink]) -> None:
    """A step of one is beside the same step of the other, and each is first in half of the bare steps and in
    half of the timed ones of a phase."""
    ids, sink = in_turns
    began = {row["run_id"]: row["started_at"].timestamp() for row in sink.rows("runs")}
    measured = [step for step in sink.rows("steps") if not step["is_warmup"]]
    first: dict[str, list[str]] = {"bare": [], "timed": []}
    for number in range(1, 5):
        steps = [s for s in measured if s["iteration"] == number]
        steps.sort(key=lambda s: began[s["run_id"]] + s["start_ns"] / 1e9)
        pairs = list(zip(steps[::2], steps[1::2], strict=True))
        for one, other in pairs:
            assert {one["run_id"], other["run_id"]} == set(ids)
            assert all(one[name] == other[name] for name in ("phase", "step_index", "pass"))
        for one, _ in pairs:
            if one["phase"] == "decode":
                first[one["pass"]].append(one["run_id"])
    for kind, those in first.items():
        assert those.count(ids[0]) == len(those) / 2, kind


def test_iterations_in_turns_end_when_the_ratio_is_known() -> None:
    """Two models of which one takes 10 % longer, each step with a noise of its own, on a machine whose speed
    moves with every iteration: their ratio is known to a hundredth when the time of neither is."""
    one, other = Certainty(), Certainty()
    some = random.Random(7)
    for number in range(16):
        mine = steps(1.0, 0.01, number)
        theirs = [
            replace(s, duration_ns=round(s.duration_ns * 1.1 * math.exp(some.gauss(0, 0.01)))) for s in mine
        ]
        one.take(mine)
        other.take(theirs)
    assert 0 < one.difference_margin(other) < timing.NARROW_DIFFERENCE
    assert min(one.time_margin(), other.time_margin()) > 0.03
    shuffled = Certainty()
    for number in range(16):
        shuffled.take(steps(1.0, 0.01, number + 100))
    assert one.difference_margin(shuffled) > timing.NARROW_DIFFERENCE  # another machine
    assert one.difference_margin(Certainty()) == math.inf


def test_models_that_do_not_fit_beside_one_another_are_refused_before_anything_is_stored() -> None:
    """Of a device of 1 MB each tiny model has room and ten of them have none."""

    class Small(CpuDevice):
        def __init__(self) -> None:
            super().__init__()
            self.info = replace(self.info, memory_bytes=1_000_000)

    sink = ListSink()
    plan = profiling.Plan(request(TINY_GPT2, task="generate"), Small(), "fp32", TINY_WORKLOAD, {})
    with pytest.raises(WorkloadRefused, match="10 models beside one another need"):
        profiling.profile_in_turns([plan] * 10, sink)
    assert sink.tables == {}
