"""Statements that are planned and run by a process that can be ended, where the engine cannot be."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import duckdb
import pytest
from tests.support import eventually, laid, spans

from roofleet_collector.errors import CallerLeft, LimitReached, QueryTimeout, SqlError, StoreClosed
from roofleet_collector.store import Append, DuckDBStore
from roofleet_collector.store.apart import Apart
from roofleet_collector.store.caller import Caller
from roofleet_collector.store.limits import MEBIBYTE, Limits
from roofleet_collector.store.reader import Reader, runs_apart
from roofleet_collector.store.statements import check
from roofleet_dashboard import queries

LONG = "SELECT levenshtein(repeat(path, 100000), repeat('ba', 500000)) FROM spans"
UNPLANNABLE = "SELECT 1 AS a0, " + ", ".join(f"a{i} + a{i} AS a{i + 1}" for i in range(40))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DuckDBStore]:
    opened = DuckDBStore(laid(tmp_path_factory.mktemp("apart")))
    opened.append(Append({"spans": spans(500)})).result()
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def door(store: DuckDBStore) -> Iterator[Reader]:
    reader = store.door(Limits(), Apart(700 * MEBIBYTE))
    reader.query("SELECT repeat('x', 2)").close()  # its processes are there before a test begins
    yield reader
    reader.close()


@pytest.mark.parametrize(
    ("sql", "values"),
    [
        ("SELECT path, levenshtein(path, 'x') AS d FROM spans ORDER BY ALL", []),
        ("SELECT levenshtein(s.path, ?) AS d FROM main.spans s WHERE s.self_ns > ? ORDER BY 1", ["abc", 0]),
        ("WITH spans AS (SELECT repeat('x', 3) AS path) SELECT path FROM spans", []),
        ("SELECT repeat($what, 2) AS r, count(*) AS n FROM spans NATURAL JOIN spans AS b", {"what": "é"}),
        ("SELECT list(path ORDER BY path)[1:2] AS l FROM spans", []),
        ("SELECT repeat(status, 2) AS r FROM run_summary", []),
        ("SELECT 'a'::ENUM ('a', 'b') AS e, repeat(NULL, 2) AS nothing", []),
        ("DESCRIBE SELECT repeat(path, 2) AS r FROM spans", []),
        ("SELECT count(*) FILTER (WHERE path LIKE ?) AS n FROM spans", ["%a%b%c%_"]),
        ("WITH RECURSIVE r AS (SELECT 'x' AS a UNION ALL SELECT a || a FROM r WHERE a < 'xxx') FROM r", []),
    ],
)
def test_what_runs_apart_gives_what_the_engine_gives(
    store: DuckDBStore, door: Reader, sql: str, values: list[object]
) -> None:
    """Rows and their schema are the same, whoever worked them out."""
    here, there = store.reader.query(sql, values), door.query(sql, values)
    assert there.schema == here.schema == door.prepare(sql, values).schema
    assert there.read_all() == here.read_all()
    assert door.open_queries == 0


def test_rows_are_live_apart_too(store: DuckDBStore, door: Reader) -> None:
    """What was committed before a query that runs apart is in it."""
    sql = "SELECT count(repeat(path, 1)) AS n FROM spans"
    before = door.query(sql).read_all()["n"][0].as_py()
    store.append(Append({"spans": spans(7)})).result()
    assert door.query(sql).read_all()["n"][0].as_py() == before + 7


def test_what_the_dashboard_asks_runs_where_the_rows_are() -> None:
    """No named query of the dashboard needs a copy of what it reads."""
    with duckdb.connect() as connection:
        for name in queries.names():
            select = check(queries.sql(name), connection)
            assert not runs_apart(select, ()), name


def test_a_statement_that_cannot_be_planned_is_refused(store: DuckDBStore) -> None:
    """A statement whose names multiply is told so, by prepare as by query, and is never run."""
    reader = store.door(Limits(), Apart(700 * MEBIBYTE, plan_s=0.5))
    for ask in (reader.prepare, reader.query):
        with pytest.raises(LimitReached, match="to plan, so it was not run"):
            ask(UNPLANNABLE)
    assert reader.query("SELECT 1 AS a").read_all().num_rows == 1
    reader.close()


def test_a_function_that_does_not_end_is_ended(store: DuckDBStore) -> None:
    """What the engine cannot be interrupted in ends at its limit, with its caller, and with the store."""
    reader = store.door(Limits(timeout_s=0.5), Apart(700 * MEBIBYTE))
    with pytest.raises(QueryTimeout):
        reader.query(LONG).read_all()
    reader.close()
    reader = store.door(Limits(timeout_s=None), Apart(700 * MEBIBYTE))
    caller = Caller("somebody")
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(lambda: reader.query(LONG, (), caller).read_all())
        eventually(lambda: reader.open_queries == 1)
        caller.leave()
        with pytest.raises(CallerLeft):
            first.result(timeout=120)
        second = pool.submit(lambda: reader.query(LONG).read_all())
        eventually(lambda: reader.open_queries == 1)
        reader.close()
        with pytest.raises(StoreClosed):
            second.result(timeout=120)


def test_memory_that_is_not_to_be_had_ends_one_query_only(store: DuckDBStore) -> None:
    """A query that takes all memory ends with a message, and the next one is answered."""
    reader = store.door(Limits(), Apart(700 * MEBIBYTE))
    with pytest.raises((LimitReached, SqlError)):
        reader.query("SELECT sum(length(repeat(path, 100000000))) FROM spans").read_all()
    assert reader.query("SELECT repeat('x', 2) AS r").read_all()["r"].to_pylist() == ["xx"]
    reader.close()


def test_an_error_apart_has_the_engines_message(door: Reader) -> None:
    """What is wrong with a statement is told in the engine's words."""
    with pytest.raises(SqlError, match="Could not convert string 'xx' to INT32"):
        door.query("SELECT repeat('x', 2)::INTEGER FROM spans").read_all()
    with pytest.raises(SqlError, match=r"Referenced column \"nowhere\" not found[\s\S]*LINE 1"):
        door.query("SELECT repeat(nowhere, 2) FROM spans")


def test_a_slow_reader_apart_keeps_nobody_from_planning(store: DuckDBStore) -> None:
    """Results that are read slowly keep the processes that run, and others are planned meanwhile."""
    reader = store.door(Limits(), Apart(700 * MEBIBYTE))
    held = [reader.query("SELECT repeat(path, 2) FROM spans, range(100000)") for _ in range(2)]
    assert reader.query("SELECT 5 AS a").read_all()["a"].to_pylist() == [5]
    third = threading.Thread(target=lambda: reader.query("SELECT repeat('x', 2)").close())
    third.start()
    held.pop().close()
    third.join()
    held.pop().close()
    reader.close()
