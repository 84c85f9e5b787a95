"""Batches that are not acknowledged yet, in an SQLite file that outlives the process."""

from __future__ import annotations

import re
import sqlite3
import threading
import time
import uuid
from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa

from roofleet_agent.errors import SpoolUnusable
from roofleet_proto.codec import encode_rows
from roofleet_proto.records import Batch
from roofleet_proto.services import MAX_MESSAGE_BYTES

ROWS_PER_BATCH = 4096
MAX_BATCH_BYTES = MAX_MESSAGE_BYTES - 64 * 1024
"""The largest rows of one batch: what a message may hold, less its other fields."""

AGENT_SPOOL = "spool.sqlite"
"""What an attached agent sends, and what a release before that had one spool for all has left."""


def run_spool(folder: Path, collector: str | None) -> Path:
    """The spool of runs in a folder that go to one collector, or without one into the folder itself.

    It is another file than an attached agent's, who would send to its own collector what it finds.
    """
    if collector is None:
        return folder / "local.sqlite"
    return folder / f"to-{re.sub(r'[^A-Za-z0-9.-]', '_', collector)}.sqlite"


_SCHEMA = """
CREATE TABLE IF NOT EXISTS identity (agent_id TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS batches (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    epoch INTEGER NOT NULL,
    table_name TEXT NOT NULL,
    rows INTEGER NOT NULL,
    arrow_ipc BLOB NOT NULL
);
CREATE TABLE IF NOT EXISTS set_aside (
    sequence INTEGER PRIMARY KEY,
    epoch INTEGER NOT NULL,
    table_name TEXT NOT NULL,
    rows INTEGER NOT NULL,
    arrow_ipc BLOB NOT NULL,
    reason TEXT NOT NULL
);
"""


class Spool:
    """Keeps batches until they are acknowledged; several processes may share one file.

    Every opening has an epoch of its own, so that a file restored from a backup, or rolled back by a power
    cut, never gives new rows a key that the collector has seen.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self.epoch = time.time_ns()
        self._lock = threading.Lock()
        self._arrived = threading.Condition()
        try:
            self._open(path)
        except sqlite3.Error as error:
            raise SpoolUnusable(f"{path} cannot be used as a spool: {error}") from error

    def _open(self, path: Path) -> None:
        self._db = sqlite3.connect(path, timeout=30, isolation_level=None, check_same_thread=False)
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")
        self._db.executescript(_SCHEMA)
        self._db.execute(
            "INSERT INTO identity SELECT ? WHERE NOT EXISTS (SELECT 1 FROM identity)", [str(uuid.uuid4())]
        )
        self.agent_id: str = self._db.execute("SELECT agent_id FROM identity").fetchone()[0]

    def write(self, table: str, rows: pa.Table) -> None:
        """Keeps rows, cut into batches of a few thousand that fit a message. See Sink.write.

        SpoolUnusable if they cannot be written, ValueError for a row that fits no message.
        """
        batches = [
            (self.epoch, table, part.num_rows, data)
            for start in range(0, rows.num_rows, ROWS_PER_BATCH)
            for part, data in _fitting(table, rows.slice(start, ROWS_PER_BATCH))
        ]
        try:
            with self._lock, self._db:
                self._db.execute("BEGIN IMMEDIATE")
                self._db.executemany(
                    "INSERT INTO batches (epoch, table_name, rows, arrow_ipc) VALUES (?, ?, ?, ?)", batches
                )
        except sqlite3.Error as error:
            raise SpoolUnusable(f"rows could not be kept in {self.path}: {error}") from error
        self.wake()

    def pending(self, after: int = 0, limit: int = 16) -> list[Batch]:
        """The oldest batches with a sequence above `after`."""
        with self._lock:
            found = self._db.execute(
                "SELECT epoch, sequence, table_name, arrow_ipc FROM batches WHERE sequence > ? "
                "ORDER BY sequence LIMIT ?",
                [after, limit],
            ).fetchall()
        return [Batch(self.agent_id, epoch, sequence, table, data) for epoch, sequence, table, data in found]

    def acknowledge(self, sequences: Iterable[int]) -> None:
        """Forgets batches that the collector has committed."""
        with self._lock, self._db:
            self._db.execute("BEGIN IMMEDIATE")
            self._db.executemany("DELETE FROM batches WHERE sequence = ?", [(s,) for s in sequences])

    def set_aside(self, sequence: int, reason: str) -> None:
        """Takes a batch the collector can never take out of the way, and keeps it with the reason."""
        with self._lock, self._db:
            self._db.execute("BEGIN IMMEDIATE")
            self._db.execute(
                "INSERT OR REPLACE INTO set_aside SELECT sequence, epoch, table_name, rows, arrow_ipc, ? "
                "FROM batches WHERE sequence = ?",
                [reason, sequence],
            )
            self._db.execute("DELETE FROM batches WHERE sequence = ?", [sequence])

    def count(self) -> int:
        """Batches that are not acknowledged."""
        with self._lock:
            return int(self._db.execute("SELECT count(*) FROM batches").fetchone()[0])

    def size_bytes(self) -> int:
        """Bytes of the batches that are not acknowledged."""
        with self._lock:
            total = self._db.execute("SELECT coalesce(sum(length(arrow_ipc)), 0) FROM batches").fetchone()
        return int(total[0])

    def set_aside_reasons(self) -> list[tuple[int, str, str]]:
        """Sequence, table and reason of every batch that was set aside."""
        with self._lock:
            return self._db.execute("SELECT sequence, table_name, reason FROM set_aside").fetchall()

    def wait(self, timeout_s: float) -> None:
        """Sleeps until rows come in, at most so long."""
        with self._arrived:
            self._arrived.wait(timeout_s)

    def wake(self) -> None:
        """Ends a `wait` that is under way."""
        with self._arrived:
            self._arrived.notify_all()

    def close(self) -> None:
        """Closes the file; what is in it stays."""
        with self._lock:
            self._db.close()


def _fitting(table: str, rows: pa.Table) -> list[tuple[pa.Table, bytes]]:
    """Rows and their encoding, halved until each part fits a message.

    ValueError for a single row that does not.
    """
    data = encode_rows(rows.combine_chunks())
    if len(data) <= MAX_BATCH_BYTES:
        return [(rows, data)]
    if rows.num_rows == 1:
        raise ValueError(f"one row of {table} takes {len(data)} bytes and a message holds {MAX_BATCH_BYTES}")
    half = rows.num_rows // 2
    return _fitting(table, rows.slice(0, half)) + _fitting(table, rows.slice(half))
