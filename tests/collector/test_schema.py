"""The database's schema is the tables', and every view is documented column by column."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest

from roofleet_collector.errors import StoreUnreadable
from roofleet_collector.store import DuckDBStore
from roofleet_collector.store.schema import VIEWS, create_table, migrate, migrations, view_doc, view_sql
from roofleet_proto.tables import TABLES

ROOT = Path(__file__).parents[2]
DESCRIBE = (
    "SELECT column_name, data_type, is_nullable FROM duckdb_columns() WHERE table_name = ? "
    "AND NOT internal ORDER BY column_index"
)


@pytest.fixture(scope="module")
def migrated() -> Iterator[duckdb.DuckDBPyConnection]:
    """A database that has gone through every migration."""
    with duckdb.connect() as connection:
        migrate(connection)
        yield connection


@pytest.mark.parametrize("table", TABLES)
def test_migrations_end_at_the_tables_of_the_vocabulary(
    table: str, migrated: duckdb.DuckDBPyConnection
) -> None:
    """A column added to tables.py without a migration, or the other way round, fails here."""
    fresh = duckdb.connect()
    fresh.execute(create_table(TABLES[table]))
    found = migrated.execute(DESCRIBE, [table]).fetchall()
    assert found == fresh.execute(DESCRIBE, [table]).fetchall()
    assert found


def test_migrations_are_numbered_without_gaps() -> None:
    """Every number from 1 on is there once."""
    assert [number for number, _ in migrations()] == list(range(1, len(migrations()) + 1))


def test_migrating_twice_changes_nothing() -> None:
    """A database at the newest schema stays as it is."""
    connection = duckdb.connect()
    first = migrate(connection)
    connection.execute("INSERT INTO hosts (host_id, hostname) VALUES ('h', 'one')")
    assert migrate(connection) == first
    assert connection.execute("SELECT hostname FROM hosts").fetchall() == [("one",)]


def test_rows_of_the_first_schema_are_kept() -> None:
    """A data folder of the release before is brought up to date with its rows in it."""
    connection = duckdb.connect()
    connection.execute("CREATE TABLE schema_version (version INTEGER PRIMARY KEY)")
    connection.execute(migrations()[0][1])
    connection.execute("INSERT INTO schema_version VALUES (1)")
    connection.execute("INSERT INTO spans VALUES ('r', 'decode', 0, 0, 'a', 1, 2, 3)")
    connection.execute(
        "INSERT INTO roofs VALUES ('d/compute/fp32/measured', 'd', 'compute', 'fp32', NULL, NULL, 160e9, "
        "NULL, 'measured', 'torch.mm of 2048 x 2048 fp32 matrices, best of several, 2 threads', now())"
    )
    migrate(connection)
    found = connection.execute("SELECT path, self_ns, inner_calls FROM spans").fetchall()
    assert found == [("a", 3, None)]
    roofs = connection.execute("SELECT flops_per_s, threads, torch_version FROM roofline_roofs").fetchall()
    assert roofs == [(160e9, 2, None)]


def test_data_of_a_newer_roofleet_is_refused() -> None:
    """A schema that is not known yet is left alone."""
    connection = duckdb.connect()
    newest = migrate(connection)
    connection.execute("INSERT INTO schema_version VALUES (?)", [newest + 1])
    with pytest.raises(StoreUnreadable, match="install a newer one"):
        migrate(connection)


@pytest.mark.parametrize("view", VIEWS)
def test_every_view_column_has_a_sentence(store: DuckDBStore, view: str) -> None:
    """The head of a view's file documents exactly its columns, in their order."""
    columns = store.query(f"SELECT * FROM {view}").read_all().column_names
    doc = view_doc(view)
    assert list(doc.columns) == columns
    assert all(sentence.endswith(".") for sentence in (doc.doc, *doc.columns.values()))


def test_every_view_file_is_published() -> None:
    """No .sql file lies about that is not laid."""
    folder = ROOT / "collector/roofleet_collector/store/views"
    assert {f.stem for f in folder.glob("*.sql")} == {*VIEWS, "macros"}
    assert "CREATE OR REPLACE MACRO" in view_sql("macros")


def test_the_schema_page_is_up_to_date() -> None:
    """docs/schema.md is what `make schema` writes."""
    made = subprocess.run(
        [sys.executable, str(ROOT / "docs/make_schema.py")], capture_output=True, text=True, check=True
    )
    assert made.stdout == (ROOT / "docs/schema.md").read_text()
