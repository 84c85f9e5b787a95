"""What retention costs those who send meanwhile, and what it gives back: 200 runs and a million readings.

A collector is asked to keep a day of spans and two hours of readings, and an agent sends 20 rows up to fifty
times a second, each batch after the one before was acknowledged. The same is measured where all is kept.
"""

from __future__ import annotations

import itertools
import queue
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import grpc
from adbc_driver_flightsql import dbapi
from tests.support import CollectorProcess, batch, collector, spans

from benchmarks.figure import Figure
from benchmarks.growth import fill
from roofleet_collector.store.engine import connect
from roofleet_proto.records import Batch
from roofleet_proto.services import PUSH

RUNS = 200
READINGS = 1_000_000
QUIET_S, MOST_S = 10.0, 400.0
LOOK_S, LOOKS = 2.0, 4
_AGED = f"""
UPDATE runs SET finished_at = now() - INTERVAL 30 DAY;
UPDATE run_figures SET settled_at = now() - INTERVAL 30 DAY;
INSERT INTO readings BY NAME
SELECT 'device' || (i % 200) AS device_id, now() - INTERVAL 30 DAY + to_seconds(i // 200) AS read_at,
       random() AS utilization, (random() * 1e10)::BIGINT AS memory_used_bytes, random() * 400 AS power_w
FROM range({READINGS}) t(i) ORDER BY read_at;
"""


def measure() -> list[Figure]:
    """Acknowledgements without and with retention at work, the work itself, and the file before and after."""
    with tempfile.TemporaryDirectory() as folder:
        kept, aged = Path(folder) / "kept", Path(folder) / "aged"
        kept.mkdir()
        fill(kept, RUNS)
        with connect(kept / "roofleet.duckdb") as connection:
            connection.execute(_AGED)
        shutil.copytree(kept, aged)
        before = _file(aged)
        with collector(kept, "--keep", "readings=forever") as running:
            quiet = _acknowledged(running, lambda seconds: seconds > QUIET_S)
        with collector(aged, "--keep", "readings=2h", "--keep", "spans=1d") as running:
            sizes = [before]

            def is_over(seconds: float) -> bool:
                """When the rows have gone and the file has not changed for three looks."""
                sizes.append(_file(aged))
                return seconds > MOST_S or (_left(running) == 0 and len(set(sizes[-LOOKS:])) == 1)

            began = time.monotonic()
            busy = _acknowledged(running, is_over)
            took = time.monotonic() - began
        after = sizes[-1]
    figures = []
    for name, times in (("all is kept", quiet), ("retention at work", busy)):
        figures += [
            Figure("retention", f"acknowledged, {name}, median", statistics.median(times), "ms"),
            Figure("retention", f"acknowledged, {name}, 99 %", statistics.quantiles(times, n=100)[98], "ms"),
            Figure("retention", f"acknowledged, {name}, longest", max(times), "ms"),
        ]
    return [
        *figures,
        Figure("retention", "all of it", took, "s"),
        Figure("retention", "file before", before, "MB"),
        Figure("retention", "file after", after, "MB"),
    ]


def _file(folder: Path) -> float:
    return (folder / "roofleet.duckdb").stat().st_size / 1e6


def _left(running: CollectorProcess) -> int:
    with dbapi.connect(f"grpc://{running.sql}", autocommit=True) as connection, connection.cursor() as cursor:
        cursor.execute(
            "SELECT (SELECT count(*) FROM readings WHERE read_at < now() - INTERVAL 3 HOUR) "
            "+ count(*) FROM spans WHERE run_id <> 'new'"
        )
        return int(cursor.fetch_arrow_table().column(0)[0].as_py())


def _acknowledged(running: CollectorProcess, is_over: Callable[[float], bool]) -> list[float]:
    """Times in ms from sending a batch to its acknowledgement, until it is over; that is asked now and then,
    with the seconds since it began."""
    times: list[float] = []
    began = looked = time.monotonic()
    with grpc.insecure_channel(running.grpc) as channel:
        todo: queue.SimpleQueue[Batch | None] = queue.SimpleQueue()
        acknowledgements = PUSH.client(channel)(iter(todo.get, None))
        for number in itertools.count(1):
            sent = time.perf_counter()
            todo.put(batch(spans(20, "new", 20 * number), number))
            next(acknowledgements)
            times.append((time.perf_counter() - sent) * 1e3)
            time.sleep(0.02)
            if time.monotonic() > looked + LOOK_S:
                looked = time.monotonic()
                if is_over(looked - began):
                    todo.put(None)
                    return times
    raise AssertionError("unreachable")


if __name__ == "__main__":
    for figure in measure():
        print(f"{figure.name}: {figure.value:.3g} {figure.unit}")
