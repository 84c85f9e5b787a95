"""The store in one DuckDB file: opens it, keeps everybody else out, writes through one thread."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import closing
from dataclasses import astuple
from datetime import datetime
from pathlib import Path

import duckdb
import pyarrow as pa

from roofleet_collector.errors import (
    CollectorError,
    RowsRefused,
    StoreBroken,
    StoreDamaged,
    StoreInUse,
    StoreUnreadable,
)
from roofleet_collector.limits import USUAL, Engine, Limits
from roofleet_collector.policy import Policy
from roofleet_collector.store.achieved import ended_runs, note_achieved, when_noted
from roofleet_collector.store.apart import Apart
from roofleet_collector.store.contract import Append, Receipt, Seen
from roofleet_collector.store.engine import ask, connect, damage, is_of_a_newer_version, is_of_the_rows
from roofleet_collector.store.figures import (
    catch_up,
    devices_to_refresh,
    fed,
    last_status,
    refresh_roofs,
    settle,
    spans_let_go,
    unsettle,
    unsettled,
)
from roofleet_collector.store.kept import KeptNote
from roofleet_collector.store.labels import (
    change_run,
    delete_runs,
    deleted_runs,
    label_host,
    without,
)
from roofleet_collector.store.ledger import Ledger, Noted
from roofleet_collector.store.limits import bound
from roofleet_collector.store.locks import lock_down
from roofleet_collector.store.reader import Reader
from roofleet_collector.store.retention import Done, Retention, note
from roofleet_collector.store.rows import Rows
from roofleet_collector.store.schema import is_current, migrate
from roofleet_collector.store.space import Size, checkpoint, give_back, size
from roofleet_collector.store.writer import Writer
from roofleet_proto.records import RunChange
from roofleet_proto.tables import HOSTS, REJECTED_ROWS, TABLES, Table

FILE_NAME = "roofleet.duckdb"
LEAST_FREE_BYTES = 1024 * 1024
"""A disk with less room is still full: a small write may succeed where the next batch fails."""
MOST_REJECTED = 10_000
"""Rows set aside that are kept, the newest."""
SEEN = pa.schema(
    [
        HOSTS.schema.field(name)
        for name in ("host_id", "last_seen_at", "clock_offset_ns", "attached_since", "waiting_batches")
    ]
)


class DuckDBStore:
    """Implements Store on `<folder>/roofleet.duckdb`, which is made if it is not there.

    With `read_only` several processes may hold it at once; a file that this version has not laid its views
    in is opened for writing all the same, once.

    Raises StoreInUse if another process holds the file, StoreUnreadable if it cannot be opened.
    """

    def __init__(self, folder: Path, *, read_only: bool = False, engine: Engine = USUAL.engine) -> None:
        self.path = folder / FILE_NAME
        self._is_read_only, self._engine = False, engine
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._connection = self._connect(read_only)
        except OSError as error:
            raise StoreUnreadable(f"{folder} cannot be used as a data folder: {error.strerror}") from error
        except duckdb.Error as error:
            if "Could not set lock" in str(error):
                found = re.search(r"PID (\d+)", str(error))
                holder = f" ({found[1]})" if found else ""
                raise StoreInUse(
                    f"{self.path} is held by another process{holder}. If that is a collector, name it "
                    "(--server or --collector); if a profile or a query, wait until it ends; or use another "
                    "--data folder"
                ) from error
            if is_of_a_newer_version(error):
                raise StoreUnreadable(
                    f"{self.path} was written by a newer DuckDB than the {duckdb.__version__} that is here: "
                    "pip install 'duckdb>=2,<3' reads it"
                ) from error
            first = str(error).splitlines()[0]
            self._refuse_damage(error)
            if not os.access(folder, os.W_OK):
                first += (
                    " (the folder cannot be written to: its disk is read-only, or the right to it is missing)"
                )
            raise StoreUnreadable(f"{self.path} cannot be opened: {first}") from error
        try:
            self._connection.execute("SET TimeZone = 'UTC'")
            self._connection.execute("SET checkpoint_threshold = '256MB'")
            if not is_current(self._connection):
                migrate(self._connection)
            bound(self._connection, folder, engine)
            if not self._is_read_only:
                catch_up(self._connection)
            lock_down(self._connection)
        except duckdb.Error as error:
            self._connection.close()
            self._refuse_damage(error)  # version 2 comes upon it no sooner
            raise StoreUnreadable(f"{self.path} cannot be used: {str(error).splitlines()[0]}") from error
        except BaseException:
            self._connection.close()
            raise
        self._deleted = deleted_runs(self._connection)
        self._spans_let_go = spans_let_go(self._connection)
        self._untidy = False
        """Whether rows were deleted that no checkpoint has freed the space of."""
        self._ledger: Ledger | None = None
        self._kept = KeptNote(folder)
        self.reader = Reader(self._connection)
        self._writer = Writer(
            self._connection.cursor(), committed=self._committed, rolled_back=self._rolled_back
        )
        self._ended = {
            str(run_id)
            for (run_id,) in ask(self._connection, "SELECT run_id FROM runs WHERE status <> 'running'")
        }
        self._last_turn: dict[str, object] = {}
        self._unsettled_for_good: set[str] = set()
        self._closing = threading.Lock()

    def _refuse_damage(self, error: duckdb.Error) -> None:
        """StoreDamaged if that is what the error tells of."""
        harm = damage(error)
        if harm is not None:
            first = str(error).splitlines()[0]
            raise StoreDamaged(
                f"{self.path} is damaged: {first}. `roofleet collector` on this folder sets aside what is "
                "bad, deletes nothing, and starts with what is good",
                harm.log_from,
            ) from error

    def _connect(self, read_only: bool) -> duckdb.DuckDBPyConnection:
        if read_only and self.path.exists():
            with contextlib.suppress(duckdb.Error):  # such as a log to be replayed: for the next to open it
                connection = connect(self.path, read_only=True)
                if is_current(connection):
                    self._is_read_only = True
                    return connection
                connection.close()
        return connect(self.path)

    def append(self, rows: Append) -> Future[Receipt]:
        """See Store.append. Figures of runs that have ended, and what those achieved, are worked out in work
        of its own after the one that stores the rows: if that fails, the rows are stored all the same."""
        stored = self._writer.submit_gathered(self._append_all, rows, rows.bytes)
        feeds = fed(rows.rows)
        for run_id, status in last_status(rows.rows).items():
            (self._ended.discard if status == "running" else self._ended.add)(run_id)
        self._unsettled_for_good -= feeds
        ended = feeds & self._ended
        return when_noted(stored, self._settle(ended, ended_runs(rows))) if ended else stored

    def settle(self) -> list[Future[None]]:
        """Works the figures out of runs that go on, as far as rows of them came, each by itself. One that
        cannot be worked out is not tried again before more rows of it come."""
        waiting = self.query("SELECT u.run_id FROM unsettled u JOIN runs r ON r.run_id = u.run_id").read_all()
        return [
            self._settle_alone(run_id)
            for run_id in waiting.column("run_id").to_pylist()
            if run_id not in self._unsettled_for_good
        ]

    def _settle_alone(self, run_id: str) -> Future[None]:
        def over(future: Future[None]) -> None:
            if not future.cancelled() and future.exception() is not None:
                self._unsettled_for_good.add(run_id)

        future = self._writer.submit(lambda connection: settle(connection, [run_id]))
        future.add_done_callback(over)
        return future

    def _settle(self, run_ids: set[str], ended: Sequence[str]) -> Future[None]:
        """Once for all rows of a run that wait to be stored: after the last of them."""
        turn = object()
        self._last_turn.update(dict.fromkeys(run_ids, turn))

        def work(connection: duckdb.DuckDBPyConnection) -> None:
            last = {run_id for run_id in run_ids if self._last_turn.get(run_id) in (turn, None)}
            settle(connection, [run_id for run_id in unsettled(connection) if run_id in last])
            note_achieved(connection, ended)

        def over(_: Future[None]) -> None:
            for run_id in run_ids:
                if self._last_turn.get(run_id) is turn:
                    self._last_turn.pop(run_id, None)

        future = self._writer.submit(work)
        future.add_done_callback(over)
        return future

    def touch_hosts(self, seen: Mapping[str, Seen]) -> Future[None]:
        """See Store.touch_hosts."""

        def touch(connection: duckdb.DuckDBPyConnection) -> None:
            columns = zip(*((host, *astuple(one)) for host, one in seen.items()), strict=True)
            connection.register("seen", pa.table(list(map(pa.array, columns, SEEN.types)), schema=SEEN))
            told = ", ".join(f"{name} = seen.{name}" for name in SEEN.names[1:])
            connection.execute(f"UPDATE hosts SET {told} FROM seen WHERE hosts.host_id = seen.host_id")
            connection.unregister("seen")

        return self._writer.submit(touch)

    def change_run(self, change: RunChange) -> Future[bool]:
        """See Store.change_run."""
        return self._writer.submit(lambda connection: change_run(connection, change))

    def label_host(self, host_id: str, labels: Mapping[str, str]) -> Future[None]:
        """See Store.label_host."""
        return self._writer.submit(lambda connection: label_host(connection, host_id, labels))

    def delete_runs(
        self, run_ids: Sequence[str], *, to_come: bool = False, spare_pinned: bool = False
    ) -> Future[list[str]]:
        """See Store.delete_runs."""

        def delete(connection: duckdb.DuckDBPyConnection) -> list[str]:
            there = delete_runs(connection, run_ids, to_come, spare_pinned)
            # what waits behind this is in the same transaction
            gone = run_ids if to_come else there
            self._deleted.update(gone)
            self._untidy = self._untidy or bool(gone)
            return there

        def undo(future: Future[list[str]]) -> None:
            if future.cancelled() or future.exception() is not None:
                self._deleted.difference_update(run_ids)

        future = self._writer.submit(delete)
        future.add_done_callback(undo)
        return future

    def retain(self, policy: Policy, now: datetime) -> Iterator[Done]:
        """Does what a policy asks for, a small step each time, while rows come in; says what each was. Ends
        when nothing is left to be done."""

        def delete_old(run_ids: Sequence[str]) -> Future[list[str]]:
            return self.delete_runs(run_ids, spare_pinned=True)

        with closing(self._connection.cursor()) as cursor:
            retention = Retention(cursor, self._writer.submit, delete_old, self._spans_let_go)
            for done in retention.steps(policy, now):
                self._untidy = self._untidy or done.rows > 0
                yield done

    def give_back(self) -> Iterator[None]:
        """Gives the space of deleted rows back to the disk, a small step each time, while rows come in. Ends
        when not much of the file is free, or when a query must come to its end before."""
        if self._untidy:
            if not self._tidied():
                return
            yield
        with closing(self._connection.cursor()) as cursor:
            yield from give_back(cursor, self._writer.submit, self._tidied)

    def _tidied(self) -> bool:
        self._untidy = not self._writer.submit_alone(checkpoint).result()
        return not self._untidy

    def size(self) -> Size:
        """What the file takes on the disk, and what of it is free."""
        with closing(self._connection.cursor()) as cursor:
            return size(cursor)

    def rederive(self, run_id: str, costs: pa.Table) -> Future[None]:
        """Replaces the costs of one run by those of newer formulas."""

        def replace(connection: duckdb.DuckDBPyConnection) -> None:
            connection.execute("DELETE FROM op_costs WHERE run_id = ?", [run_id])
            _insert(connection, TABLES["op_costs"], costs)
            unsettle(connection, [run_id])

        replaced = self._writer.submit(replace)
        return when_noted(replaced, self._settle({run_id}, [run_id]))

    def probe(self) -> Future[None]:
        """See Store.probe. Where the last transaction failed for the machine's sake, one is tried."""

        def write(connection: duckdb.DuckDBPyConnection) -> None:
            connection.execute("UPDATE views_laid SET digest = digest")

        if self._writer.trouble is None:
            done: Future[None] = Future()
            done.set_result(None)
            return done
        if shutil.disk_usage(self.path.parent).free < LEAST_FREE_BYTES:
            raise OSError(self._writer.trouble)
        return self._writer.submit(write, writes=True)

    def check(self) -> None:
        """StoreBroken if the engine has given the database up."""
        if self._writer.given_up is not None:
            raise StoreBroken(
                f"{self.path} has to be opened anew, the engine has given it up: {self._writer.given_up}. "
                "What was acknowledged is in it: make room if the disk is full, and start the collector again"
            )

    def query(self, sql: str, parameters: Sequence[object] = ()) -> Rows:
        """See Store.query."""
        return self.reader.query(sql, parameters)

    def door(self, limits: Limits | None = None, apart: Apart | None = None) -> Reader:
        """A reader for statements of whoever may ask; close it before the store."""
        return Reader(self._connection, limits, apart or Apart(self._engine.apart_bytes, self._engine.plan_s))

    def _append_all(self, connection: duckdb.DuckDBPyConnection, appends: Sequence[Append]) -> list[Receipt]:
        """Rows of one table from all of them go in as one, since an INSERT costs as much as 1,000 rows."""
        ledger = self._known(connection)
        receipts: list[Receipt] = []
        parts: dict[str, list[pa.Table]] = {}
        for append in appends:
            noted = Noted.new if append.key is None else ledger.note(append.key, append.checksum)
            if noted is not Noted.new:
                foreign = noted is Noted.foreign
                receipts.append(Receipt(duplicate=not foreign, foreign=foreign))
                continue
            receipts.append(Receipt(duplicate=False, rejected=append.rejected))
            for name, rows in append.rows.items():
                parts.setdefault(name, []).append(rows)
        ledger.write(connection)
        try:
            rows = {name: pa.concat_tables(tables) for name, tables in parts.items()}
            kept, left_out = without(rows, self._deleted, self._spans_let_go)
            note(connection, Done("spans", "left out", left_out))
            for name, table in kept.items():
                _insert(connection, TABLES[name], table)
            if feeds := fed(kept):
                unsettle(connection, feeds)
            if devices := devices_to_refresh(connection, kept):
                refresh_roofs(connection, devices)
        except Exception as error:
            if is_of_the_rows(error):
                raise RowsRefused(str(error).partition("\n")[0]) from error
            raise
        return receipts

    def _known(self, connection: duckdb.DuckDBPyConnection) -> Ledger:
        if self._ledger is None:
            self._ledger = Ledger(connection)
        return self._ledger

    def _committed(self) -> None:
        if self._ledger is not None:
            self._ledger.committed()
            self._kept.write(self._ledger.batches)

    def _rolled_back(self) -> None:
        if self._ledger is not None:
            self._ledger.rolled_back()

    def backup(self, to: Path) -> int:
        """See Store.backup. Writing waits while the files are copied; the copy is then opened, so that its
        log is in it and it is known to be readable."""
        if to.exists():
            raise FileExistsError(f"{to} is there already")
        to.parent.mkdir(parents=True, exist_ok=True)
        parts = {self.path: to.with_name(f"{to.name}.part")}
        parts[_log_of(self.path)] = _log_of(parts[self.path])

        def copy(_: duckdb.DuckDBPyConnection) -> None:
            for source, target in parts.items():
                if source.exists():
                    shutil.copyfile(source, target)

        try:
            self._writer.submit(copy).result()
            connection = connect(parts[self.path])
            batches = Ledger(connection).batches
            ask(connection, "CHECKPOINT")
            connection.close()
            parts[self.path].rename(to)
        finally:
            for part in parts.values():
                part.unlink(missing_ok=True)
        return batches

    def lost(self) -> tuple[int, str] | None:
        """How many batches are missing that were stored, and when they were last noted; None if none are."""
        kept = self._kept.read()
        stored = self._writer.submit(self._known).result().batches
        return (kept.batches - stored, kept.at) if kept is not None and kept.batches > stored else None

    def accept_loss(self) -> None:
        """Notes what is stored now, so that what is missing is not missed again."""
        self._kept.write(self._writer.submit(self._known).result().batches, now=True, fewer=True)

    def close(self) -> None:
        """See Store.close."""
        with self._closing:
            if not self._is_read_only:
                # closed before, or the reader was, or the engine has given up
                with contextlib.suppress(CollectorError, RuntimeError, duckdb.Error):
                    self.settle()
            self.reader.close()
            self._writer.close()
            self._connection.close()
            if self._ledger is not None:
                self._kept.write(self._ledger.batches, now=True)


