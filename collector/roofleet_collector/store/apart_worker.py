"""A process that plans and runs statements for the collector, and may be killed at any moment.

Its database has the collector's tables and views, without rows. What a statement reads is sent along with it,
and put in the place of the table or view of that name for as long as it runs. It ends when its socket closes.
"""

from __future__ import annotations

import json
import os
import pickle
import resource
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from multiprocessing.connection import Connection

import duckdb
import pyarrow as pa

from roofleet_collector.store.engine import Parameters, ask, stream
from roofleet_collector.store.locks import lock_down
from roofleet_collector.store.plain import plain_schema
from roofleet_collector.store.rows import BATCH_ROWS
from roofleet_collector.store.schema import migrate
from roofleet_collector.store.shape import shape
from roofleet_collector.store.statements import Select

CATALOG = "roofleet"
"""The name that the collector's database has by its file, for statements that spell it out."""

NICE = 10
"""What a hostile statement takes of the processors, it takes after whoever stores rows."""

PLAN, SHAPE, RUN = "plan", "shape", "run"
READY, FAILED, TOO_MUCH, SHAPED, SCHEMA, BATCH, END = b"r", b"f", b"m", b"t", b"s", b"b", b"e"
"""The first byte of what is sent back."""


def main(socket: int, memory_bytes: int) -> None:
    """Serves one request after the other."""
    resource.setrlimit(resource.RLIMIT_DATA, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.nice(NICE)
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    link = Connection(socket)
    connection = duckdb.connect(config={"threads": 1, "memory_limit": f"{memory_bytes // 2**20 // 2}MiB"})
    connection.execute(f"ATTACH ':memory:' AS {CATALOG}")
    connection.execute(f"USE {CATALOG}")
    migrate(connection)
    lock_down(connection)
    link.send_bytes(READY)
    with suppress(EOFError, BrokenPipeError, ConnectionResetError):
        while True:
            kind, select, parameters = pickle.loads(link.recv_bytes())
            connection.execute("BEGIN")
            last = END
            try:
                if kind == RUN:
                    _receive(connection, link)
                    _run(connection, link, select, parameters)
                elif kind == SHAPE:
                    schema = shape(connection, select, parameters)
                    last = SHAPED + schema.serialize().to_pybytes()
                else:
                    _plan(connection, select, parameters)
            except (duckdb.OutOfMemoryException, MemoryError):
                link.send_bytes(TOO_MUCH)
                return
            except (duckdb.Error, pa.ArrowException, OSError, UnicodeDecodeError) as error:
                link.send_bytes(FAILED + str(error).encode(errors="replace"))
            else:
                link.send_bytes(last)
            connection.execute("ROLLBACK")


def _plan(connection: duckdb.DuckDBPyConnection, select: Select, values: Parameters) -> None:
    try:
        ask(connection, f"EXPLAIN {select.sql}", values)
    except duckdb.ParserException:
        ask(connection, select.sql, values)  # itself an EXPLAIN, a DESCRIBE or the like


def _receive(connection: duckdb.DuckDBPyConnection, link: Connection) -> None:
    """Puts tables in the place of those without rows. What goes wrong here ends the process: what is sent is
    no longer known to be rows or a request."""
    try:
        while data := link.recv_bytes():
            kind, name = json.loads(data)
            schema = pa.ipc.read_schema(pa.py_buffer(link.recv_bytes()))
            rows = pa.RecordBatchReader.from_batches(schema, _sent(link, schema))
            connection.execute(f'DROP {kind} IF EXISTS {CATALOG}.main."{name}" CASCADE')
            connection.register("roofleet_sent", rows)
            connection.execute(f'CREATE TABLE {CATALOG}.main."{name}" AS SELECT * FROM roofleet_sent')
            connection.unregister("roofleet_sent")
    except (duckdb.Error, pa.ArrowException, OSError, MemoryError):
        os._exit(1)


def _run(connection: duckdb.DuckDBPyConnection, link: Connection, select: Select, values: Parameters) -> None:
    rows = stream(connection, select.sql, values, BATCH_ROWS)
    schema = plain_schema(rows.schema)
    link.send_bytes(SCHEMA + schema.serialize().to_pybytes())
    for batch in rows:
        plain = batch if batch.schema.equals(schema) else batch.cast(schema)
        link.send_bytes(BATCH + plain.serialize().to_pybytes())


def _sent(link: Connection, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    while data := link.recv_bytes():
        yield pa.ipc.read_record_batch(pa.py_buffer(data), schema)


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)
