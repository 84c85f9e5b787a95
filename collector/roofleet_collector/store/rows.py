"""The rows of one running query: streamed, bounded in time, and tidied up however the reading ends."""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import suppress
from types import TracebackType
from typing import Any, Self, TypeVar

import duckdb
import pyarrow as pa

from roofleet_collector.errors import CollectorError, QueryTimeout, ResultTooLarge, SqlError
from roofleet_collector.limits import Limits
from roofleet_collector.store.engine import Parameters, ask, stream
from roofleet_collector.store.plain import plain_schema
from roofleet_collector.store.watchdog import Watchdog

BATCH_ROWS = 16_384
Result = TypeVar("Result")


class Rows:
    """Reads like a `pyarrow.RecordBatchReader`: `schema`, `read_next_batch`, `read_all`, iteration, `close`.

    The query has a cursor and a read-only transaction of its own; both end when the last batch is read, at
    `close`, on any error, when the object is dropped, and when it is left unread for `limits.idle_s`. Only
    the time in which the engine works counts against `limits.timeout_s`, so a slow reader of a large result
    is not cut off. `ended` is called once, when the query has ended.

    Reading raises SqlError with the engine's message, QueryTimeout, ResultTooLarge, or what it was ended by.
    """

    def __init__(
        self,
        cursor: duckdb.DuckDBPyConnection,
        watchdog: Watchdog,
        limits: Limits,
        ended: Callable[[], None] = lambda: None,
    ) -> None:
        self.cursor = cursor
        self._watchdog = watchdog
        self._limits, self._ended = limits, ended
        self._spent_s, self._read_bytes, self._read_rows = 0.0, 0, 0
        self._lock = threading.RLock()
        self._idle_alarm: int | None = None
        self._end_alarm: int | None = None
        self._reader: Any = None
        self.closed = False
        self._ended_by: CollectorError | None = None
        self.schema: pa.Schema = pa.schema([])
        ask(cursor, "BEGIN TRANSACTION READ ONLY")

    def start(self, sql: str, parameters: Parameters = ()) -> Self:
        """Begins the query; returns when its first rows are there."""
        return self.read(lambda: stream(self.cursor, sql, parameters, BATCH_ROWS))

    def read(self, source: Callable[[], Any]) -> Self:
        """Reads what `source` gives: an iterator of batches with a `schema` and a `close`."""
        self._reader = self.run(source)
        self.schema = plain_schema(self._reader.schema)
        return self

    def run(self, work: Callable[[], Result]) -> Result:
        """Does engine work on this query's cursor within what is left of its time."""
        with self._lock:
            self._rest(False)
            if self._ended_by is not None:
                self.close()
                raise self._ended_by
            alarm, began = None, time.monotonic()
            if self._limits.timeout_s is not None:
                left_s = max(self._limits.timeout_s - self._spent_s, 0.0)
                alarm = self._watchdog.arm(left_s, self._out_of_time)
            try:
                return work()
            except (duckdb.Error, OSError, pa.ArrowException, UnicodeDecodeError) as error:
                # A stream's errors arrive through Arrow's C interface, as an OSError with the engine's text.
                self.close()
                if self._ended_by is not None:
                    raise self._ended_by from error
                raise SqlError(str(error)) from error
            except CollectorError as error:
                self.close()
                raise (self._ended_by or error) from error
            except BaseException:
                self.close()
                raise
            finally:
                if alarm is not None:
                    self._watchdog.disarm(alarm)
                self._spent_s += time.monotonic() - began
                self._rest(not self.closed)

    def read_next_batch(self) -> pa.RecordBatch:
        """The next rows; StopIteration after the last."""
        with self._lock:
            if self.closed and self._ended_by is None:
                raise StopIteration
            batch = self.run(lambda: next(self._reader, None))
            if batch is None:
                self.close()
                raise StopIteration
            self._read_bytes += batch.nbytes
            self._read_rows += batch.num_rows
            limits = self._limits
            for most, read, what in (
                (limits.max_bytes, self._read_bytes, "bytes"),
                (limits.max_rows, self._read_rows, "rows"),
            ):
                if most is not None and read > most:
                    self.close()
                    raise ResultTooLarge(
                        f"the result is larger than {most} {what}: ask for fewer rows or columns, or in parts"
                    )
            return batch if batch.schema.equals(self.schema) else batch.cast(self.schema)

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        return self

    __next__ = read_next_batch

    def read_all(self) -> pa.Table:
        """All rows that are left."""
        return pa.Table.from_batches(list(self), self.schema)

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        reader = pa.RecordBatchReader.from_batches(self.schema, self)
        return reader.__arrow_c_stream__(requested_schema)

    def end(self, why: CollectorError) -> None:
        """Stops the query from another thread; `why` is raised to whoever reads it."""
        if self.closed:
            return
        self._ended_by = self._ended_by or why
        if self._lock.acquire(blocking=False):
            try:
                self.close()
            finally:
                self._lock.release()
        else:
            # Until it has ended: an interrupt that comes before the engine has begun is lost.
            self._end_alarm = self._watchdog.arm(0, self._interrupt)
            if not self._end_alarm_is_needed():
                self._watchdog.disarm(self._end_alarm)

    def ending(self) -> bool:
        """Whether it was said to end: what works for this query should stop."""
        return self._ended_by is not None

    def close(self) -> None:
        """Ends the transaction and the cursor; harmless if closed before."""
        with self._lock:
            if self.closed:
                return
            self.closed = True
            self._rest(False)
            if self._end_alarm is not None:
                self._watchdog.disarm(self._end_alarm)
            reader, self._reader = self._reader, None
            if reader is not None:
                reader.close()
            try:
                self.cursor.execute("ROLLBACK")
            except duckdb.Error:
                pass  # nothing to roll back: the engine has ended the transaction, or was closed
            finally:
                self.cursor.close()
                self._ended()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()

    def _out_of_time(self) -> None:
        self._ended_by = QueryTimeout(
            f"the query ran for more than {self._limits.timeout_s:g} s and was stopped"
        )
        self._interrupt()

    def _end_alarm_is_needed(self) -> bool:
        return not self.closed  # which its own thread may have done meanwhile

    def _interrupt(self) -> None:
        with suppress(duckdb.ConnectionException):  # closed by its own thread a moment ago
            self.cursor.interrupt()

    def _rest(self, resting: bool) -> None:
        """Starts or stops the clock that runs while nobody reads."""
        if self._idle_alarm is not None:
            self._watchdog.disarm(self._idle_alarm)
            self._idle_alarm = None
        idle_s = self._limits.idle_s
        if resting and idle_s is not None:
            # Weak, or the alarm would keep alive what nobody holds any more.
            mine = weakref.ref(self)
            why = QueryTimeout(f"the result was left unread for {idle_s:g} s")
            self._idle_alarm = self._watchdog.arm(idle_s, lambda: _end(mine, why))


def _end(rows: weakref.ref[Rows], why: CollectorError) -> None:
    alive = rows()
    if alive is not None:
        alive.end(why)
