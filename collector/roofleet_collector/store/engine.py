"""What differs between DuckDB 1.5 and 2, so that nothing else in the store knows which one is installed.

Version 2 keeps the result of `execute` open until it is read to its end, and refuses other work on the cursor
until then; it streams relations, with parameters too, and copies what was executed. Version 1.5 streams what
was executed, and computes a relation with parameters whole before its first row (43 s and 2.4 GB for 20
million rows).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

IS_TWO = int(duckdb.__version__.split(".")[0]) >= 2
FILE_FORMAT = "v1.5.0"
"""The newest that both versions read; left to itself version 2 makes files that 1.5 cannot open."""

Parameters = Sequence[object] | Mapping[str, object]


def connect(path: Path, *, read_only: bool = False) -> duckdb.DuckDBPyConnection:
    """Opens a file, or makes one that both versions can read. Raises duckdb.Error."""
    return duckdb.connect(
        str(path), read_only=read_only, config={"storage_compatibility_version": FILE_FORMAT}
    )


def is_of_a_newer_version(error: duckdb.Error) -> bool:
    """Whether a file could not be opened because a newer DuckDB has written it."""
    return "newer version of DuckDB" in str(error)


@dataclass(frozen=True)
class Damage:
    """What a file could not be opened for: its log from a place on, or without a place the file itself."""

    log_from: int | None = None


def damage(error: duckdb.Error) -> Damage | None:
    """The damage that an error of opening tells of; None if it tells of something else."""
    said = str(error)
    if "replaying WAL" in said:
        found = re.search(r"entry at byte position (\d+)", said)
        return Damage(int(found[1]) if found else 0)
    broken = ("Corrupt database file", "not a valid DuckDB database", "Could not read enough bytes")
    return Damage() if any(words in said for words in broken) else None


def has_given_up(error: BaseException) -> bool:
    """Whether the engine takes no more work on the database until it is opened anew."""
    return isinstance(error, duckdb.FatalException)


def is_of_the_machine(error: BaseException) -> bool:
    """Whether a transaction failed for want of disk or the like, whatever it was to store."""
    if isinstance(error, duckdb.TransactionException):  # of a COMMIT, whose log could not be written
        return re.search(r"Could not (write|sync|fsync|open|truncate)|No space left", str(error)) is not None
    return isinstance(error, (duckdb.IOException, duckdb.FatalException, OSError))


def is_of_the_rows(error: BaseException) -> bool:
    """Whether rows can never be stored: their values or their columns are not the table's."""
    return isinstance(
        error, (duckdb.DataError, duckdb.IntegrityError, duckdb.ProgrammingError, pa.ArrowInvalid)
    )


def ask(cursor: duckdb.DuckDBPyConnection, sql: str, parameters: Parameters = ()) -> list[Any]:
    """Runs a statement to its end, so that the cursor is free for the next; its rows."""
    return list(cursor.execute(sql, _values(parameters)).fetchall())


def relation(
    cursor: duckdb.DuckDBPyConnection, sql: str, parameters: Parameters = ()
) -> duckdb.DuckDBPyRelation:
    """One SELECT and the like, not run yet."""
    if not parameters:
        return cursor.sql(sql)
    return cursor.sql(sql, params=_values(parameters))


def stream(cursor: duckdb.DuckDBPyConnection, sql: str, parameters: Parameters, batch_rows: int) -> Any:
    """A `pyarrow.RecordBatchReader` that computes rows as they are read."""
    if IS_TWO:
        try:
            bound = relation(cursor, sql, parameters)
        except duckdb.Error as error:
            raise with_place(cursor, sql, error) from error
        return bound.to_arrow_reader(batch_rows)
    return cursor.execute(sql, _values(parameters)).to_arrow_reader(batch_rows)


def table_of(cursor: duckdb.DuckDBPyConnection, sql: str, parameters: Parameters = ()) -> pa.Table:
    """The rows of one SELECT, all of them. What is inserted where it was read from must be read like this
    before: version 1.5 comes upon the rows that it has just inserted."""
    return relation(cursor, sql, parameters).to_arrow_table()


def schema_of(bound: duckdb.DuckDBPyRelation) -> pa.Schema:
    """The Arrow schema of a relation's rows, without computing one. Two columns may have one name."""
    fields = bound.limit(0).to_arrow_table().schema
    return pa.schema([field.with_name(name) for field, name in zip(fields, bound.columns, strict=True)])


def with_place(cursor: duckdb.DuckDBPyConnection, sql: str, error: duckdb.Error) -> duckdb.Error:
    """The same error with the place in the user's own text, which only a statement on its own gets."""
    try:
        ask(cursor, f"PREPARE roofleet_statement AS\n{sql}")
    except duckdb.ParserException:
        pass
    except duckdb.Error as better:
        text = re.sub(r"^LINE (\d+):", lambda found: f"LINE {int(found[1]) - 1}:", str(better), flags=re.M)
        return type(better)(text)
    return error


def arguments(node: dict[str, Any]) -> list[dict[str, Any]]:
    """What a function is given, in the tree that `json_serialize_sql` makes of a statement."""
    if "arguments" in node:  # version 2
        return [argument["expression"] for argument in node["arguments"]]
    return list(node.get("children", ()))


def constant(node: dict[str, Any]) -> object:
    """The value of a constant in such a tree; a number may be a text."""
    return (node.get("value") or {}).get("value", (node.get("literal") or {}).get("text"))


def _values(parameters: Parameters) -> Any:
    return dict(parameters) if isinstance(parameters, Mapping) else list(parameters)
