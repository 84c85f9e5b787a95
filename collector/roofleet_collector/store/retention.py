"""What becomes of rows that are older than they are kept for: small steps, each a transaction.

What is to be done next is found on a cursor of its own, beside the writer; the step itself is work of the
writer's, in line with the rows that come in, and looks again at what may have changed meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import datetime, timedelta

import duckdb

from roofleet_collector.policy import Policy
from roofleet_collector.store.engine import ask, table_of
from roofleet_collector.store.rolling import TO_HOURS, TO_MINUTES, Rolling, as_instant, end_of_next, roll_up

RUNS_FOUND = 1_000
"""Runs that are looked up at once."""
SPANS_AT_ONCE = 15_000
"""Spans whose runs are dealt with in one transaction, unless it is one run."""
RUNS_AT_ONCE = 4
ROWS_AT_ONCE = 20_000
"""Rows of a log that are deleted in one transaction."""
_ENDED_JOBS = "status NOT IN ('queued', 'running', 'cancelling')"
_LOGS = (
    ("jobs", "coalesce(finished_at, submitted_at)", _ENDED_JOBS),
    ("audit", "happened_at", "true"),
    ("losses", "last_at", "true"),
)
"""Tables whose rows go by their age alone: the column that tells it, and which rows may go."""
_RESTING = """
WITH resting AS (
    SELECT r.run_id, coalesce(r.turns_id, r.run_id) AS together, f.spans_let_go_at IS NULL
               AND r.run_id IN (SELECT run_id FROM layer_figures WHERE mean_ns IS NOT NULL) AS has_spans,
           run_status(r.status, r.started_at, h.last_seen_at) <> 'running'
               AND r.run_id NOT IN (SELECT run_id FROM pinned_runs)
               AND r.run_id NOT IN (SELECT run_id FROM unsettled)
               AND greatest(as_moment(coalesce(r.finished_at, r.started_at)), f.settled_at) < $before
               AS may_go,
           r.started_at
    FROM runs r JOIN run_figures f ON f.run_id = r.run_id LEFT JOIN hosts h ON h.host_id = r.host_id
)
"""
"""Runs whose figures stand. Those that took turns are held against each other step by step: their spans go
together, or stay."""
_COUNTED = """
SELECT any_value(c.run_ids), count(s.run_id)
FROM (SELECT run_ids, began, unnest(run_ids) AS run_id FROM chosen) c LEFT JOIN spans s ON s.run_id = c.run_id
GROUP BY c.run_ids ORDER BY min(c.began)
"""
_OLD_RUNS = f"""{_RESTING}, chosen AS (
    SELECT [run_id] AS run_ids, started_at AS began FROM resting WHERE may_go
    ORDER BY began LIMIT {RUNS_FOUND}
) {_COUNTED}"""
_OLD_SPANS = f"""{_RESTING}, chosen AS (
    SELECT list(run_id) AS run_ids, min(started_at) AS began FROM resting GROUP BY together
    HAVING bool_and(may_go) AND bool_or(has_spans) ORDER BY began LIMIT {RUNS_FOUND}
) {_COUNTED}"""
_KEPT_ITERATIONS = """
SELECT run_id, phase, path, iteration, coalesce(i.steps, 0) AS steps, i.self_ns, s.start_ns
FROM (SELECT run_id, phase, path, iteration, min(start_ns) AS start_ns FROM spans WHERE run_id IN {runs}
      GROUP BY run_id, phase, path, iteration) s
