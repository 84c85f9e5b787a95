"""Rows on their way out: table builders and the sink that takes them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Protocol

import pyarrow as pa

from roofleet_proto.tables import TABLES


class Sink(Protocol):
    """Takes rows of a table; they are safe when `write` returns."""

    def write(self, table: str, rows: pa.Table) -> None:
        """Keeps the rows, in the order of the calls."""
        ...


def table_of(table: str, rows: Iterable[Mapping[str, Any]]) -> pa.Table:
    """Rows given as mappings, as an Arrow table with the schema of that table.

    A column that no mapping names is NULL; KeyError for one the table does not have.
    """
    schema = TABLES[table].schema
    listed = list(rows)
    known = set(schema.names)
    for row in listed:
        if not known.issuperset(row):
            raise KeyError(f"table {table} has no column {sorted(set(row) - known)[0]!r}")
    return pa.Table.from_pylist(listed, schema=schema)
