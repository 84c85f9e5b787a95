"""The statement gate: lets through one statement that only reads, and says no to everything else.

A read-only transaction already stops writes to tables. It does not stop `ATTACH ':memory:'`, temporary
tables, secrets, `FROM checkpoint()`, or functions that take raw pointers or switch on logging to a file (in
DuckDB 1.5 that last one ends the whole process once file access is closed). So the gate looks at the
statement as the engine's own parser sees it: what may stand in FROM is a list of what is allowed, because
new versions bring new table functions; what may stand in an expression is everything but a few.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import duckdb

from roofleet_collector.errors import SqlError, StatementRefused
from roofleet_collector.store.engine import ask
from roofleet_collector.store.functions import must_run_apart
from roofleet_collector.store.text import plain_text

ALLOWED = (
    "allowed is one statement that only reads: SELECT, WITH, VALUES, FROM, DESCRIBE, SHOW, SUMMARIZE, EXPLAIN"
)

_IN_FROM = """
generate_series generate_subscripts range repeat repeat_row unnest summary json_each json_tree
duckdb_columns duckdb_constraints duckdb_databases duckdb_dependencies duckdb_extensions duckdb_functions
duckdb_indexes duckdb_keywords duckdb_memory duckdb_optimizers duckdb_schemas duckdb_sequences
duckdb_settings duckdb_tables duckdb_temporary_files duckdb_types duckdb_views duckdb_connection_count
duckdb_approx_database_count icu_calendar_names pg_timezone_names
pragma_collations pragma_database_size pragma_platform pragma_show pragma_storage_info pragma_table_info
pragma_user_agent pragma_version
"""
TABLE_FUNCTIONS = frozenset(_IN_FROM.split())
"""Functions that may stand in FROM. None of them opens a file, runs a text as SQL or changes anything."""

REFUSED_FUNCTIONS = frozenset(
    {"nextval", "currval", "setseed", "write_log", "sleep_ms", "pg_sleep", "getenv"}
)
"""Functions that may not stand in an expression: they change something, wait, or look elsewhere."""

_LIKE_A_FILE = re.compile(r"[./\\:*?\[]")
"""In a table's name. The engine reads a file of that name where there is no such table; the lock-down closes
all but the database's own."""

QUERY_NODES = frozenset({"SELECT_NODE", "SET_OPERATION_NODE", "RECURSIVE_CTE_NODE", "CTE_NODE"})
"""Kinds of query that read. A DELETE inside WITH, where an engine accepts it, is another kind."""

_EXPLAIN = re.compile(r"\s*EXPLAIN\b\s*(\([^()]*\))?(.*)", re.IGNORECASE | re.DOTALL)
_PRAGMA = re.compile(r"\s*PRAGMA\s+(\w+)\s*(\(.*\))?\s*", re.IGNORECASE | re.DOTALL)
_ANALYZE = re.compile(r"\s*ANALY[SZ]E\b", re.IGNORECASE)


@dataclass(frozen=True)
class Select:
    """One statement that only reads, and the names of its parameters in order (`?` are "1", "2", ...).

    `sql` has no comments and no semicolon at its end; it is the text that was checked, and that is run.
    With `apart` the engine might not let itself be interrupted while it runs. `words` are all names and texts
    in it, in lower case, "*" for all columns.
    """

    sql: str
    parameters: tuple[str, ...]
    explains: bool = False
    apart: bool = False
    words: frozenset[str] = frozenset()

    @property
    def named(self) -> bool:
        """Whether values are given by name (`$model`) rather than by place."""
        return any(not name.isdigit() for name in self.parameters)


