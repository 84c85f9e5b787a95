"""The guarded reader: SQL from users, checked, in read-only transactions, streamed and bounded in time."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import duckdb
import pyarrow as pa

from roofleet_collector.errors import SqlError, StoreClosed
from roofleet_collector.limits import Limits
from roofleet_collector.store.apart import Apart, Copy
from roofleet_collector.store.caller import Caller
from roofleet_collector.store.engine import Parameters, ask, stream
from roofleet_collector.store.functions import LIKE, simple_pattern
from roofleet_collector.store.limits import Places
from roofleet_collector.store.plain import plain_schema
from roofleet_collector.store.rows import BATCH_ROWS, Rows
from roofleet_collector.store.shape import guesses, shape
from roofleet_collector.store.statements import Select, check
from roofleet_collector.store.watchdog import Watchdog

REMEMBERED, REMEMBERED_SQL = 256, 8192
"""How many checked statements are kept, and the longest of them."""

RELATIONS_SQL = """
SELECT if(is_view, 'VIEW', 'TABLE'), name, columns
FROM (
    SELECT table_name AS name, list(column_name ORDER BY column_index) AS columns,
        table_name IN (SELECT view_name FROM duckdb_views()) AS is_view
    FROM duckdb_columns() WHERE NOT internal AND schema_name = 'main' GROUP BY table_name
)
"""


@dataclass(frozen=True)
class PreparedSelect:
    """A statement that has been checked: the rows it will give, and the parameters it takes.

    `parameter_schema` has one field a parameter, named "1", "2", ... for `?` and as written for `$name`. Its
    types are strings, because the engine decides on a type when it gets the value; it also takes others.
    `schema` is exact for the parameters given to `prepare`; without them the type of a column that is
    nothing but a parameter is a guess.
    """

    sql: str
    schema: pa.Schema
    parameter_schema: pa.Schema


class Reader:
    """Runs read-only SQL on the database of `connection`, from any number of threads, within limits.

    With `apart` each statement is planned first by a process that can be ended, and runs there if the engine
    might not let itself be interrupted; the database must be the store's. Closing the reader closes it.
    """

    def __init__(
        self,
        connection: duckdb.DuckDBPyConnection,
        limits: Limits | None = None,
        apart: Apart | None = None,
    ) -> None:
        self._connection = connection
        self._limits = Limits() if limits is None else limits
        self._places = Places(self._limits)
        self._watchdog = Watchdog()
        self._open: weakref.WeakSet[Rows] = weakref.WeakSet()
        self._lock = threading.Lock()
        self._closed = False
        self._checked: dict[str, Select] = {}
        self._apart = apart
        self._planned: set[tuple[object, ...]] = set()

    def query(self, sql: str, parameters: Parameters = (), caller: Caller | None = None) -> Rows:
        """The rows of one statement, as they are at this moment; what is written later is not seen.

        Raises:
            StatementRefused: the statement does more than read.
            SqlError: the engine does not accept it; the message is the engine's.
            QueryTimeout: the first rows took longer than allowed.
            TooManyQueries: as many queries run as may, or as the caller may have.
            CallerLeft: the caller has gone.
        """
        rows, select = self._begin(sql, caller)
        try:
            values = _fitting(select, parameters)
            self._plan(rows, select, values)
            if self._apart is not None and runs_apart(select, values):
                return rows.read(lambda: self._run_apart(rows, select, values))
            return rows.start(select.sql, values)
        except BaseException:
            rows.close()  # now: the error's trace would keep it alive for as long as somebody looks at it
            raise

    def prepare(
        self, sql: str, parameters: Parameters | None = None, caller: Caller | None = None
    ) -> PreparedSelect:
        """Checks a statement and says what it gives, without running it. Raises what `query` does."""
        rows, select = self._begin(sql, caller)
        with rows:
            if parameters is not None:
                parameters = _fitting(select, parameters)
            tried = guesses(select) if parameters is None else [parameters]
            apart = self._apart
            if apart is not None and any(runs_apart(select, values) for values in tried):
                schema = rows.run(lambda: apart.shape(select, parameters, rows.ending))
            else:
                for values in tried:
                    self._plan(rows, select, values)
                schema = rows.run(lambda: shape(rows.cursor, select, parameters))
        takes = pa.schema([pa.field(name, pa.string()) for name in select.parameters])
        return PreparedSelect(select.sql, plain_schema(schema), takes)

    def transaction(self, caller: Caller | None = None) -> Rows:
        """A read-only transaction for the store's own questions, within the same limits.

        For trusted statements: they do not pass the gate. Use it as a context manager, with `run`.
        """
        caller = caller or Caller()
        with self._lock:
            if self._closed:
                raise StoreClosed("the store is closed")
            cursor = self._connection.cursor()
            places, name = self._places, caller.name
            places.take(name)
            rows = Rows(cursor, self._watchdog, self._limits, ended=lambda: places.leave(name))
            self._open.add(rows)
        caller.follow(rows)
        return rows

    @property
    def open_queries(self) -> int:
        """How many queries hold a transaction right now."""
        with self._lock:
            return sum(not rows.closed for rows in self._open)

    def close(self) -> None:
        """Stops what is running and takes no more; the connection stays open."""
        with self._lock:
            self._closed = True
            running = list(self._open)
        for rows in running:
            rows.end(StoreClosed("the store was closed while the query ran"))
        if self._apart is not None:
            self._apart.close()
        for rows in running:
            rows.close()  # when its own thread lets go of it, which the watchdog interrupts until then
        self._watchdog.close()

    def _begin(self, sql: str, caller: Caller | None) -> tuple[Rows, Select]:
        rows = self.transaction(caller)
        try:
            select = self._checked.get(sql)
            if select is None:
                select = rows.run(lambda: check(sql, rows.cursor))  # the store may be closed meanwhile
                self._remember(sql, select)
        except BaseException:
            rows.close()
            raise
        return rows, select

    def _remember(self, sql: str, select: Select) -> None:
        """Clients prepare a statement and then run it, and dashboards ask the same again and again."""
        if len(sql) <= REMEMBERED_SQL:
            if len(self._checked) >= REMEMBERED:
                self._checked.clear()
            self._checked[sql] = select

    def _plan(self, rows: Rows, select: Select, values: Parameters) -> None:
        """Has a statement planned apart, once for each set of types: the planner cannot be interrupted."""
        if self._apart is None:
            return
        apart = self._apart
        given = values.items() if isinstance(values, Mapping) else enumerate(values)
        key = (select.sql, *((name, type(value)) for name, value in given))
        if key not in self._planned:
            if runs_apart(select, values):
                rows.run(lambda: apart.shape(select, values, rows.ending))
            else:
                rows.run(lambda: apart.plan(select, values, rows.ending))
            if len(self._planned) >= REMEMBERED:
                self._planned.clear()
            if len(select.sql) <= REMEMBERED_SQL:
                self._planned.add(key)

    def _run_apart(self, rows: Rows, select: Select, values: Parameters) -> object:
        assert self._apart is not None
        return self._apart.run(select, values, _copies(rows.cursor, select), rows.ending)


def _copies(cursor: duckdb.DuckDBPyConnection, select: Select) -> Iterator[Copy]:
    """What a statement reads: the columns that it names of the tables and views that it names."""
    for kind, name, columns in ask(cursor, RELATIONS_SQL):
        if name.lower() in select.words:
            every = "*" in select.words
            wanted = [column for column in columns if every or column.lower() in select.words] or columns[:1]
            listed = ", ".join(f'"{column}"' for column in wanted)
            yield Copy(kind, name, stream(cursor, f'SELECT {listed} FROM main."{name}"', (), BATCH_ROWS))


def runs_apart(select: Select, values: Parameters) -> bool:
    """Whether the engine might not let itself be interrupted while it runs a statement with these values."""
    given = values.values() if isinstance(values, Mapping) else values
    likes = not select.words.isdisjoint(LIKE)
    return select.apart or (likes and not all(simple_pattern(value) for value in given))


def _fitting(select: Select, parameters: Parameters) -> Parameters:
    """The values, if they are those that the statement takes: by name if it names them, else by place."""
    takes = select.parameters
    if select.named:
        fits = isinstance(parameters, Mapping) and set(parameters) == set(takes)
    else:
        fits = not isinstance(parameters, Mapping) and len(parameters) == len(takes)
    if fits:
        return parameters
    if select.named:
        given = sorted(parameters) if isinstance(parameters, Mapping) else f"{len(parameters)} without names"
        raise SqlError(f"the statement takes parameters named {', '.join(takes)}; given are {given}")
    raise SqlError(f"the statement takes {len(takes)} parameters, given are {len(parameters)}")
