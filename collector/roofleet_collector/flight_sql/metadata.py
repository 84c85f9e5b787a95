"""Replies to the metadata commands: catalogs, schemas, tables, keys, with the columns the protocol wants."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from roofleet_collector.flight_sql import sql_info
from roofleet_collector.store.catalogue import TABLE_TYPES, Catalogue
from roofleet_proto import flight_sql as fs


def _schema(**columns: pa.DataType | tuple[pa.DataType]) -> pa.Schema:
    """A type in a tuple is one that may not be NULL; drivers compare this too."""
    return pa.schema(
        [
            pa.field(name, kind[0], nullable=False) if isinstance(kind, tuple) else pa.field(name, kind)
            for name, kind in columns.items()
        ]
    )


TEXT = pa.string()
CATALOGS = _schema(catalog_name=(TEXT,))
DB_SCHEMAS = _schema(catalog_name=TEXT, db_schema_name=(TEXT,))
TABLES = _schema(catalog_name=TEXT, db_schema_name=TEXT, table_name=(TEXT,), table_type=(TEXT,))
TABLES_WITH_SCHEMA = TABLES.append(pa.field("table_schema", pa.binary(), nullable=False))
KINDS = _schema(table_type=(TEXT,))
PRIMARY_KEYS = _schema(
    catalog_name=TEXT,
    db_schema_name=TEXT,
    table_name=(TEXT,),
    column_name=(TEXT,),
    key_name=TEXT,
    key_sequence=(pa.int32(),),
)
FOREIGN_KEYS = _schema(
    pk_catalog_name=TEXT,
    pk_db_schema_name=TEXT,
    pk_table_name=(TEXT,),
    pk_column_name=(TEXT,),
    fk_catalog_name=TEXT,
    fk_db_schema_name=TEXT,
    fk_table_name=(TEXT,),
    fk_column_name=(TEXT,),
    key_sequence=(pa.int32(),),
    fk_key_name=TEXT,
    pk_key_name=TEXT,
    update_rule=(pa.uint8(),),
    delete_rule=(pa.uint8(),),
)


@dataclass(frozen=True)
class Reply:
    """The schema of a reply, known at once, and its rows, asked for when they are read."""

    schema: pa.Schema
    rows: Callable[[], pa.Table]


def reply(command: fs.Command, catalogue: Catalogue) -> Reply | None:
    """The reply to a metadata command; None if the command is not one."""
    match command:
        case fs.GetCatalogs():
            return _reply(CATALOGS, lambda: [(name,) for name in catalogue.catalogs()])
        case fs.GetDbSchemas(catalog, pattern):
            return _reply(DB_SCHEMAS, lambda: catalogue.schemas(catalog, pattern))
        case fs.GetTables():
            return _tables(command, catalogue)
        case fs.GetTableTypes():
            return _reply(KINDS, lambda: [(kind,) for kind in TABLE_TYPES])
        case fs.GetPrimaryKeys(table, catalog, db_schema):
            return _reply(PRIMARY_KEYS, lambda: _primary_key(catalogue, table, catalog, db_schema))
        case fs.GetExportedKeys() | fs.GetImportedKeys() | fs.GetCrossReference():
            # The store declares no foreign keys: rows of a run may arrive before the run itself.
            return _reply(FOREIGN_KEYS, list)
        case fs.GetSqlInfo(numbers):
            return Reply(sql_info.SCHEMA, lambda: sql_info.table(numbers))
    return None


def _reply(schema: pa.Schema, rows: Callable[[], Sequence[tuple[Any, ...]]]) -> Reply:
    def table() -> pa.Table:
        found = [dict(zip(schema.names, row, strict=True)) for row in rows()]
        return pa.Table.from_pylist(found, schema=schema)

    return Reply(schema, table)


def _tables(command: fs.GetTables, catalogue: Catalogue) -> Reply:
    def rows() -> list[tuple[Any, ...]]:
        entries = catalogue.tables(
            command.catalog,
            command.db_schema_filter_pattern,
            command.table_name_filter_pattern,
            command.table_types,
            with_schema=command.include_schema,
        )
        return [
            (e.catalog, e.db_schema, e.name, e.kind)
            + (() if e.schema is None else (e.schema.serialize().to_pybytes(),))
            for e in entries
        ]

    return _reply(TABLES_WITH_SCHEMA if command.include_schema else TABLES, rows)


def _primary_key(
    catalogue: Catalogue, table: str, catalog: str | None, db_schema: str | None
) -> list[tuple[Any, ...]]:
    key = catalogue.primary_key(table, catalog, db_schema)
    return [(c.catalog, c.db_schema, c.table, c.column, None, c.place) for c in key]
