"""The store in one DuckDB file: opens it, keeps everybody else out, writes through one thread."""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from datetime import datetime
from pathlib import Path

import duckdb
import pyarrow as pa

from roofleet_collector.errors import StoreInUse, StoreUnreadable
from roofleet_collector.store.achieved import ended_runs, note_achieved, when_noted
from roofleet_collector.store.apart import Apart
from roofleet_collector.store.contract import Append, Receipt
from roofleet_collector.store.engine import connect, is_of_a_newer_version
from roofleet_collector.store.labels import change_run, delete_runs, deleted_runs, without_deleted
from roofleet_collector.store.limits import Limits, bound
from roofleet_collector.store.locks import lock_down
from roofleet_collector.store.reader import Reader
from roofleet_collector.store.rows import Rows
from roofleet_collector.store.schema import is_current, migrate
from roofleet_collector.store.writer import Writer
from roofleet_proto.records import RunChange
from roofleet_proto.tables import TABLES, Table

FILE_NAME = "roofleet.duckdb"


class DuckDBStore:
    """Implements Store on `<folder>/roofleet.duckdb`, which is made if it is not there.

    With `read_only` several processes may hold it at once; a file that this version has not laid its views
    in is opened for writing all the same, once.

    Raises StoreInUse if another process holds the file, StoreUnreadable if it cannot be opened.
    """

    def __init__(self, folder: Path, *, read_only: bool = False) -> None:
        self.path = folder / FILE_NAME
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
            raise StoreUnreadable(f"{self.path} cannot be opened: {first}") from error
        try:
            self._connection.execute("SET TimeZone = 'UTC'")
            self._connection.execute("SET checkpoint_threshold = '256MB'")
            if not is_current(self._connection):
                migrate(self._connection)
            bound(self._connection, folder)
            lock_down(self._connection)
        except duckdb.Error as error:
            self._connection.close()
            raise StoreUnreadable(f"{self.path} cannot be used: {str(error).splitlines()[0]}") from error
        except BaseException:
            self._connection.close()
            raise
        self._deleted = deleted_runs(self._connection)
        self.reader = Reader(self._connection)
        self._writer = Writer(self._connection.cursor())
        self._closing = threading.Lock()

    def _connect(self, read_only: bool) -> duckdb.DuckDBPyConnection:
        if read_only and self.path.exists():
            with contextlib.suppress(duckdb.Error):  # such as a log to be replayed: for the next to open it
                connection = connect(self.path, read_only=True)
                if is_current(connection):
                    return connection
                connection.close()
        return connect(self.path)

    def append(self, rows: Append) -> Future[Receipt]:
        """See Store.append. What runs achieved is noted in work of its own after the one that ends them: if
        that fails, the rows are stored all the same."""
        stored = self._writer.submit(lambda connection: _append(connection, rows, self._deleted))
        ended = ended_runs(rows)
        if not ended:
            return stored
        noted = self._writer.submit(lambda connection: note_achieved(connection, ended))
        return when_noted(stored, noted)

    def touch_hosts(self, seen: Mapping[str, datetime]) -> Future[None]:
        """See Store.touch_hosts."""

        def touch(connection: duckdb.DuckDBPyConnection) -> None:
            for host_id, at in seen.items():
                connection.execute("UPDATE hosts SET last_seen_at = ? WHERE host_id = ?", [at, host_id])

        return self._writer.submit(touch)

    def change_run(self, change: RunChange) -> Future[bool]:
        """See Store.change_run."""
        return self._writer.submit(lambda connection: change_run(connection, change))

    def delete_runs(self, run_ids: Sequence[str]) -> Future[list[str]]:
        """See Store.delete_runs."""

        def delete(connection: duckdb.DuckDBPyConnection) -> list[str]:
            there = delete_runs(connection, run_ids)
            self._deleted.update(there)  # what waits behind this is in the same transaction
            return there

        def undo(future: Future[list[str]]) -> None:
            if future.cancelled() or future.exception() is not None:
                self._deleted.difference_update(run_ids)

        future = self._writer.submit(delete)
        future.add_done_callback(undo)
        return future

    def rederive(self, run_id: str, costs: pa.Table) -> Future[None]:
        """Replaces the costs of one run by those of newer formulas."""

        def replace(connection: duckdb.DuckDBPyConnection) -> None:
            connection.execute("DELETE FROM op_costs WHERE run_id = ?", [run_id])
            _insert(connection, TABLES["op_costs"], costs)

        replaced = self._writer.submit(replace)
        return when_noted(
            replaced, self._writer.submit(lambda connection: note_achieved(connection, [run_id]))
        )

    def query(self, sql: str, parameters: Sequence[object] = ()) -> Rows:
        """See Store.query."""
        return self.reader.query(sql, parameters)

    def door(self, limits: Limits | None = None, apart: Apart | None = None) -> Reader:
        """A reader for statements of whoever may ask; close it before the store."""
        return Reader(self._connection, limits, apart or Apart())

    def close(self) -> None:
        """See Store.close."""
        with self._closing:
            self.reader.close()
            self._writer.close()
            self._connection.close()


def _append(connection: duckdb.DuckDBPyConnection, rows: Append, deleted: set[str]) -> Receipt:
    if rows.key is not None:
        known = connection.execute(
            "SELECT 1 FROM ingest_log WHERE agent_id = ? AND epoch = ? AND sequence = ?", rows.key
        ).fetchone()
        if known:
            return Receipt(duplicate=True)
        connection.execute("INSERT INTO ingest_log VALUES (?, ?, ?, now())", rows.key)
    for name, table in without_deleted(rows.rows, deleted).items():
        _insert(connection, TABLES[name], table)
    return Receipt(duplicate=False)


def _insert(connection: duckdb.DuckDBPyConnection, table: Table, rows: pa.Table) -> None:
    if table.replaces:
        rows = _last_of_each_key(rows, table.key)
    verb = "INSERT OR REPLACE INTO" if table.replaces else "INSERT INTO"
    # After an error the transaction takes no more orders; the next rows take this name over.
    connection.register("incoming", rows)
    connection.execute(f"{verb} {table.name} SELECT * FROM incoming")
    connection.unregister("incoming")


def _last_of_each_key(rows: pa.Table, key: tuple[str, ...]) -> pa.Table:
    """One statement cannot replace a row twice, so only the last row of each key goes in."""
    columns = [rows.column(name).to_pylist() for name in key]
    last = {values: place for place, values in enumerate(zip(*columns, strict=True))}
    return rows if len(last) == rows.num_rows else rows.take(sorted(last.values()))
