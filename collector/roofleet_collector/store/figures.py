"""What views need of a run, kept when it has ended, so that they cost rows of runs and not of spans.

When rows of a run are stored, the run is unsettled until its figures are worked out from all of its rows
(`views/figures/`) and kept in tables of their own: before its rows are acknowledged if it has ended, and in
the background while it goes on. What changes without the run is joined by the views, such as roofs and names.
A run whose spans retention let go keeps the figures that it has, of whichever version, for good.
The roofs in force are kept as well, by device and conditions.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Mapping, Sequence
from functools import cache

import duckdb
import pyarrow as pa

from roofleet_collector.store.schema import view_sql

log = logging.getLogger(__name__)

FIGURES_VERSION = 1
"""Raise it when a figure changes; those of older versions are worked out anew when the store is opened."""
AT_ONCE = 32
"""Runs that are settled by the same statements: planning those takes longer than reading a small run."""

FEEDING = ("layers", "ops", "op_costs", "steps", "spans", "layer_memory", "op_times")
"""Tables whose rows figures are made of, beside `runs`."""
_LOOKED_AT = (*FEEDING, "kept_layer_iterations")

_OF_ROWS = ("op_work", "op_summary", "unknown_ops", "layer_steps", "phase_iterations", "layer_iterations")
"""Published views that the figures go through, here over the rows of the runs that are settled."""
_TURNING = (
    "SELECT DISTINCT b.run_id FROM settling s JOIN runs a ON a.run_id = s.run_id "
    "JOIN runs b ON b.turns_id = a.turns_id"
)
"""Runs that are settled and took turns, and those they took turns with."""
_FIGURES = ("run_figures", "phase_figures", "layer_figures", "turn_figures")


def fed(rows: Mapping[str, pa.Table]) -> set[str]:
    """The runs whose figures change by these rows."""
    return {
        run_id
        for name, table in rows.items()
        if (name == "runs" or name in FEEDING) and "run_id" in table.schema.names  # else it is refused
        for run_id in table.column("run_id").unique().to_pylist()
    }


def last_status(rows: Mapping[str, pa.Table]) -> dict[str, str]:
    """How the runs among these rows stand."""
    runs = rows.get("runs")
    if runs is None or not {"run_id", "status"} <= set(runs.schema.names):
        return {}
    return {row["run_id"]: row["status"] for row in runs.select(["run_id", "status"]).to_pylist()}


def unsettle(connection: duckdb.DuckDBPyConnection, run_ids: Collection[str]) -> None:
    """Notes that figures of runs are to be worked out, in the transaction that stores the rows."""
    known = connection.execute(
        "SELECT run_id FROM unsettled WHERE list_contains(?, run_id)", [sorted(run_ids)]
    ).fetchall()
    new = set(run_ids) - {run_id for (run_id,) in known}
    if new:
        connection.execute("INSERT INTO unsettled SELECT unnest(?)", [sorted(new)])


def catch_up(connection: duckdb.DuckDBPyConnection) -> None:
    """Settles what is not settled when a store is opened: runs of an older Roofleet, those whose figures are
    of older formulas, and what a process that was killed has left. One that cannot be settled is left out."""
    outdated = connection.execute(
        "SELECT run_id FROM run_figures WHERE formula_version < ? AND spans_let_go_at IS NULL",
        [FIGURES_VERSION],
    ).fetchall()
    if outdated:
        unsettle(connection, [run_id for (run_id,) in outdated])
        connection.execute("DELETE FROM roofs_in_force")
    left = unsettled(connection)
    bare = connection.execute(
        "SELECT DISTINCT device_id FROM runs WHERE device_id NOT IN (SELECT device_id FROM roofs_in_force)"
    ).fetchall()
    if bare:
        refresh_roofs(connection, [device_id for (device_id,) in bare])
    if len(left) > AT_ONCE:
        log.info("working out the figures of %d runs, once", len(left))
    for begin in range(0, len(left), AT_ONCE):
        some = left[begin : begin + AT_ONCE]
        for group in (some, *([run_id] for run_id in some)):
            try:
                connection.execute("BEGIN")
                settle(connection, group)
                connection.execute("COMMIT")
            except duckdb.Error as error:
                connection.execute("ROLLBACK")
                if len(group) == 1:
                    log.warning(
                        "the figures of run %s cannot be worked out: %s",
                        *(group[0], error),
                        extra={"run_id": group[0]},
                    )
            else:
                if group is some:
                    break


def unsettled(connection: duckdb.DuckDBPyConnection) -> list[str]:
    """Runs whose figures are to be worked out."""
    found = connection.execute(
        "SELECT u.run_id FROM unsettled u JOIN runs r ON r.run_id = u.run_id ORDER BY u.run_id"
    ).fetchall()
    return [run_id for (run_id,) in found]


def settle(connection: duckdb.DuckDBPyConnection, run_ids: Sequence[str], at_once: int = AT_ONCE) -> None:
    """Works figures of runs out and keeps them in place of what was kept of them. Those of runs whose spans
    were let go stay as they are."""
    for begin in range(0, len(run_ids), at_once):
        some = list(run_ids[begin : begin + at_once])
        if kept := spans_let_go(connection, some):
            connection.execute("DELETE FROM unsettled WHERE list_contains(?, run_id)", [sorted(kept)])
            some = [run_id for run_id in some if run_id not in kept]
        if not some:
            continue
        forget(connection, some)
        for table in _FIGURES if _took_turns(connection, some) else _FIGURES[:-1]:
            connection.execute(f"INSERT INTO {table} BY NAME {_worked_out(table)}", [some])


def spans_let_go(connection: duckdb.DuckDBPyConnection, run_ids: Collection[str] | None = None) -> set[str]:
    """The runs whose spans were let go, of these or of all."""
    condition, values = ("", []) if run_ids is None else (" AND list_contains(?, run_id)", [list(run_ids)])
    found = connection.execute(
        f"SELECT run_id FROM run_figures WHERE spans_let_go_at IS NOT NULL{condition}", values
    ).fetchall()
    return {str(run_id) for (run_id,) in found}


def _took_turns(connection: duckdb.DuckDBPyConnection, run_ids: Sequence[str]) -> bool:
    found = connection.execute(
        "SELECT 1 FROM runs WHERE list_contains(?, run_id) AND turns_id IS NOT NULL LIMIT 1", [list(run_ids)]
    )
    return found.fetchone() is not None


def forget(connection: duckdb.DuckDBPyConnection, run_ids: Sequence[str]) -> None:
    """Takes the figures of runs away, and the note that they are to be worked out."""
    for table in (*_FIGURES, "unsettled"):
        connection.execute(f"DELETE FROM {table} WHERE list_contains(?, run_id)", [list(run_ids)])
    connection.execute("DELETE FROM turn_figures WHERE list_contains(?, baseline_run_id)", [list(run_ids)])


def refresh_roofs(connection: duckdb.DuckDBPyConnection, device_ids: Collection[str]) -> None:
    """Works out which roofs are in force on devices, after roofs or conditions of runs were stored."""
    devices = sorted(device_ids)
    connection.execute("DELETE FROM roofs_in_force WHERE list_contains(?, device_id)", [devices])
    connection.execute(f"INSERT INTO roofs_in_force BY NAME {view_sql('figures/roofs_in_force')}", [devices])


def devices_to_refresh(connection: duckdb.DuckDBPyConnection, rows: Mapping[str, pa.Table]) -> set[str]:
    """Devices with a new roof, or with a run under conditions that none had before, among stored rows."""
    devices: set[str] = set()
    if "roofs" in rows:
        devices.update(rows["roofs"].column("device_id").unique().to_pylist())
    if "runs" in rows:
        found = connection.execute(
            "SELECT DISTINCT r.device_id FROM runs r WHERE list_contains(?, r.run_id) AND NOT EXISTS ("
            "FROM roofs_in_force f WHERE f.device_id = r.device_id "
            "AND f.threads IS NOT DISTINCT FROM r.threads "
            "AND f.torch_version IS NOT DISTINCT FROM r.torch_version "
            "AND f.driver_version IS NOT DISTINCT FROM r.driver_version)",
            [rows["runs"].column("run_id").unique().to_pylist()],
        ).fetchall()
        devices.update(device_id for (device_id,) in found)
    return devices


@cache
def _worked_out(table: str) -> str:
    """The SELECT that gives the rows of a table of figures for the runs in its only parameter."""
    parts = {"settling": "SELECT unnest($1) AS run_id", "turning": _TURNING}
    looked_at = "turning" if table == "turn_figures" else "settling"
    for name in _LOOKED_AT:
        parts[f"live_{name}"] = f"SELECT * FROM {name} WHERE run_id IN (SELECT run_id FROM {looked_at})"
    for name in _OF_ROWS:
        parts[f"live_{name}"] = _live(name)
    parts["live_work"] = view_sql("figures/work")
    figures = view_sql(f"figures/{table}").replace("{FIGURES_VERSION}", str(FIGURES_VERSION))
    written = ",\n".join(f"{name} AS (\n{sql}\n)" for name, sql in parts.items())
    return f"WITH {written},\nfigures AS (\n{figures}\n)\nSELECT * FROM figures"


def _live(name: str) -> str:
    """The SELECT of a published view over the rows of the runs that are settled."""
    sql = view_sql(name).partition(f"VIEW {name} AS\n")[2].rstrip().removesuffix(";")
    seen = "|".join((*_LOOKED_AT, *_OF_ROWS))
    return re.sub(rf"\b(FROM|JOIN) ({seen})\b", r"\1 live_\2", sql)
