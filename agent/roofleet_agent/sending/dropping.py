"""What a spool lets go of when it reaches its limits, counted: oldest readings first, runs last.

Of a batch that was sent and not acknowledged nobody here knows whether its rows are lost: its key is kept,
and sent without rows. If the collector had stored it, nothing is lost; if not, it never will be.
"""

from __future__ import annotations

import sqlite3
import time
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

READINGS = "readings"


@dataclass(frozen=True)
class Limits:
    """How much a spool keeps: bytes of all its batches, and seconds that one waits. None is without limit.

    What goes first is said at `Spool.write`.
    """

    size_bytes: int | None = None
    age_s: float | None = None


UNLIMITED = Limits()


@dataclass(frozen=True)
class Dropped:
    """Rows of a table that were let go of unsent, and why: `full`, `age`, or `disk` where it took none.

    `first_at` and `last_at` are when the first and last of them were written, in seconds since 1970.
    """

    table: str
    reason: str
    rows: int
    batches: int
    first_at: float
    last_at: float


_CLOCK_IS_SET = 1.6e9
"""Seconds since 1970 that passed before this was written: a clock that tells less has not been set yet."""

SCHEMA = """
CREATE TABLE IF NOT EXISTS dropped (
    table_name TEXT NOT NULL,
    reason TEXT NOT NULL,
    rows INTEGER NOT NULL,
    batches INTEGER NOT NULL,
    first_at REAL NOT NULL,
    last_at REAL NOT NULL,
    PRIMARY KEY (table_name, reason)
);
CREATE TABLE IF NOT EXISTS held (bytes INTEGER NOT NULL);
INSERT INTO held SELECT coalesce((SELECT sum(length(arrow_ipc)) FROM batches), 0)
    WHERE NOT EXISTS (SELECT 1 FROM held);
CREATE TRIGGER IF NOT EXISTS more_held AFTER INSERT ON batches
    BEGIN UPDATE held SET bytes = bytes + length(new.arrow_ipc); END;
CREATE TRIGGER IF NOT EXISTS less_held AFTER DELETE ON batches
    BEGIN UPDATE held SET bytes = bytes - length(old.arrow_ipc); END;
CREATE TRIGGER IF NOT EXISTS emptied AFTER UPDATE OF arrow_ipc ON batches
    BEGIN UPDATE held SET bytes = bytes + length(new.arrow_ipc) - length(old.arrow_ipc); END;
"""
"""Beside the batches: what was let go of and is not reported yet, and the bytes of those that are there."""


def held_bytes(db: sqlite3.Connection) -> int:
    """Bytes of all batches."""
    return int(db.execute("SELECT bytes FROM held").fetchone()[0])


def make_room(db: sqlite3.Connection, limits: Limits, table: str, size: int) -> bool:
    """Lets go of what has to go for so many bytes more of a table; False if that is not enough.

    For a reading nothing but readings goes.
    """
    most = limits.size_bytes
    if most is None:
        return True
    for of_readings in (True, False):
        excess = held_bytes(db) + size - most
        if excess > 0 and (of_readings or table != READINGS):
            _drop(db, _oldest(db, excess, of_readings=of_readings), "full")
    return held_bytes(db) + size <= most


def let_age(db: sqlite3.Connection, age_s: float, now: float) -> None:
    """Lets go of what was written longer ago than that, by a clock that had been set."""
    old = db.execute(
        "SELECT sequence, table_name, rows, written_at, sent FROM batches "
        "WHERE written_at BETWEEN ? AND ? AND dropped IS NULL",
        [_CLOCK_IS_SET, now - age_s],
    ).fetchall()
    _drop(db, old, "age")


def _oldest(db: sqlite3.Connection, size: int, *, of_readings: bool) -> list[tuple[Any, ...]]:
    """The oldest batches of readings, or of the others, that hold so many bytes together."""
    which = "=" if of_readings else "<>"
    goes, freed = [], 0
    for row in db.execute(
        "SELECT sequence, table_name, rows, written_at, sent, length(arrow_ipc) FROM batches "
        f"WHERE table_name {which} ? AND dropped IS NULL ORDER BY sequence",
        [READINGS],
    ):
        goes.append(row[:5])
        freed += row[5]
        if freed >= size:
            break
    return goes


def _drop(db: sqlite3.Connection, goes: Iterable[tuple[Any, ...]], reason: str) -> None:
    for sequence, table, rows, written_at, sent in goes:
        if sent:  # the collector may have it: it is asked, and told no rows
            db.execute(
                "UPDATE batches SET arrow_ipc = x'', checksum = NULL, dropped = ? WHERE sequence = ?",
                [reason, sequence],
            )
        else:
            db.execute("DELETE FROM batches WHERE sequence = ?", [sequence])
            _count_batch(db, table, reason, rows, written_at)


def forget(db: sqlite3.Connection, sequence: int, *, stored: bool) -> None:
    """Forgets a batch. Rows that were let go of are counted, unless the collector has `stored` them."""
    for table, rows, written_at, reason in db.execute(
        "DELETE FROM batches WHERE sequence = ? RETURNING table_name, rows, written_at, dropped", [sequence]
    ).fetchall():
        if reason is not None and not stored:
            _count_batch(db, table, reason, rows, written_at)


def _count_batch(
    db: sqlite3.Connection, table: str, reason: str, rows: int, written_at: float | None
) -> None:
    at = time.time() if written_at is None else written_at
    count(db, Dropped(table, reason, rows, 1, at, at))


def count(db: sqlite3.Connection, one: Dropped) -> None:
    """Adds to what is counted of the same table and reason."""
    db.execute(
        "INSERT INTO dropped VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET "
        "rows = rows + excluded.rows, batches = batches + excluded.batches, "
        "first_at = min(first_at, excluded.first_at), "
        "last_at = max(last_at, excluded.last_at)",
        [one.table, one.reason, one.rows, one.batches, one.first_at, one.last_at],
    )


def counted(db: sqlite3.Connection) -> list[Dropped]:
    """What was let go of and is not reported yet."""
    return [Dropped(*row) for row in db.execute("SELECT * FROM dropped ORDER BY table_name, reason")]


def loss_row(agent_id: str, one: Dropped) -> dict[str, Any]:
    """The row of `losses`."""
    return {
        "loss_id": str(uuid.uuid4()),
        "agent_id": agent_id,
        "table_name": one.table,
        "reason": one.reason,
        "rows": one.rows,
        "batches": one.batches,
        "first_at": datetime.fromtimestamp(one.first_at, UTC),
        "last_at": datetime.fromtimestamp(one.last_at, UTC),
    }