def _log_of(file: Path) -> Path:
    """The write-ahead log beside a database file."""
    return file.with_name(f"{file.name}.wal")


def _insert(connection: duckdb.DuckDBPyConnection, table: Table, rows: pa.Table) -> None:
    if table.replaces:
        rows = _last_of_each_key(rows, table.key)
    verb = "INSERT OR REPLACE INTO" if table.replaces else "INSERT INTO"
    # After an error the transaction takes no more orders; the next rows take this name over.
    connection.register("incoming", rows.combine_chunks())
    connection.execute(f"{verb} {table.name} SELECT * FROM incoming")
    connection.unregister("incoming")
    if table is REJECTED_ROWS:
        connection.execute(
            "DELETE FROM rejected_rows WHERE received_at < "
            "(SELECT received_at FROM rejected_rows ORDER BY received_at DESC LIMIT 1 OFFSET ?)",
            [MOST_REJECTED - 1],
        )


def _last_of_each_key(rows: pa.Table, key: tuple[str, ...]) -> pa.Table:
    """One statement cannot replace a row twice, so only the last row of each key goes in."""
    columns = [rows.column(name).to_pylist() for name in key]
    last = {values: place for place, values in enumerate(zip(*columns, strict=True))}
    return rows if len(last) == rows.num_rows else rows.take(sorted(last.values()))
