"""A store in a folder that nobody owns: held only while it is used, so that several processes take turns."""

from __future__ import annotations

import atexit
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from weakref import WeakValueDictionary

import pyarrow as pa

from roofleet_collector.errors import StoreInUse
from roofleet_collector.limits import USUAL, Engine
from roofleet_collector.store.duckdb_store import FILE_NAME, DuckDBStore

PATIENCE_S = 30.0
"""How long a turn is waited for; others hold the file for the time of a query or of storing one run."""
LINGER_S = 0.3
"""How long it stays open for a next query, which is then answered in a tenth of the time."""


def open_when_free(
    folder: Path, patience_s: float, *, read_only: bool = False, engine: Engine = USUAL.engine
) -> DuckDBStore:
    """The store of a folder as soon as no other process holds it; StoreInUse if that takes too long."""
    give_up = time.monotonic() + patience_s
    pause_s = 0.02
    while True:
        try:
            return DuckDBStore(folder, read_only=read_only, engine=engine)
        except StoreInUse:
            if time.monotonic() > give_up:
                raise
            time.sleep(pause_s)
            pause_s = min(pause_s * 1.5, 0.2)


def holds_data(folder: Path) -> bool:
    """Whether anything was ever stored in a folder."""
    return (folder / FILE_NAME).exists()


class VisitedStore:
    """The store of one folder for one process; get it by `visited`. Safe to use from any thread."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._free = threading.Condition()
        self._store: DuckDBStore | None = None
        self._visitors = 0
        self._alone = False
        self._visits = 0
        self._lingering = threading.Timer(LINGER_S, self._leave, [0])  # the first one, never started

    def query(self, sql: str, parameters: Sequence[object] = ()) -> pa.Table:
        """The rows of one read-only statement; SqlError if it is not one or fails, StoreInUse if another
        process does not let go of the file."""
        with self._visit(read_only=True) as store:
            return store.query(sql, parameters).read_all()

    def check(self) -> None:
        """StoreUnreadable if what lies there is no store; not known while another process holds it."""
        with self._free:
            if self._store is None and holds_data(self.folder):
                with suppress(StoreInUse):
                    open_when_free(self.folder, 0, read_only=True).close()

    @contextmanager
    def writing(self) -> Iterator[DuckDBStore]:
        """The store, alone, to write to; let go of at once in the end. StoreInUse as above."""
        with self._visit(read_only=False) as store:
            yield store

    @contextmanager
    def _visit(self, *, read_only: bool) -> Iterator[DuckDBStore]:
        with self._free:
            self._free.wait_for(lambda: not self._alone and (read_only or self._visitors == 0))
            if not read_only:
                self._close()
            if self._store is None:
                self._store = open_when_free(self.folder, PATIENCE_S, read_only=read_only)
            store = self._store
            self._visitors += 1
            self._alone = not read_only
            self._visits += 1
        try:
            yield store
        finally:
            with self._free:
                self._visitors -= 1
                self._alone = False
                if not read_only:
                    self._close()
                elif self._visitors == 0:
                    self._lingering.cancel()
                    self._lingering = threading.Timer(LINGER_S, self._leave, [self._visits])
                    self._lingering.daemon = True
                    self._lingering.start()
                self._free.notify_all()

    def _leave(self, visits: int) -> None:
        with self._free:
            if self._visitors == 0 and self._visits == visits:
                self._close()

    def leave_at_exit(self) -> None:
        """Closes it if no thread is about to open it; left open it makes DuckDB 2 complain, and so does a
        thread that still waits to close it."""
        if self._free.acquire(timeout=1):
            try:
                self._close()
                self._lingering.cancel()
            finally:
                self._free.release()
        if self._lingering.is_alive():
            self._lingering.join(1)

    def _close(self) -> None:
        store, self._store = self._store, None
        if store is not None:
            store.close()


_known: WeakValueDictionary[Path, VisitedStore] = WeakValueDictionary()
_knowing = threading.Lock()


@atexit.register
def _leave_all() -> None:
    for store in list(_known.values()):
        store.leave_at_exit()


def visited(folder: Path) -> VisitedStore:
    """The one of this process for a folder: DuckDB opens a file once a process."""
    key = folder.resolve()
    with _knowing:
        found = _known.get(key)
        if found is None:
            found = _known[key] = VisitedStore(folder)
        return found
