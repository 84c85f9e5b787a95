"""Batches that are not acknowledged yet, in an SQLite file that outlives the process."""

from __future__ import annotations

import logging
import re
import sqlite3
import threading
import time
import uuid
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa

from roofleet_agent.errors import SpoolUnusable
from roofleet_agent.rows import table_of
from roofleet_agent.sending import dropping
from roofleet_agent.sending.dropping import UNLIMITED, Dropped, Limits
from roofleet_proto.codec import encode_rows
from roofleet_proto.records import Batch
from roofleet_proto.services import MAX_MESSAGE_BYTES

log = logging.getLogger(__name__)

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


_VERSION = 3
_SCHEMA = f"""
CREATE TABLE IF NOT EXISTS identity (agent_id TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS batches (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    epoch INTEGER NOT NULL,
    table_name TEXT NOT NULL,
    rows INTEGER NOT NULL,
    arrow_ipc BLOB NOT NULL,
    checksum INTEGER,
    written_at REAL,
    agent_id TEXT,
    sent INTEGER,
    dropped TEXT
);
CREATE TABLE IF NOT EXISTS set_aside (
    sequence INTEGER PRIMARY KEY,
    epoch INTEGER NOT NULL,
    table_name TEXT NOT NULL,
    rows INTEGER NOT NULL,
    arrow_ipc BLOB NOT NULL,
    reason TEXT NOT NULL
);
{dropping.SCHEMA}PRAGMA user_version = {_VERSION};
"""
_ADDED = (
    ("checksum", "INTEGER"),
    ("written_at", "REAL"),
    ("agent_id", "TEXT"),
    ("sent", "INTEGER"),
    ("dropped", "TEXT"),
)
"""Columns of batches that earlier versions did not have. A batch goes by the identity of the spool, or by the
one named here, which the spool had when it was written; `sent` says that it was once, and `dropped` why its
rows are gone though the collector may have them."""

_DAMAGED = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_LAST = 2**63 - 1


