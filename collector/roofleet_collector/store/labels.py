"""What people do to a run that is stored: name it, tag it, note something about it, pin it, delete it."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from roofleet_collector.store.figures import forget, refresh_roofs
from roofleet_proto.records import RunChange
from roofleet_proto.tables import TABLES

_OF_RUNS = tuple(
    table.name for table in TABLES.values() if "run_id" in table.schema.names and table.name != "jobs"
)
"""Tables whose rows go with their run; a job was asked for, whatever became of its run."""


def change_run(connection: duckdb.DuckDBPyConnection, change: RunChange) -> bool:
    """Does to the labels of a run what `change` says; False, and nothing, if there is no such run."""
    if not connection.execute("SELECT 1 FROM runs WHERE run_id = ?", [change.run_id]).fetchone():
        return False
    found = connection.execute(
        "SELECT name, note, tags FROM run_labels WHERE run_id = ?", [change.run_id]
    ).fetchone()
    name, note, tags = found or (None, None, None)
    if change.name is not None:
        name = change.name or None
    if change.note is not None:
        note = change.note or None
    tags = sorted({*(tags or ()), *change.add_tags} - {*change.remove_tags})
    connection.execute(
        "INSERT OR REPLACE INTO run_labels (run_id, name, tags, note) VALUES (?, ?, ?, ?)",
        [change.run_id, name, tags or None, note],
    )
    if change.pinned is True:
        connection.execute("INSERT OR IGNORE INTO pinned_runs VALUES (?, now())", [change.run_id])
    elif change.pinned is False:
        connection.execute("DELETE FROM pinned_runs WHERE run_id = ?", [change.run_id])
    return True


def delete_runs(
    connection: duckdb.DuckDBPyConnection,
    run_ids: Sequence[str],
    to_come: bool = False,
    spare_pinned: bool = False,
) -> list[str]:
    """Deletes all rows of these runs and notes that they are gone; returns those that were there.

    The keys of their batches stay: one that comes again is a duplicate as before. With `to_come` those are
    noted too that are not there, or of which only other rows are: theirs go as well. With `spare_pinned`
    pinned ones stay. What they achieved is no roof any more.
    """
    found = connection.execute(
        "SELECT run_id FROM runs WHERE list_contains(?, run_id) "
        "AND (NOT ? OR run_id NOT IN (SELECT run_id FROM pinned_runs)) ORDER BY run_id",
        [list(run_ids), spare_pinned],
    ).fetchall()
    there = [str(run_id) for (run_id,) in found]
    gone = list(run_ids) if to_come else there
    devices = connection.execute(
        "SELECT DISTINCT device_id FROM runs WHERE list_contains(?, run_id)", [gone]
    ).fetchall()
    forget(connection, gone)
    places = ", ".join("?" * len(gone))  # written out: the engine then finds them without reading all rows
    for name in _OF_RUNS if gone else ():
        connection.execute(f"DELETE FROM {name} WHERE run_id IN ({places})", gone)
    refresh_roofs(connection, [device_id for (device_id,) in devices])
    for run_id in gone:
        connection.execute("INSERT OR REPLACE INTO deleted_runs VALUES (?, now())", [run_id])
    return there


def label_host(connection: duckdb.DuckDBPyConnection, host_id: str, labels: Mapping[str, str]) -> None:
    """Notes what the operator says of a host, in place of what was said before."""
    connection.execute("DELETE FROM host_labels WHERE host_id = ?", [host_id])
    for name, value in labels.items():
        connection.execute("INSERT INTO host_labels VALUES (?, ?, ?)", [host_id, name, value])


def deleted_runs(connection: duckdb.DuckDBPyConnection) -> set[str]:
    """Ids of the runs that were deleted."""
    return {str(run_id) for (run_id,) in connection.execute("SELECT run_id FROM deleted_runs").fetchall()}


def without(
    rows: Mapping[str, pa.Table], deleted: Container[str], spans_let_go: Container[str]
) -> tuple[Mapping[str, pa.Table], int]:
    """Rows less those of runs that were deleted before they came, and less spans of runs whose spans were let
    go; how many of the latter there were."""
    spans = 0
    kept = dict(rows)
    for name, table in rows.items():
        if name not in _OF_RUNS or "run_id" not in table.schema.names:  # else it is refused
            continue
        come = table.column("run_id").unique().to_pylist()
        gone = [run_id for run_id in come if run_id in deleted]
        let_go = [run_id for run_id in come if name == "spans" and run_id in spans_let_go]
        if gone or let_go:
            unwanted = pc.is_in(table.column("run_id"), pa.array([*gone, *let_go], pa.string()))
            kept[name] = table.filter(pc.invert(unwanted))
            if let_go:
                spans += table.num_rows - kept[name].num_rows
    return kept, spans
