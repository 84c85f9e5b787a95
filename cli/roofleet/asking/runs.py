"""The stored runs as a list, by what they are called, tagged, and of which model they are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from roofleet.asking.reading import Query


def listed_runs(
    query: Query, *, text: str = "", tag: str | None = None, status: str | None = None, most: int = 20
) -> list[dict[str, Any]]:
    """The latest runs as rows of run_summary, newest first; `text` must be in the name of run or model."""
    chosen = query(
        "SELECT run_id FROM runs LEFT JOIN (SELECT model_id, name AS model_name FROM models) "
        "USING (model_id) LEFT JOIN run_labels USING (run_id) "
        "LEFT JOIN (SELECT host_id, last_seen_at FROM hosts) USING (host_id) "
        "WHERE contains(lower(concat_ws(' ', model_name, name)), lower(?)) "
        "AND (?::VARCHAR IS NULL OR coalesce(list_contains(tags, ?), false)) "
        "AND (?::VARCHAR IS NULL OR run_status(status, started_at, last_seen_at) = ?) "
        "ORDER BY as_moment(started_at) DESC, run_id LIMIT ?",
        (text, tag, tag, status, status, most),
    )
    return listed_by_id(query, chosen.column("run_id").to_pylist())


def listed_by_id(query: Query, run_ids: Sequence[str]) -> list[dict[str, Any]]:
    """The rows of run_summary of these runs, newest first."""
    if not run_ids:
        return []
    places = ", ".join("?" * len(run_ids))  # written out: the view works out only what is asked for
    rows: list[dict[str, Any]] = query(
        f"SELECT * FROM run_summary WHERE run_id IN ({places}) ORDER BY started_at DESC, run_id", run_ids
    ).to_pylist()
    return rows


def outputs_of(query: Query, run_id: str) -> list[dict[str, Any]]:
    """What a run generated, one row a sequence; none where it was not kept."""
    rows: list[dict[str, Any]] = query(
        "SELECT sequence_index, token_ids, text FROM outputs WHERE run_id = ? ORDER BY sequence_index",
        (run_id,),
    ).to_pylist()
    return rows


def latest_names(query: Query, most: int = 30) -> list[tuple[str, str]]:
    """What the latest runs can be called, ids and names, each with what the run is in a few words."""
    rows = query(
        "SELECT run_id, l.name, concat_ws(' ', m.name, r.dtype, r.variant) AS what FROM runs r "
        "LEFT JOIN models m USING (model_id) LEFT JOIN run_labels l USING (run_id) "
        "ORDER BY started_at DESC, run_id LIMIT ?",
        (most,),
    ).to_pylist()
    return [(name, row["what"]) for row in rows for name in (row["name"], row["run_id"]) if name]