class Spool:
    """Keeps batches until they are acknowledged; several processes may share one file.

    Every opening has an epoch of its own, so that a file restored from a backup, or rolled back by a power
    cut, never gives new rows a key that the collector has seen. A file that is damaged, foreign or of a newer
    version is renamed, and `replaced` says so; nothing of it is deleted. One that turns out to be a copy of
    another that is in use takes a new identity, see `separate`.
    """

    def __init__(self, path: Path, limits: Limits = UNLIMITED) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self.limits = limits
        self.epoch = time.time_ns()
        self.replaced: str | None = None
        self.agent_id = ""
        self._lock = threading.RLock()
        self._arrived = threading.Condition()
        self._aged_at = 0.0
        try:
            self._open()
        except sqlite3.Error as error:
            raise SpoolUnusable(f"{path} cannot be used as a spool: {error}") from error

    def _open(self) -> None:
        try:
            self._connect()
        except (sqlite3.Error, _Foreign) as error:
            if not _is_no_spool(error):
                raise
            self._replace(error)

    def _connect(self) -> None:
        self._db = sqlite3.connect(self.path, timeout=30, isolation_level=None, check_same_thread=False)
        try:
            is_current = _check(self._db)
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = FULL")
            if not is_current:
                _make_current(self._db)
            self._db.execute(
                "INSERT INTO identity SELECT ? WHERE NOT EXISTS (SELECT 1 FROM identity)",
                [self.agent_id or str(uuid.uuid4())],
            )
            self.agent_id = self._db.execute("SELECT agent_id FROM identity").fetchone()[0]
        except BaseException:
            self._db.close()
            raise

    def _replace(self, error: Exception) -> None:
        """Renames the file, with what SQLite keeps beside it, and begins a new one."""
        stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime())
        aside = self.path.with_name(f"{self.path.name}.aside-{stamp}-{uuid.uuid4().hex[:6]}")
        for ending in ("", "-wal", "-shm"):
            part = self.path.with_name(self.path.name + ending)
            if part.exists():
                part.rename(aside.with_name(aside.name + ending))
        self.replaced = (
            f"{self.path} could not be used ({error}): it is kept as {aside.name}, a new one is begun"
        )
        log.error(self.replaced)
        self._connect()
        # an acknowledgement that is on its way may not be taken for one of a new batch
        self._db.execute("INSERT INTO sqlite_sequence VALUES ('batches', ?)", [time.time_ns() // 1000])

    @contextmanager
    def _using(self) -> Iterator[sqlite3.Connection]:
        """The database, for one thread; SpoolUnusable if it fails, and a new file if this one is damaged."""
        with self._lock:
            try:
                yield self._db
            except sqlite3.Error as error:
                if _is_no_spool(error):
                    self._db.close()
                    try:
                        self._replace(error)
                    except (sqlite3.Error, OSError) as worse:
                        error = worse if isinstance(worse, sqlite3.Error) else error
                raise SpoolUnusable(f"{self.path} cannot be used as a spool: {error}") from error

    @contextmanager
    def _changing(self) -> Iterator[sqlite3.Connection]:
        """The same in one transaction."""
        with self._using() as db, db:
            db.execute("BEGIN IMMEDIATE")
            yield db

    def write(self, table: str, rows: pa.Table) -> None:
        """Keeps rows, cut into batches of a few thousand that fit a message. See Sink.write.

        Where the limits are reached the oldest readings go first, for other rows then the oldest of these;
        for a reading never anything else, so that a new one may be what goes. All that goes is counted.

        SpoolUnusable if they cannot be written, ValueError for a row that fits no message.
        """
        now = time.time()
        batches = [
            (self.epoch, table, part.num_rows, data, zlib.crc32(data), now)
            for start in range(0, rows.num_rows, ROWS_PER_BATCH)
            for part, data in _fitting(table, rows.slice(start, ROWS_PER_BATCH))
        ]
        with self._changing() as db:
            if self.limits.age_s is not None and now - self._aged_at > self.limits.age_s / 100:
                self._aged_at = now
                dropping.let_age(db, self.limits.age_s, now)
            for batch in batches:
                if dropping.make_room(db, self.limits, table, len(batch[3])):
                    db.execute(
                        "INSERT INTO batches (epoch, table_name, rows, arrow_ipc, checksum, written_at) "
                        "VALUES (?, ?, ?, ?, ?, ?)",
                        batch,
                    )
                else:
                    dropping.count(db, Dropped(table, "full", batch[2], 1, now, now))
        self.wake()

    def pending(self, after: int = 0, limit: int = 16, until: int | None = None) -> list[Batch]:
        """The oldest batches with a sequence above `after`, and at most `until`.

        One whose bytes are not those that were written is set aside. One whose rows were
        let go of after they were sent is `given_up`.
        """
        with self._using() as db:
            found = db.execute(
                "SELECT epoch, sequence, table_name, arrow_ipc, checksum, "
                "coalesce(agent_id, (SELECT agent_id FROM identity)), dropped IS NOT NULL "
                "FROM batches WHERE sequence > ? AND sequence <= ? ORDER BY sequence LIMIT ?",
                [after, _LAST if until is None else until, limit],
            ).fetchall()
        batches = []
        for epoch, sequence, table, data, checksum, agent_id, given_up in found:
            if checksum is not None and zlib.crc32(data) != checksum:
                self.set_aside(sequence, "its bytes in the spool have changed since they were written")
            else:
                batches.append(Batch(agent_id, epoch, sequence, table, data, bool(given_up)))
        if found and not batches:  # all were damaged: what lies behind them is not
            return self.pending(found[-1][1], limit, until)
        return batches

    def last_sequence(self) -> int:
        """The sequence of the newest batch; 0 without one."""
        with self._using() as db:
            return int(db.execute("SELECT coalesce(max(sequence), 0) FROM batches").fetchone()[0])

    def note_sent(self, batches: Iterable[Batch]) -> list[Batch]:
        """Batches go on their way: the collector may have them from now on. Those that are as they were."""
        mark = "UPDATE batches SET sent = 1 WHERE sequence = ? AND (dropped IS NOT NULL) = ?"
        with self._changing() as db:
            return [b for b in batches if db.execute(mark, [b.sequence, b.given_up]).rowcount]

    def acknowledge(self, sequences: Iterable[int], *, stored: bool = True) -> None:
        """Forgets batches that the collector has taken. Where it has not `stored` their rows, those that were
        let go of are lost."""
        with self._changing() as db:
            for sequence in sequences:
                dropping.forget(db, sequence, stored=stored)

    def separate(self) -> None:
        """Takes a new identity and epoch, since another spool goes by those it has: this or that is a copy.

        What waits keeps its keys: the collector may have stored it, or the other may send it too.
        """
        with self._changing() as db:
            db.execute("UPDATE batches SET agent_id = (SELECT agent_id FROM identity) WHERE agent_id IS NULL")
            (before,) = db.execute("SELECT agent_id FROM identity").fetchone()
            self.agent_id = str(uuid.uuid4())
            db.execute("UPDATE identity SET agent_id = ?", [self.agent_id])
            self.epoch = time.time_ns()
        log.warning(
            "another agent goes by the identity %s, such as on a copy of this machine: this one is %s now",
            *(before, self.agent_id),
        )

    def rename(self, agent_id: str, sequence: int) -> None:
        """Gives a batch, which goes by that identity, a key that no other has; the collector has another
        with the one that it has."""
        if agent_id == self.agent_id:
            self.separate()
        with self._changing() as db:
            db.execute(
                "INSERT INTO batches (epoch, table_name, rows, arrow_ipc, checksum, written_at) "
                "SELECT ?, table_name, rows, arrow_ipc, checksum, written_at FROM batches WHERE sequence = ?",
                [self.epoch, sequence],
            )
            db.execute("DELETE FROM batches WHERE sequence = ?", [sequence])
        self.wake()

    def set_aside(self, sequence: int, reason: str) -> None:
        """Takes a batch the collector can never take out of the way, and keeps it with the reason."""
        with self._changing() as db:
            db.execute(
                "INSERT OR REPLACE INTO set_aside SELECT sequence, epoch, table_name, rows, arrow_ipc, ? "
                "FROM batches WHERE sequence = ? AND dropped IS NULL",
                [reason, sequence],
            )
            dropping.forget(db, sequence, stored=False)

    def set_former_aside(self, reason: str) -> None:
        """Does so with what waits under an identity that this spool gave up, and may not use any more."""
        with self._using() as db:
            former = db.execute("SELECT sequence FROM batches WHERE agent_id IS NOT NULL").fetchall()
        for (sequence,) in former:
            self.set_aside(sequence, reason)

    def count(self) -> int:
        """Batches that are not acknowledged."""
        with self._using() as db:
            return int(db.execute("SELECT count(*) FROM batches").fetchone()[0])

    def size_bytes(self) -> int:
        """Bytes of the batches that are not acknowledged."""
        with self._using() as db:
            return dropping.held_bytes(db)

    def lost(self, table: str, rows: int, since: float) -> None:
        """Counts rows that were not kept because the disk did not take them, the first at `since`."""
        with self._changing() as db:
            dropping.count(db, Dropped(table, "disk", rows, 0, since, time.time()))

    def dropped(self) -> list[Dropped]:
        """What was let go of and is not reported yet."""
        with self._using() as db:
            return dropping.counted(db)

    def report_dropped(self) -> None:
        """Turns what was counted since the last report into rows of `losses`, to be sent like all others."""
        with self._changing() as db:
            found = dropping.counted(db)
            if not found:
                return
            rows = table_of("losses", [dropping.loss_row(self.agent_id, one) for one in found])
            data = encode_rows(rows)
            db.execute("DELETE FROM dropped")
            db.execute(
                "INSERT INTO batches (epoch, table_name, rows, arrow_ipc, checksum, written_at) "
                "VALUES (?, 'losses', ?, ?, ?, ?)",
                [self.epoch, rows.num_rows, data, zlib.crc32(data), time.time()],
            )
        self.wake()

    def set_aside_reasons(self) -> list[tuple[int, str, str]]:
        """Sequence, table and reason of every batch that was set aside."""
        with self._using() as db:
            return db.execute("SELECT sequence, table_name, reason FROM set_aside").fetchall()

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


class _Foreign(Exception):
    """A database that is none of ours, or of a version that is not known yet."""


def _is_no_spool(error: Exception) -> bool:
    return isinstance(error, _Foreign) or getattr(error, "sqlite_errorcode", None) in _DAMAGED


def _check(db: sqlite3.Connection) -> bool:
    """Whether the file is of this version; _Foreign for what is no spool that this version can use.

    sqlite3.DatabaseError may say so too.
    """
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if version > _VERSION:
        raise _Foreign(f"it is of version {version}, and this Roofleet knows {_VERSION}")
    tables = {name for (name,) in db.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
    if tables and not {"identity", "batches"} <= tables:
        raise _Foreign("it is another program's database")
    (found,) = db.execute("PRAGMA quick_check(1)").fetchone()
    if found != "ok":
        raise _Foreign(f"it is damaged: {found}")
    return bool(version == _VERSION)


def _make_current(db: sqlite3.Connection) -> None:
    """Gives a new file, or one of an older version, all that this version has."""
    known = {row[1] for row in db.execute("PRAGMA table_info(batches)")}
    for column, kind in _ADDED if known else ():
        if column not in known:
            db.execute(f"ALTER TABLE batches ADD COLUMN {column} {kind}")
    db.executescript(_SCHEMA)


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
