"""Whether two runs differ: the arithmetic by hand, what is never claimed, and the same numbers in SQL."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import duckdb
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from roofleet_agent.rows import table_of
from roofleet_analysis.comparison import Place, Sample, compare, compare_in_turns, sample, t_quantile
from roofleet_collector.store.figures import settle
from roofleet_collector.store.schema import migrate

RUN = {
    "host_id": "h", "device_id": "d", "model_id": "m", "status": "done", "dtype": "fp32", "variant": "base",
    "started_at": datetime(2026, 1, 1, tzinfo=UTC), "weights": "random", "engine": "test", "batch_size": 1,
    "prompt_tokens": 8, "new_tokens": 2, "logits": "last", "iterations": 5, "warmup": 0,
}  # fmt: skip
MODEL = {"model_id": "m", "name": "tiny", "origin": "catalog", "architecture": "T", "task": "generate",
         "parameters": 1}  # fmt: skip
RUNS = {"a": "base", "b": "int8-dynamic", "c": "int8-dynamic"}


def made(*times: float) -> Sample:
    """The sample of these times."""
    found = sample(times)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("freedom", "t"),
    # the 97.5 % column of the printed tables
    [(2, 4.302653), (3, 3.182446), (4, 2.776445), (5, 2.570582), (10, 2.228139), (30, 2.042272)],
)
def test_students_t_is_that_of_the_tables(freedom: float, t: float) -> None:
    """The quantile agrees with the tables to 0.01 %."""
    assert t_quantile(freedom) == pytest.approx(t, rel=1e-4)


def test_an_interval_is_worked_out_on_logarithms() -> None:
    """The logarithms 0, 1, 2 have mean 1, variance 1 and error sqrt(1/3): 1 -+ 4.3027 x 0.57735."""
    found = made(1, math.e, math.e**2)
    assert found.typical_ns == pytest.approx(math.e)
    low, high = found.interval() or (0, 0)
    assert (math.log(low), math.log(high)) == pytest.approx(
        (1 - 4.302653 * 0.577350, 1 + 4.302653 * 0.577350), rel=1e-3
    )


def test_two_iterations_have_no_interval() -> None:
    """Below three iterations there is a ratio and no interval, and nothing is claimed."""
    assert made(1, 1).interval() is None
    change = compare(made(100, 100), made(50, 50, 50))
    assert change.ratio == pytest.approx(0.5)
    assert (change.low, change.high) == (None, None)
    assert (change.verdict, change.why) == ("unclear", "fewer than 3 iterations on one side")


def test_no_times_make_no_sample() -> None:
    """Without an iteration there is nothing to compare, and a time of zero is a mistake."""
    assert sample([]) is None
    with pytest.raises(ValueError, match="above 0"):
        sample([1.0, 0.0])


def test_a_ratio_has_welchs_interval() -> None:
    """Logarithms 0, 1, 2 against 3, 3, 3: the error is all the first side's, 1/3 with 2 degrees."""
    change = compare(made(1, math.e, math.e**2), made(*[math.e**3] * 3))
    assert math.log(change.ratio) == pytest.approx(2)
    assert change.high is not None
    assert math.log(change.high) == pytest.approx(2 + 4.302653 * math.sqrt(1 / 3), rel=1e-3)
    # equal errors 1/3 and 1/3: 1 / (0.25 / 2 + 0.25 / 2) = 4 degrees of freedom
    equal = compare(made(1, math.e, math.e**2), made(math.e, math.e**2, math.e**3))
    assert equal.high is not None
    assert math.log(equal.high) == pytest.approx(1 + 2.776445 * math.sqrt(2 / 3), rel=1e-3)


@pytest.mark.parametrize(
    ("baseline", "run", "verdict", "why"),
    [
        ((100, 101, 102), (50, 51, 52), "faster", None),
        ((50, 51, 52), (100, 101, 102), "slower", None),
        ((100, 100.1, 100.2), (100, 100.1, 100.3), "same", None),
        ((100, 120, 140), (90, 110, 130), "unclear", "the interval includes no difference"),
        # 1.9 % apart, and surely so: the interval is beyond 2 % on one side
        ((100, 100.1, 100.2), (101.9, 102, 102.1), "unclear", "the difference is under 2 %"),
    ],
)
def test_the_verdict_is_what_the_interval_allows(
    baseline: tuple[float, ...], run: tuple[float, ...], verdict: str, why: str | None
) -> None:
    """Faster and slower need an interval without 1 and 2 %, same needs an interval within 2 %."""
    change = compare(made(*baseline), made(*run))
    assert (change.verdict, change.why) == (verdict, why)


@pytest.mark.parametrize("side", [0, 1])
def test_nothing_is_claimed_of_a_noisy_side(side: int) -> None:
    """Half the time is no speed-up while other work was on the machine, and the side is named."""
    noise = ("other work", None) if side == 0 else (None, "other work")
    change = compare(made(100, 101, 102), made(50, 51, 52), *noise)
    assert change.verdict == "unclear"
    assert change.why == f"the {('baseline', 'run')[side]} is too noisy: other work"


