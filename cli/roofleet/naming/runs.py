"""Runs as a user names them: an id, the beginning of one, its name, `latest`, or `latest~1` before it."""

from __future__ import annotations

import re
from typing import Any

from roofleet.asking.reading import Query
from roofleet.errors import UserError
from roofleet_analysis.units import moment_text

LATEST = re.compile(r"latest(?:~(\d+))?")
_SHOWN = 5
_COLUMNS = "run_id, model_name, dtype, variant, status, error, started_at"


def chosen_runs(query: Query, names: list[str], least: int = 1) -> list[str]:
    """The ids of the runs named; UserError for a name that fits none or several, or two names of one run.

    What is only the beginning of an id has `least` characters.
    """
    found = [_chosen(query, name, least) for name in names]
    for place, run in enumerate(found):
        if run in found[:place]:
            raise UserError(f"{names[found.index(run)]!r} and {names[place]!r} are the same run {run}")
    return found


def _chosen(query: Query, name: str, least: int) -> str:
    latest = LATEST.fullmatch(name)
    if latest:
        back = int(latest[1] or 0)
        rows = _runs(query, "status IN ('done', 'analyzed')", back + 1)
        if len(rows) <= back:
            raise UserError(f"there is no {name!r}: {len(rows)} runs are done")
        return str(rows[back]["run_id"])
    rows = _runs(query, "starts_with(run_id, ?)", _SHOWN + 1, name)
    exact = [row for row in rows if row["run_id"] == name]
    if len(rows) == 1 and not exact and len(name) < least:
        raise UserError(f"{name!r} is too short a beginning to be sure: write {least} characters of the id")
    if len(exact or rows) == 1:
        return str((exact or rows)[0]["run_id"])
    if not rows:
        rows = _runs(query, "run_id IN (SELECT run_id FROM run_labels WHERE name = ?)", _SHOWN + 1, name)
        if len(rows) == 1:
            return str(rows[0]["run_id"])
        if rows:
            raise UserError(f"{name!r} is the name of several runs, write the id of one:{_listed(rows)}")
    if rows:
        more = "\n  ..." if len(rows) > _SHOWN else ""
        raise UserError(f"{name!r} is the beginning of several runs, write more of it:{_listed(rows)}{more}")
    known = _runs(query, "true", _SHOWN)
    raise UserError(
        f"there is no run {name!r}. "
        + (f"The latest are:{_listed(known)}" if known else "There are no runs yet: `roofleet profile MODEL`")
    )


def _runs(query: Query, condition: str, most: int, *parameters: object) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = query(
        f"SELECT {_COLUMNS} FROM runs LEFT JOIN (SELECT model_id, name AS model_name FROM models) "
        f"USING (model_id) WHERE {condition} ORDER BY started_at DESC, run_id LIMIT {most}",
        parameters,
    ).to_pylist()
    return rows


def _listed(rows: list[dict[str, Any]]) -> str:
    return "".join(
        f"\n  {row['run_id']}  {row['model_name']} {row['dtype']} {row['variant']}, {row['status']}, "
        f"{moment_text(row['started_at'])}"
        for row in rows[:_SHOWN]
    )
