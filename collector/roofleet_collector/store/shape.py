"""What a statement gives: the schema of its rows, found without running it."""

from __future__ import annotations

import re

import duckdb
import pyarrow as pa

from roofleet_collector.store.engine import Parameters, ask, relation, schema_of, with_place
from roofleet_collector.store.statements import Select


def shape(cursor: duckdb.DuckDBPyConnection, select: Select, parameters: Parameters | None) -> pa.Schema:
    """The schema of a statement's rows, without running it; a guess where it depends on missing `parameters`.

    Raises duckdb.Error with the place in the statement's own text.
    """
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
    for values in guesses(select):
        try:
            return _schema_with(cursor, select, values)
        except duckdb.Error as error:
            problem = error
    if select.explains:
        raise problem
    ask(cursor, f"PREPARE roofleet_statement AS {select.sql}")  # raises if it is wrong for every value
    return pa.schema([])


def guesses(select: Select) -> list[Parameters]:
    """Values to find out with what a statement gives: NULL, or a number where a function takes no NULL."""
    if not select.parameters:
        return [()]
    count = len(select.parameters)
    return [dict.fromkeys(select.parameters, each) if select.named else [each] * count for each in (None, 1)]