@pytest.mark.parametrize(
    ("spread", "verdict"), [(None, "faster"), (1.5, "faster"), (1.9, "faster"), (2.1, "unclear")]
)
def test_what_repeats_differ_by_is_no_change(spread: float | None, verdict: str) -> None:
    """Half the time is a factor of 2: a change if repeats differ by 1.9, none if they differ by 2.1."""
    change = compare(made(100, 101, 102), made(50, 50.5, 51), spread=spread)
    assert change.verdict == verdict
    assert change.why == ("repeats of the same run can differ by 110.0 %" if verdict == "unclear" else None)


def test_runs_are_not_the_same_by_luck() -> None:
    """Within 2 % of one another, but repeats differ by 5 %: the next two may not be."""
    a, b = made(100, 100.1, 100.2), made(100, 100.1, 100.2)
    assert compare(a, b, spread=1.02).verdict == "same"
    assert compare(a, b, spread=1.05).verdict == "unclear"


times = st.lists(st.floats(1e3, 1e10), min_size=1, max_size=7)


@given(times, times)
def test_the_comparison_the_other_way_round_is_its_reciprocal(a: list[float], b: list[float]) -> None:
    """Which run is the baseline changes the direction and nothing else."""
    there, back = compare(made(*a), made(*b)), compare(made(*b), made(*a))
    assert there.ratio * back.ratio == pytest.approx(1)
    if there.low is not None and back.high is not None:
        assert there.low <= there.ratio
        assert there.low * back.high == pytest.approx(1)


@given(times, times)
def test_a_claim_is_never_inside_the_noise(a: list[float], b: list[float]) -> None:
    """Whatever the times, faster and slower have an interval that excludes no difference, and 2 %."""
    change = compare(made(*a), made(*b))
    if change.verdict in ("faster", "slower"):
        assert change.low is not None
        assert change.high is not None
        assert change.high < 1 or change.low > 1
        assert abs(change.ratio - 1) >= 0.019999


@pytest.fixture(scope="module")
def database() -> Iterator[duckdb.DuckDBPyConnection]:
    """A database with the views and three runs of one model, of which the last two are repeats."""
    connection = duckdb.connect()
    migrate(connection)
    _insert(connection, "models", [MODEL])
    _insert(connection, "runs", [RUN | {"run_id": name, "variant": how} for name, how in RUNS.items()])
    _insert(connection, "layers", [
        {"run_id": name, "path": "x", "layer_index": 0, "depth": 1, "module_type": "L", "role": "mlp",
         "is_leaf": True, "parameters": 0, "parameter_bytes": 0} for name in RUNS
    ])  # fmt: skip
    yield connection
    connection.close()


def _insert(connection: duckdb.DuckDBPyConnection, table: str, rows: list[dict[str, Any]]) -> None:
    connection.register("arriving", table_of(table, rows))
    connection.execute(f"INSERT INTO {table} SELECT * FROM arriving")


def _fill(connection: duckdb.DuckDBPyConnection, runs: dict[str, list[int]]) -> None:
    """One decode step an iteration, bare and timed alike, and one layer that takes all of it."""
    connection.execute("DELETE FROM steps; DELETE FROM spans")
    common = {"phase": "decode", "step_index": 0, "start_ns": 0}
    _insert(connection, "steps", [
        common | {"run_id": name, "pass": kind, "iteration": i, "is_warmup": False, "duration_ns": ns,
                  "tokens": 1, "cache_tokens": 8}
        for name, listed in runs.items() for i, ns in enumerate(listed) for kind in ("bare", "timed")
    ])  # fmt: skip
    _insert(connection, "spans", [
        common | {"run_id": name, "iteration": i, "path": "x", "duration_ns": ns, "self_ns": ns}
        for name, listed in runs.items() for i, ns in enumerate(listed)
    ])  # fmt: skip
    settle(connection, ["a", "b", "c"])


whole_times = st.lists(st.integers(1_000, 10**9), min_size=1, max_size=6) | st.lists(
    st.integers(100_000, 103_000), min_size=3, max_size=6
)