LEFT JOIN (SELECT * FROM layer_iterations WHERE run_id IN {runs}) i USING (run_id, phase, path, iteration)
"""


@dataclass(frozen=True)
class Done:
    """What a step did to so many rows of a table: `rolled up`, `deleted`, or `left out`."""

    table: str
    what: str
    rows: int


Submit = Callable[[Callable[[duckdb.DuckDBPyConnection], int]], Future[int]]


class Retention:
    """The steps for one store."""

    def __init__(
        self,
        cursor: duckdb.DuckDBPyConnection,
        submit: Submit,
        delete_runs: Callable[[Sequence[str]], Future[list[str]]],
        let_go: set[str],
    ) -> None:
        """`let_go` are the runs whose spans are gone: those of a step are added."""
        self._cursor, self._submit, self._delete_runs, self._let_go = cursor, submit, delete_runs, let_go

    def steps(self, policy: Policy, now: datetime) -> Iterator[Done]:
        """Does what is to be done, a step each time, and says what it was."""
        if policy.runs is not None:
            yield from self._each_found(_OLD_RUNS, now - policy.runs, self._runs_go)
        if policy.spans is not None:
            yield from self._each_found(_OLD_SPANS, now - policy.spans, self._spans_go)
        for age, rolling in ((policy.readings, TO_MINUTES), (policy.readings_minutes, TO_HOURS)):
            if age is not None:
                yield from self._rolled_up(rolling, now - age)
        if policy.readings_hours is not None:
            yield from self._deleted(
                "rolled_readings", "began_at", "width_s = 3600", now - policy.readings_hours
            )
        for table, at, which in _LOGS:
            log_age: timedelta | None = getattr(policy, table)
            if log_age is not None:
                yield from self._deleted(table, at, which, now - log_age)

    def _each_found(self, sql: str, before: datetime, go: Callable[[list[str]], Done]) -> Iterator[Done]:
        while found := ask(self._cursor, sql, {"before": before}):
            rows = 0
            for run_ids in _some_at_once(found):
                yield (done := go(run_ids))
                rows += done.rows
            if not rows:  # those that were found have changed since
                return

    def _runs_go(self, run_ids: list[str]) -> Done:
        return Done("runs", "deleted", len(self._delete_runs(run_ids).result()))

    def _spans_go(self, run_ids: list[str]) -> Done:
        def work(connection: duckdb.DuckDBPyConnection) -> int:
            gone = let_spans_go(connection, run_ids)
            if gone:
                self._let_go.update(run_ids)  # what waits behind this is in the same transaction
            note(connection, Done("spans", "rolled up", gone))
            return gone

        try:
            return Done("spans", "rolled up", self._submit(work).result())
        except BaseException:
            self._let_go.difference_update(run_ids)
            raise

    def _rolled_up(self, rolling: Rolling, before: datetime) -> Iterator[Done]:
        while (until := end_of_next(self._cursor, rolling, before)) is not None:

            def work(connection: duckdb.DuckDBPyConnection, until: datetime = until) -> int:
                rows = roll_up(connection, rolling, until)
                note(connection, Done(rolling.table, "rolled up", rows))
                return rows

            yield Done(rolling.table, "rolled up", self._submit(work).result())

    def _deleted(self, table: str, at: str, which: str, before: datetime) -> Iterator[Done]:
        oldest = (
            f"SELECT epoch_us(max(t)) FROM (SELECT as_moment({at}) AS t FROM {table} "
            f"WHERE {which} AND as_moment({at}) < ? "
            f"ORDER BY t LIMIT {ROWS_AT_ONCE})"
        )
        while (until := as_instant(ask(self._cursor, oldest, [before])[0][0])) is not None:

            def work(connection: duckdb.DuckDBPyConnection, until: datetime = until) -> int:
                gone = ask(connection, f"DELETE FROM {table} WHERE {which} AND {at} <= ?", [until])[0][0]
                note(connection, Done(table, "deleted", gone))
                return int(gone)

            yield Done(table, "deleted", self._submit(work).result())


def let_spans_go(connection: duckdb.DuckDBPyConnection, run_ids: Collection[str]) -> int:
    """Keeps what iterations say of the layers of runs and deletes their spans; how many there were.

    None go if one of the runs was pinned, or rows of it came, since it was found.
    """
    still = ask(
        connection,
        "SELECT count(*) FROM run_figures WHERE list_contains($1, run_id) AND spans_let_go_at IS NULL "
        "AND run_id NOT IN (SELECT run_id FROM unsettled) AND run_id NOT IN (SELECT run_id FROM pinned_runs)",
        [list(run_ids)],
    )[0][0]
    if still != len(run_ids):
        return 0
    places = ", ".join(f"${place}" for place in range(1, len(run_ids) + 1))
    kept = table_of(connection, _KEPT_ITERATIONS.replace("{runs}", f"({places})"), list(run_ids))
    connection.register("kept", kept)
    connection.execute("INSERT INTO kept_layer_iterations SELECT * FROM kept")
    connection.unregister("kept")
    which = f"WHERE run_id IN ({places})"  # the engine finds these without reading the whole table
    ask(connection, f"UPDATE run_figures SET spans_let_go_at = now() {which}", list(run_ids))
    return int(ask(connection, f"DELETE FROM spans {which}", list(run_ids))[0][0])


def _some_at_once(found: Iterable[tuple[list[str], int]]) -> Iterator[list[str]]:
    """Groups of runs with the number of their spans, as many together as are dealt with in one step."""
    some: list[str] = []
    spans = 0
    for run_ids, count in found:
        if some and (spans + count > SPANS_AT_ONCE or len(some) >= RUNS_AT_ONCE):
            yield some
            some, spans = [], 0
        some, spans = [*some, *run_ids], spans + count
    if some:
        yield some


def note(connection: duckdb.DuckDBPyConnection, done: Done) -> None:
    """Adds to what retention did so far, in the transaction that does it."""
    if not done.rows:
        return
    before = "FROM retention WHERE table_name = ? AND what = ?"
    found = ask(connection, f"SELECT rows, epoch_us(first_at) {before}", [done.table, done.what])
    rows, first_us = found[0] if found else (0, None)
    ask(connection, f"DELETE {before}", [done.table, done.what])
    connection.execute(
        "INSERT INTO retention VALUES (?, ?, ?, coalesce(make_timestamptz(?), now()), now())",
        [done.table, done.what, rows + done.rows, first_us],
    )
