"""DuckDB's side of the tables: types, DDL, numbered migrations and the views."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from functools import cache
from importlib import resources

import duckdb
import pyarrow as pa

from roofleet_collector.errors import StoreUnreadable
from roofleet_proto.tables import Table

ROW_VIEWS = (
    "roof_sizes",
    "roofline_roofs",
    "run_roofs",
    "op_work",
    "op_summary",
    "unknown_ops",
    "layer_steps",
    "phase_iterations",
    "layer_iterations",
    "decode_by_context",
    "reading_history",
)
"""Published views that are worked out from rows each time, each after those it reads."""
FIGURE_VIEWS = (
    "work_roofs",
    "phase_repeats",
    "phase_summary",
    "run_summary",
    "layer_summary",
    "memory_summary",
    "phase_comparison",
    "layer_comparison",
    "roofline_points",
    "achieved_roofs",
    "fleet_status",
    "bottlenecks",
)
"""Published views of figures that are kept when a run ends, each after those it reads."""
VIEWS = (*ROW_VIEWS, *FIGURE_VIEWS)
"""The published views."""

_SCALARS = {
    pa.string(): "VARCHAR",
    pa.int64(): "BIGINT",
    pa.float64(): "DOUBLE",
    pa.bool_(): "BOOLEAN",
    pa.timestamp("us", tz="UTC"): "TIMESTAMPTZ",
}


def duckdb_type(type: pa.DataType) -> str:
    """The DuckDB type that holds an Arrow type of the tables; KeyError for one the tables do not use."""
    if pa.types.is_list(type):
        return f"{duckdb_type(type.value_type)}[]"
    if pa.types.is_struct(type):
        return f"STRUCT({', '.join(f'{f.name} {duckdb_type(f.type)}' for f in type)})"
    return _SCALARS[type]


def create_table(table: Table) -> str:
    """The CREATE TABLE statement of a table. Only a table whose rows replace one another has a key."""
    lines = [
        f'    "{c.name}" {duckdb_type(c.type)}{" NOT NULL" if c.required else ""}' for c in table.columns
    ]
    if table.replaces:
        lines.append(f"    PRIMARY KEY ({', '.join(table.key)})")
    return f"CREATE TABLE {table.name} (\n" + ",\n".join(lines) + "\n);"


def migrations() -> list[tuple[int, str]]:
    """Number and SQL of every migration, in order."""
    folder = resources.files("roofleet_collector.store") / "migrations"
    found = [
        (int(f.name[:4]), f.read_text()) for f in folder.iterdir() if re.match(r"\d{4}_.*\.sql$", f.name)
    ]
    return sorted(found)


def migrate(connection: duckdb.DuckDBPyConnection) -> int:
    """Brings a database to the newest schema, each step in a transaction, and lays the views if they differ.

    Returns the schema's number. Raises StoreUnreadable if the file was written by a newer Roofleet.
    """
    connection.execute("CREATE TABLE IF NOT EXISTS schema_version (version INTEGER PRIMARY KEY)")
    done = {int(number) for (number,) in connection.execute("SELECT version FROM schema_version").fetchall()}
    known = migrations()
    if (newest := max(done, default=0)) > known[-1][0]:
        raise StoreUnreadable(
            f"the data has schema {newest}, this Roofleet knows {known[-1][0]}: install a newer one"
        )
    for number, sql in known:
        if number not in done:
            connection.execute("BEGIN")
            connection.execute(sql)
            connection.execute("INSERT INTO schema_version VALUES (?)", [number])
            connection.execute("COMMIT")
    if not is_current(connection):
        connection.execute("BEGIN")
        connection.execute("CREATE TABLE IF NOT EXISTS views_laid (digest VARCHAR NOT NULL)")
        for sql in _laid():
            connection.execute(sql)
        connection.execute("DELETE FROM views_laid")
        connection.execute("INSERT INTO views_laid VALUES (?)", [_digest()])
        connection.execute("COMMIT")
    return known[-1][0]


def is_current(connection: duckdb.DuckDBPyConnection) -> bool:
    """Whether a database has the tables and the views of this version."""
    try:
        laid = connection.execute(
            "SELECT digest FROM views_laid WHERE (SELECT list_sort(list(version)) FROM schema_version) = ?",
            [[number for number, _ in migrations()]],
        ).fetchall()
    except duckdb.CatalogException:
        return False
    return laid == [(_digest(),)]


@cache
def _digest() -> str:
    """Of all views: laying them takes ten times as long as opening the file."""
    return hashlib.sha256("".join(_laid()).encode()).hexdigest()


def _laid() -> list[str]:
    """The statements that lay macros and views, in order; `views/inner` has what several of them share."""
    roofed = view_sql("inner/roofed_phases")
    return [
        *map(view_sql, ("macros", *ROW_VIEWS)),
        view_sql("inner/timed_phases"),
        roofed,
        roofed.replace("roofed_phases", "roofed_layers").replace("timed_phases", "layer_figures"),
        *map(view_sql, ("inner/judged_phases", "inner/judged_layers", *FIGURE_VIEWS)),
    ]


def view_sql(name: str) -> str:
    """The SQL file of a view."""
    return (resources.files("roofleet_collector.store") / "views" / f"{name}.sql").read_text()


@dataclass(frozen=True)
class ViewDoc:
    """A view's sentence and its columns' sentences, as its file states them."""

    name: str
    doc: str
    columns: dict[str, str]


def view_doc(name: str) -> ViewDoc:
    """Reads the comment at the head of a view's file: its sentence, then `column: sentence` lines."""
    head = []
    for line in view_sql(name).splitlines():
        if not line.startswith("--"):
            break
        head.append(line[2:].strip())
    columns = dict(line.split(": ", 1) for line in head[1:])
    return ViewDoc(name, head[0], columns)