def check(sql: str, cursor: duckdb.DuckDBPyConnection) -> Select:
    """The statement, if it only reads. `cursor` lends its parser; nothing is run on it.

    Raises:
        StatementRefused: it does something else, is more than one, or is too long or too deep.
        SqlError: it cannot be parsed; the message is the engine's.
    """
    sql = plain_text(sql)
    try:
        statements = cursor.extract_statements(sql)
    except (duckdb.Error, UnicodeDecodeError) as error:  # a message may be cut in the middle of a letter
        raise SqlError(str(error)) from error
    if not statements:
        raise StatementRefused(f"there is no statement; {ALLOWED}")
    if len(statements) > 1:
        if not any(statement.query.strip() for statement in statements):
            # The engine turns such a PIVOT into CREATE TYPE and SELECT, neither with a text of its own.
            raise StatementRefused("PIVOT needs its values listed here: PIVOT t ON column IN ('a', 'b')")
        raise StatementRefused(f"{len(statements)} statements; {ALLOWED}")
    (statement,) = statements
    kind, text = _kind(statement), statement.query
    if kind == "PRAGMA" and (reading := _PRAGMA.fullmatch(text)):
        # version 1.5 does this itself: the SELECT that a reading PRAGMA stands for
        kind, text = "SELECT", f"SELECT * FROM pragma_{reading[1]}{reading[2] or '()'}"
    if kind == "EXPLAIN":
        tree = _checked_tree(_explained(text), cursor)
    elif kind == "SELECT":
        tree = _checked_tree(text, cursor)
    else:
        raise StatementRefused(f"{kind} is refused; {ALLOWED}")
    names = tuple(sorted(statement.named_parameters, key=_place))
    explains = kind == "EXPLAIN"
    return Select(text, names, explains, not explains and must_run_apart(list(_nodes(tree))), _words(tree))


def _kind(statement: duckdb.Statement) -> str:
    try:
        name: str = statement.type.name
    except ValueError:  # a kind that the engine has and its Python package does not know
        name = ""
    return name.replace("_", " ").strip("?") or "this kind of statement"


def _place(name: str) -> tuple[int, str]:
    return (int(name), "") if name.isdigit() else (0, name)


def _explained(sql: str) -> str:
    found = _EXPLAIN.fullmatch(sql)
    if found is None:
        raise StatementRefused(f"EXPLAIN is allowed as EXPLAIN SELECT ...; {ALLOWED}")
    options, rest = found.groups()
    if _ANALYZE.match(rest) or "analy" in (options or "").lower():
        raise StatementRefused("EXPLAIN ANALYZE is refused because it runs the statement; EXPLAIN is allowed")
    return str(rest)


def _checked_tree(sql: str, cursor: duckdb.DuckDBPyConnection) -> Any:
    ((text,),) = ask(cursor, "SELECT json_serialize_sql(?::VARCHAR)", [sql])
    try:
        tree = json.loads(text)
    except RecursionError as error:
        raise StatementRefused("the statement is nested too deeply to be checked") from error
    if tree["error"]:
        raise StatementRefused(f"{ALLOWED} of these")
    for node in _nodes(tree["statements"]):
        _check_node(node)
    return tree["statements"]


def _words(tree: Any) -> frozenset[str]:
    words: set[str] = set()
    for node in _nodes(tree):
        if node.get("class") == "STAR" or node.get("ref_type") == "NATURAL" or node.get("type") == "SHOW_REF":
            words.add("*")
        for value in node.values():
            for each in value if isinstance(value, list) else (value,):
                if isinstance(each, str):
                    words.add(each.lower())
    return frozenset(words)


def _nodes(tree: Any) -> Iterator[dict[str, Any]]:
    waiting = [tree]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            yield value
            waiting.extend(value.values())
        elif isinstance(value, list):
            waiting.extend(value)


def _check_node(node: dict[str, Any]) -> None:
    if "cte_map" in node and node.get("type") not in QUERY_NODES:
        raise StatementRefused(f"{node.get('type')} is refused inside a query; {ALLOWED}")
    if node.get("type") == "TABLE_FUNCTION":
        name = str(node["function"]["function_name"]).lower()
        if name not in TABLE_FUNCTIONS:
            raise StatementRefused(
                f"{name}() is refused in FROM; allowed are tables, views, range, unnest, "
                f"generate_series, json_each and the duckdb_...() catalogue functions"
            )
    elif node.get("type") == "BASE_TABLE" and _LIKE_A_FILE.search(str(node.get("table_name"))):
        raise StatementRefused(f"{node['table_name']!r} is refused in FROM; allowed are tables and views")
    elif str(node.get("function_name", "")).lower() in REFUSED_FUNCTIONS:
        raise StatementRefused(f"{node['function_name']}() is refused because it does more than read")