@pytest.mark.slow
@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(whole_times, whole_times, st.integers(99, 125))
def test_sql_and_python_give_the_same_numbers(
    database: duckdb.DuckDBPyConnection, a: list[int], b: list[int], again: int
) -> None:
    """The views and this module agree on every interval, ratio, verdict and reason, for phases and layers."""
    _fill(database, {"a": a, "b": b, "c": [ns * again // 100 for ns in b]})
    intervals = database.sql(
        "SELECT bare_typical_ns, bare_low_ns, bare_high_ns, noise FROM phase_summary ORDER BY run_id"
    ).fetchall()
    for listed, (typical, low, high, _) in zip((a, b), intervals, strict=False):
        mine = made(*listed)
        assert typical == pytest.approx(mine.typical_ns, rel=1e-9)
        assert (low, high) == (
            (None, None) if mine.interval() is None else pytest.approx(mine.interval(), rel=1e-9)
        )
    repeats = database.sql("SELECT max(spread) FROM phase_repeats").fetchall()[0][0]
    for view, spread in (("phase_comparison", repeats), ("layer_comparison", repeats and repeats**3)):
        change = compare(made(*a), made(*b), intervals[0][3], intervals[1][3], spread)
        ends = [change.ratio, *(end for end in (change.low, change.high) if end is not None)]
        edges = [0.98, 1, 1.02, *([spread, 1 / spread] if spread else [])]
        assume(a == b or all(abs(edge - end) > 1e-7 * edge for edge in edges for end in ends))
        found = database.sql(
            f"SELECT ratio, low, high, verdict, why FROM {view} WHERE baseline_run_id = 'a' AND run_id = 'b'"
        ).fetchall()
        assert len(found) == 1
        ratio, low, high, verdict, why = found[0]
        assert ratio == pytest.approx(change.ratio, rel=1e-9)
        assert (low is None) == (change.low is None)
        if change.low is not None:
            assert (low, high) == pytest.approx((change.low, change.high), rel=1e-9)
        assert (verdict, why) == (change.verdict, change.why)


@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(whole_times, whole_times)
def test_of_two_repeats_none_is_faster(
    database: duckdb.DuckDBPyConnection, b: list[int], c: list[int]
) -> None:
    """Whatever two runs of the very same thing took, no step of one is called faster than the other's."""
    _fill(database, {"b": b, "c": c})
    found = database.sql("SELECT verdict FROM phase_comparison WHERE ratio IS NOT NULL").fetchall()
    assert len(found) == 2
    assert {verdict for (verdict,) in found} <= {"same", "unclear"}


def _of_turns(connection: duckdb.DuckDBPyConnection, is_group: bool) -> None:
    connection.execute("UPDATE runs SET turns_id = ? WHERE run_id IN ('a', 'b')", ["t" if is_group else None])
    settle(connection, ["a", "b"])


@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(1_000, 10**6), st.integers(900, 1_100)), min_size=1, max_size=30))
def test_steps_in_turns_are_compared_alike_in_sql_and_python(
    database: duckdb.DuckDBPyConnection, pairs: list[tuple[int, int]]
) -> None:
    """Each step against the one of the same place: the median of the ratios and the ranks around it."""
    a, b = [ns for ns, _ in pairs], [ns * per_mille // 1_000 for ns, per_mille in pairs]
    _fill(database, {"a": a, "b": b})
    _of_turns(database, True)
    try:
        change = compare_in_turns(*({(i, 0): float(ns) for i, ns in enumerate(side)} for side in (a, b)))
        assert change is not None
        for view in ("phase_comparison", "layer_comparison"):
            found = database.sql(
                f"SELECT ratio, low, high, verdict, why FROM {view} "
                "WHERE baseline_run_id = 'a' AND run_id = 'b'"
            ).fetchall()
            assert found == [(change.ratio, change.low, change.high, change.verdict, change.why)]
    finally:
        _of_turns(database, False)


def _machine(seed: int, ratio: float, pairs: int = 150) -> tuple[dict[Place, float], dict[Place, float]]:
    """Steps of two models side by side on a machine whose speed wanders by 20 % and more, with bursts of
    other work that make a step up to three times as long."""
    some = random.Random(seed)
    speed, sides = 1.0, ({}, {})
    for number in range(pairs):
        for side in (0, 1) if number % 2 else (1, 0):
            speed = min(max(speed * math.exp(some.gauss(0, 0.03)), 0.6), 1.6)
            burst = some.uniform(1, 3) if some.random() < 0.1 else 1
            time = 1e7 * speed * burst * math.exp(some.gauss(0, 0.02)) * (ratio if side else 1)
            sides[side][number, 0] = time
    return sides


def test_a_tenth_is_found_on_a_machine_whose_speed_moves_by_a_fifth() -> None:
    """Of 60 pairs of models of which one takes 10 % longer, all are called slower, by 10 % within 3 %."""
    changes = [compare_in_turns(*_machine(seed, 1.1)) for seed in range(60)]
    assert {change and change.verdict for change in changes} == {"slower"}
    assert all(change and abs(change.ratio - 1.1) < 0.03 for change in changes)


def test_a_model_against_itself_is_the_same_there() -> None:
    """Of 60 models against themselves 57 or more are the same, and none is called faster or slower."""
    verdicts = Counter(c.verdict for seed in range(60) if (c := compare_in_turns(*_machine(seed, 1.0))))
    assert verdicts["same"] >= 57
    assert set(verdicts) <= {"same", "unclear"}
