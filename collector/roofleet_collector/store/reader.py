"""The guarded reader: SQL from users, checked, in read-only transactions, streamed and bounded in time."""

from __future__ import annotations

import re
import threading
import weakref
from collections.abc import Mapping
from dataclasses import dataclass

import duckdb
import pyarrow as pa

from roofleet_collector.errors import SqlError, StoreClosed
from roofleet_collector.store.caller import Caller
from roofleet_collector.store.engine import Parameters, ask, relation, schema_of, with_place
from roofleet_collector.store.limits import Limits, Places
from roofleet_collector.store.plain import plain_schema
from roofleet_collector.store.rows import Rows
from roofleet_collector.store.statements import Select, check
from roofleet_collector.store.watchdog import Watchdog

LOCKS = (
    "SET GLOBAL TimeZone = 'UTC'",  # a plain SET would not reach the cursors that queries run on
    "SET GLOBAL python_enable_replacements = false",
    "SET GLOBAL autoload_known_extensions = false",
    "SET GLOBAL autoinstall_known_extensions = false",
    "SET GLOBAL allow_community_extensions = false",
    "SET GLOBAL allow_persistent_secrets = false",
    "SET GLOBAL enable_external_access = false",
    "SET GLOBAL lock_configuration = true",
)

REMEMBERED, REMEMBERED_SQL = 256, 8192
"""How many checked statements are kept, and the longest of them."""


def lock_down(connection: duckdb.DuckDBPyConnection) -> None:
    """Closes the database off from files, the network and Python's variables, for good.

    Afterwards every connection to this database is closed off, its configuration cannot be changed, and
    timestamps are in UTC. Arrow tables that a connection registers by name can still be read by it.
    """
    for statement in LOCKS:
        connection.execute(statement)


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
    """Runs read-only SQL on the database of `connection`, from any number of threads, within limits."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, limits: Limits | None = None) -> None:
        self._connection = connection
        self._limits = Limits() if limits is None else limits
        self._places = Places(self._limits)
        self._watchdog = Watchdog()
        self._open: weakref.WeakSet[Rows] = weakref.WeakSet()
        self._lock = threading.Lock()
        self._closed = False
        self._checked: dict[str, Select] = {}

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
            return rows.start(select.sql, _fitting(select, parameters))
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
            schema = rows.run(lambda: _schema(rows.cursor, select, parameters))
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


def _schema(cursor: duckdb.DuckDBPyConnection, select: Select, parameters: Parameters | None) -> pa.Schema:
    try:
        if not select.parameters:
            return schema_of(relation(cursor, select.sql))
        if parameters is not None:
            return _schema_with(cursor, select, parameters)
        return _guess_schema(cursor, select)
    except duckdb.Error as error:
        raise with_place(cursor, select.sql, error) from error


def _schema_with(cursor: duckdb.DuckDBPyConnection, select: Select, values: Parameters) -> pa.Schema:
    if select.explains:
        return relation(cursor, select.sql, values).to_arrow_table().schema
    schema = relation(cursor, f"SELECT * FROM (\n{select.sql}\n) LIMIT 0", values).to_arrow_table().schema
    if not any(re.search(r"_\d+$", name) for name in schema.names):
        return schema
    # A subquery renames the second of two columns `a` to `a_1`, the statement itself does not.
    try:
        described = ask(cursor, f"DESCRIBE {select.sql}", values)
    except duckdb.ParserException:
        return schema  # itself a DESCRIBE, SHOW or SUMMARIZE, whose columns have names of their own
    return pa.schema([field.with_name(row[0]) for field, row in zip(schema, described, strict=True)])


def _guess_schema(cursor: duckdb.DuckDBPyConnection, select: Select) -> pa.Schema:
    # Some functions accept no NULL while they are bound; then a number may do.
    for guess in (None, 1):
        values = dict.fromkeys(select.parameters, guess) if select.named else [guess] * len(select.parameters)
        try:
            return _schema_with(cursor, select, values)
        except duckdb.Error as error:
            problem = error
    if select.explains:
        raise problem
    ask(cursor, f"PREPARE roofleet_statement AS {select.sql}")  # raises if it is wrong for every value
    return pa.schema([])
