"""What runs achieved, kept as observations of roofs when they end."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from concurrent.futures import Future
from typing import TypeVar

import duckdb

from roofleet_collector.store.contract import Append
from roofleet_collector.store.figures import refresh_roofs

log = logging.getLogger(__name__)
Result = TypeVar("Result")


def note_achieved(connection: duckdb.DuckDBPyConnection, run_ids: Sequence[str]) -> None:
    """Keeps the most that each of these runs achieved in `roofs`, in place of what was noted before.

    Asked when a run ends or its costs are worked out anew, after its figures are settled.
    """
    for run_id in run_ids:
        connection.execute("DELETE FROM roofs WHERE run_id = ?", [run_id])
        connection.execute(
            "INSERT INTO roofs BY NAME SELECT * FROM achieved_roofs WHERE run_id = ?", [run_id]
        )
    if not run_ids:
        return
    devices = connection.execute(
        "SELECT DISTINCT device_id FROM runs WHERE list_contains(?, run_id)", [list(run_ids)]
    ).fetchall()
    refresh_roofs(connection, [device_id for (device_id,) in devices])


def ended_runs(rows: Append) -> list[str]:
    """The runs that are done by these rows."""
    runs = rows.rows.get("runs")
    if runs is None:
        return []
    return [row["run_id"] for row in runs.select(["run_id", "status"]).to_pylist() if row["status"] == "done"]


def when_noted(stored: Future[Result], noted: Future[None]) -> Future[Result]:
    """Resolves like `stored`, and not before `noted`, which only the log hears of when it fails."""
    both: Future[Result] = Future()

    def settle(_: Future[None]) -> None:
        if (why := noted.exception()) is not None:
            log.warning("the figures of a run, or what it achieved, could not be worked out: %s", why)
        if (error := stored.exception()) is not None:
            both.set_exception(error)
        else:
            both.set_result(stored.result())

    noted.add_done_callback(settle)
    return both
