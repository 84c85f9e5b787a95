"""What a store promises: rows and their key committed together or not at all, and read-only SQL."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Protocol

import pyarrow as pa

from roofleet_collector.store.rows import Rows
from roofleet_proto.records import RunChange


@dataclass(frozen=True)
class Append:
    """Rows of one or more tables that become visible together.

    `key` is (agent_id, epoch, sequence): an Append whose key is stored already stores nothing. Rows the
    collector makes itself come without one. `rejected` counts rows of the batch that are not among them;
    `checksum` is that of its bytes, None where it may have had others.
    """

    rows: Mapping[str, pa.Table]
    key: tuple[str, int, int] | None = None
    rejected: int = 0
    checksum: int | None = 0

    @cached_property
    def bytes(self) -> int:
        """What the rows take in memory."""
        return sum(table.get_total_buffer_size() for table in self.rows.values())


@dataclass(frozen=True)
class Receipt:
    """What became of an Append; `duplicate` if it was there before, `rejected` rows were set aside.

    With `foreign` another one has its key, and nothing was stored.
    """

    duplicate: bool
    rejected: int = 0
    foreign: bool = False


@dataclass(frozen=True)
class Seen:
    """When a host was last heard of; how far its clock was ahead of ours then, where it said; since when its
    agent is attached, and how many batches it held unsent."""

    at: datetime
    clock_offset_ns: int | None = None
    attached_since: datetime | None = None
    waiting_batches: int | None = None


class Store(Protocol):
    """A place for rows, safe to call from any thread."""

    def append(self, rows: Append) -> Future[Receipt]:
        """Commits the rows and their key; the future resolves after the commit, in the order of calls.

        It fails with RowsRefused if these rows can never be stored.
        """
        ...

    def touch_hosts(self, seen: Mapping[str, Seen]) -> Future[None]:
        """Notes when hosts were last heard of, and their clocks."""
        ...

    def change_run(self, change: RunChange) -> Future[bool]:
        """Changes what is said of a run; False if there is no such run."""
        ...

    def delete_runs(self, run_ids: Sequence[str], *, to_come: bool = False) -> Future[list[str]]:
        """Deletes runs with all their rows, those that come later included; resolves to the ids that were
        there. With `to_come` also rows of those that are not there yet are kept out."""
        ...

    def label_host(self, host_id: str, labels: Mapping[str, str]) -> Future[None]:
        """Notes what the operator says of a host, in place of what was said before."""
        ...

    def probe(self) -> Future[None]:
        """Fails if the machine lets nothing be stored, such as for a full disk."""
        ...

    def backup(self, to: Path) -> int:
        """Copies what is stored to a file that is not there yet, as it is at one moment, while rows come in.

        Returns how many batches the copy holds. Raises OSError.
        """
        ...

    def query(self, sql: str, parameters: Sequence[object] = ()) -> Rows:
        """The rows of one read-only statement; SqlError if it is not one or fails."""
        ...

    def close(self) -> None:
        """Finishes what was appended and lets go of the data; harmless if closed before."""
        ...
