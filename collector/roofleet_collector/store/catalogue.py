"""What is in the store: catalogs, schemas, tables, views, their columns and primary keys."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import duckdb
import pyarrow as pa

from roofleet_collector.store.engine import ask
from roofleet_collector.store.plain import plain_schema
from roofleet_collector.store.reader import Reader

TABLE_TYPES = ("TABLE", "VIEW")

SCHEMAS_SQL = """
SELECT s.database_name, s.schema_name
FROM duckdb_schemas() s JOIN duckdb_databases() d USING (database_name)
WHERE NOT d.internal AND s.schema_name NOT IN ('information_schema', 'pg_catalog')
    AND ($catalog IS NULL OR s.database_name = $catalog)
    AND ($schema IS NULL OR s.schema_name LIKE $schema ESCAPE '\\')
ORDER BY ALL
"""

TABLES_SQL = """
WITH entries AS (
    SELECT database_name, schema_name, table_name AS name, 'TABLE' AS kind
    FROM duckdb_tables() WHERE NOT internal AND NOT temporary
    UNION ALL
    SELECT database_name, schema_name, view_name, 'VIEW'
    FROM duckdb_views() WHERE NOT internal AND NOT temporary
)
SELECT database_name, schema_name, name, kind FROM entries
WHERE ($catalog IS NULL OR database_name = $catalog)
    AND ($schema IS NULL OR schema_name LIKE $schema ESCAPE '\\')
    AND ($name IS NULL OR name LIKE $name ESCAPE '\\')
    AND ($kinds = [] OR list_contains($kinds, kind))
ORDER BY ALL
"""

COLUMNS_SQL = """
SELECT column_name, data_type, comment FROM duckdb_columns()
WHERE database_name = ? AND schema_name = ? AND table_name = ?
"""

PRIMARY_KEYS_SQL = """
SELECT database_name, schema_name, table_name, column_name, place
FROM (
    SELECT database_name, schema_name, table_name, unnest(constraint_column_names) AS column_name,
        generate_subscripts(constraint_column_names, 1) AS place
    FROM duckdb_constraints() WHERE constraint_type = 'PRIMARY KEY'
)
WHERE table_name = $table
    AND ($catalog IS NULL OR database_name = $catalog)
    AND ($schema IS NULL OR schema_name = $schema)
ORDER BY database_name, schema_name, table_name, place
"""


@dataclass(frozen=True)
class TableEntry:
    """A table or a view; `kind` is one of TABLE_TYPES, `schema` is there if it was asked for."""

    catalog: str
    db_schema: str
    name: str
    kind: str
    schema: pa.Schema | None = None


@dataclass(frozen=True)
class KeyColumn:
    """A column of a primary key; `place` counts from 1."""

    catalog: str
    db_schema: str
    table: str
    column: str
    place: int


class Catalogue:
    """Answers about the reader's database. Patterns are those of LIKE, with a backslash to escape.

    None and () do not filter. Every method raises SqlError or QueryTimeout as `Reader.query` does.
    """

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    def catalogs(self) -> list[str]:
        """The names of the databases."""
        return [
            row[0] for row in self._ask("SELECT database_name FROM duckdb_databases() WHERE NOT internal")
        ]

    def schemas(self, catalog: str | None = None, pattern: str | None = None) -> list[tuple[str, str]]:
        """Pairs of catalog and schema, in order."""
        return [(row[0], row[1]) for row in self._ask(SCHEMAS_SQL, {"catalog": catalog, "schema": pattern})]

    def tables(
        self,
        catalog: str | None = None,
        schema_pattern: str | None = None,
        name_pattern: str | None = None,
        kinds: tuple[str, ...] = (),
        *,
        with_schema: bool = False,
    ) -> list[TableEntry]:
        """Tables and views, in order. The fields of their schemas carry the engine's type name, and the
        column's comment if it has one, under the keys that Flight SQL gives them."""
        values = {"catalog": catalog, "schema": schema_pattern, "name": name_pattern, "kinds": list(kinds)}
        with self._reader.transaction() as rows:
            names = rows.run(lambda: ask(rows.cursor, TABLES_SQL, values))
            entries = [TableEntry(*name) for name in names]
            if not with_schema:
                return entries
            return rows.run(lambda: [replace(e, schema=_table_schema(rows.cursor, e)) for e in entries])

    def primary_key(
        self, table: str, catalog: str | None = None, db_schema: str | None = None
    ) -> list[KeyColumn]:
        """The columns of the primary key of every table of this name, in order."""
        values = {"table": table, "catalog": catalog, "schema": db_schema}
        return [KeyColumn(*row) for row in self._ask(PRIMARY_KEYS_SQL, values)]

    def _ask(self, sql: str, values: dict[str, Any] | None = None) -> list[tuple[Any, ...]]:
        with self._reader.transaction() as rows:
            return rows.run(lambda: ask(rows.cursor, sql, values or {}))


def _table_schema(cursor: duckdb.DuckDBPyConnection, entry: TableEntry) -> pa.Schema:
    names = [entry.catalog, entry.db_schema, entry.name]
    path = ".".join('"' + name.replace('"', '""') + '"' for name in names)
    try:
        schema = cursor.sql(f"SELECT * FROM {path} LIMIT 0").to_arrow_table().schema
    except (duckdb.BinderException, duckdb.CatalogException):
        return pa.schema([])  # a view over something that is gone must not hide all the others
    facts = {row[0]: row[1:] for row in ask(cursor, COLUMNS_SQL, names)}
    return pa.schema(
        [_described(field, *facts.get(field.name, ("", None))) for field in plain_schema(schema)]
    )


def _described(field: pa.Field, type_name: str, comment: str | None) -> pa.Field:
    metadata = {"ARROW:FLIGHT:SQL:TYPE_NAME": type_name}
    if comment:
        metadata["ARROW:FLIGHT:SQL:REMARKS"] = comment
    return field.with_metadata({**(field.metadata or {}), **metadata})
