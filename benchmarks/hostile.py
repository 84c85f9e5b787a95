"""Small queries and ingest while others ask what never ends: the SQL door under attack."""

from __future__ import annotations

import contextlib
import statistics
import tempfile
import threading
import time
from pathlib import Path

import grpc
from adbc_driver_flightsql import dbapi
from tests.support import batch, collector, spans

from benchmarks.figure import Figure
from roofleet_proto.services import PUSH

QUIET_S, HOSTILE_S = 6.0, 12.0
SMALL = "SELECT path, count(*), avg(self_ns) FROM spans WHERE run_id = 'none' GROUP BY path"
HOSTILE = (
    "SELECT 1 AS a0, " + ", ".join(f"a{i} + a{i} AS a{i + 1}" for i in range(40)),
    "SELECT levenshtein(repeat(path, 100000), repeat('ba', 500000)) FROM spans LIMIT 1",
    "SELECT length(repeat(path, 1000000000)) FROM spans",
    "SELECT repeat('x', 1000000000)",
)


def measure() -> list[Figure]:
    """Median of a small query and rows a second stored, in peace and with four hostile clients."""
    with tempfile.TemporaryDirectory() as folder, collector(Path(folder)) as running:
        stop, stored, times = threading.Event(), [0], list[float]()

        def write() -> None:
            with grpc.insecure_channel(running.grpc) as channel:

                def batches() -> object:
                    rows, number = spans(4096), 0
                    while not stop.is_set():
                        number += 1
                        yield batch(rows, number)

                for _ in PUSH.client(channel)(batches()):
                    stored[0] += 4096

        def ask(connection: dbapi.Connection, sql: str) -> None:
            with connection.cursor() as cursor:
                cursor.execute(sql)
                cursor.fetch_arrow_table()

        def attack(sql: str) -> None:
            with dbapi.connect(f"grpc://{running.sql}", autocommit=True) as connection:
                while not stop.is_set():
                    with contextlib.suppress(dbapi.Error):
                        ask(connection, f"{sql} -- {time.time()}")

        def phase(seconds: float) -> tuple[float, float]:
            times.clear()
            begun, before = time.perf_counter(), stored[0]
            with dbapi.connect(f"grpc://{running.sql}", autocommit=True) as connection:
                while time.perf_counter() - begun < seconds:
                    begin = time.perf_counter()
                    ask(connection, SMALL)
                    times.append((time.perf_counter() - begin) * 1e3)
                    time.sleep(0.02)
            return statistics.median(times), (stored[0] - before) / (time.perf_counter() - begun)

        threads = [threading.Thread(target=write)]
        threads[0].start()
        quiet = phase(QUIET_S)
        threads += [threading.Thread(target=attack, args=(sql,)) for sql in HOSTILE]
        for thread in threads[1:]:
            thread.start()
        hostile = phase(HOSTILE_S)
        stop.set()
        for thread in threads:
            thread.join()
    return [
        Figure("hostile", "small query, writing", quiet[0], "ms"),
        Figure("hostile", "small query, writing and attacked", hostile[0], "ms"),
        Figure("hostile", "rows stored", quiet[1], "rows/s"),
        Figure("hostile", "rows stored, attacked", hostile[1], "rows/s"),
    ]
