"""Prepared statements and their bound parameters, between a client's calls."""

from __future__ import annotations

import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta

import pyarrow as pa

from roofleet_collector.errors import SqlError
from roofleet_collector.store.reader import PreparedSelect
from roofleet_proto.arrow_ipc import read_stream
from roofleet_proto.errors import MalformedMessage

MAX_STATEMENTS = 1024
MAX_PARAMETER_BYTES = 1024 * 1024
"""What a row of parameters may decode to."""

EXPIRES_AFTER = timedelta(hours=1)


@dataclass(frozen=True)
class Prepared:
    """A statement and the parameters bound to it: an Arrow IPC stream of one row, or nothing yet."""

    select: PreparedSelect
    parameters: bytes = b""


class PreparedStatements:
    """Handles for prepared statements. A client that never closes them cannot fill the memory: the one left
    unused for longest goes when there are too many, and every one goes after an hour without use."""

    def __init__(
        self,
        limit: int = MAX_STATEMENTS,
        expires_after: timedelta = EXPIRES_AFTER,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._limit, self._expires_s, self._clock = limit, expires_after.total_seconds(), clock
        self._statements: OrderedDict[bytes, tuple[float, Prepared]] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._statements)

    def add(self, select: PreparedSelect) -> bytes:
        """Keeps a statement; returns its handle."""
        handle = secrets.token_bytes(16)
        with self._lock:
            self._statements[handle] = (self._clock(), Prepared(select))
            while len(self._statements) > self._limit or self._oldest_s() > self._expires_s:
                self._statements.popitem(last=False)
        return handle

    def get(self, handle: bytes) -> Prepared:
        """The statement; SqlError if the handle is not known (any more)."""
        with self._lock:
            used, prepared = self._statements.get(handle, (float("-inf"), None))
            if prepared is None or self._clock() - used > self._expires_s:
                raise SqlError("this prepared statement was closed or has expired: prepare it again")
            self._keep(handle, prepared)
            return prepared

    def bind(self, handle: bytes, parameters: bytes) -> None:
        """Sets the parameters of later executions; SqlError if the handle is not known (any more)."""
        prepared = self.get(handle)
        with self._lock:
            self._keep(handle, replace(prepared, parameters=parameters))

    def close(self, handle: bytes) -> None:
        """Forgets a statement; harmless if it is not known."""
        with self._lock:
            self._statements.pop(handle, None)

    def _keep(self, handle: bytes, prepared: Prepared) -> None:
        self._statements[handle] = (self._clock(), prepared)
        self._statements.move_to_end(handle)

    def _oldest_s(self) -> float:
        return self._clock() - next(iter(self._statements.values()))[0]


def fitting_parameters(takes: pa.Schema, data: bytes) -> bytes:
    """One row of parameters as a client sent it, as an Arrow IPC stream that `decode_parameters` takes.

    Columns named like the statement's parameters keep their names; others become "1", "2", ... SqlError if it
    is not one valid row, or too big.
    """
    row = _row(data)
    if set(row.column_names) != set(takes.names):
        row = row.rename_columns([str(place) for place in range(1, row.num_columns + 1)])
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, row.schema) as writer:
        writer.write_table(row)
    return bytes(sink.getvalue())


def decode_parameters(data: bytes) -> list[object] | dict[str, object]:
    """The values of a row: by name if the columns have names, else by place.

    SqlError if it is not one valid row, too big, or has a value that Python does not have.
    """
    if not data:
        return []
    row = _row(data)
    try:
        values = {name: _value(column) for name, column in zip(row.column_names, row.columns, strict=True)}
    except (pa.ArrowException, ValueError, OverflowError) as error:  # a year 300000, an unknown time zone
        raise SqlError(f"a parameter has a value that cannot be bound: {error}") from error
    if all(name.isdigit() for name in values):
        return [values[name] for name in sorted(values, key=int)]
    return values


def _row(data: bytes) -> pa.Table:
    """The one row of a stream that may come from anybody: a ticket, too, can be made by a client."""
    try:
        rows = read_stream(data, max_bytes=MAX_PARAMETER_BYTES)
    except MalformedMessage as error:
        raise SqlError(f"the parameters cannot be read: {error}") from error
    if rows.num_rows != 1:
        raise SqlError(
            f"a query takes one row of parameters, given are {rows.num_rows}; run it once for each"
        )
    return rows


def _value(column: pa.ChunkedArray) -> object:
    kind = column.type
    # Python's times stop at microseconds, and so do the engine's parameters.
    if pa.types.is_timestamp(kind) and kind.unit == "ns":
        column = column.cast(pa.timestamp("us", kind.tz), safe=False)
    elif pa.types.is_duration(kind) and kind.unit == "ns":
        column = column.cast(pa.duration("us"), safe=False)
    return column[0].as_py()
