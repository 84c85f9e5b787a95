"""What a store promises: rows and their key committed together or not at all, and read-only SQL."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

import pyarrow as pa

from roofleet_collector.store.rows import Rows
from roofleet_proto.records import RunChange


@dataclass(frozen=True)
class Append:
    """Rows of one or more tables that become visible together.

    `key` is (agent_id, epoch, sequence): an Append whose key is stored already stores nothing. Rows the
    collector makes itself come without one.
    """

    rows: Mapping[str, pa.Table]
    key: tuple[str, int, int] | None = None


@dataclass(frozen=True)
class Receipt:
    """What became of an Append; `duplicate` if its key was there before."""

    duplicate: bool


class Store(Protocol):
    """A place for rows, safe to call from any thread."""

    def append(self, rows: Append) -> Future[Receipt]:
        """Commits the rows and their key; the future resolves after the commit, in the order of calls."""
        ...

    def touch_hosts(self, seen: Mapping[str, datetime]) -> Future[None]:
        """Notes when hosts were last heard of."""
        ...

    def change_run(self, change: RunChange) -> Future[bool]:
        """Changes what is said of a run; False if there is no such run."""
        ...

    def delete_runs(self, run_ids: Sequence[str]) -> Future[list[str]]:
        """Deletes runs with all their rows, those that come later included; resolves to the ids that were
        there."""
        ...

    def query(self, sql: str, parameters: Sequence[object] = ()) -> Rows:
        """The rows of one read-only statement; SqlError if it is not one or fails."""
        ...

    def close(self) -> None:
        """Finishes what was appended and lets go of the data; harmless if closed before."""
        ...
