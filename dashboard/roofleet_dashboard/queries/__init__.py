"""The dashboard's SQL: one named query a file, with `?` parameters, and nowhere else any SQL."""

from __future__ import annotations

from functools import cache
from importlib import resources
from typing import Any

from roofleet_dashboard.source import Source

__all__ = ["Row", "names", "rows", "sql"]

Row = dict[str, Any]
"""One row as plain values; NULL is None."""


@cache
def names() -> tuple[str, ...]:
    """The names of all queries, in order."""
    files = resources.files(__package__).iterdir()
    return tuple(sorted(f.name.removesuffix(".sql") for f in files if f.name.endswith(".sql")))


@cache
def sql(name: str) -> str:
    """The text of the query of that name. Raises KeyError if there is none."""
    if name not in names():
        raise KeyError(f"there is no query {name!r}; there are {', '.join(names())}")
    return resources.files(__package__).joinpath(f"{name}.sql").read_text(encoding="utf-8")


def rows(source: Source, name: str, *parameters: object) -> list[Row]:
    """The rows of a named query. Raises SourceError if the source cannot answer."""
    found: list[Row] = source.query(sql(name), parameters).to_pylist()
    return found
