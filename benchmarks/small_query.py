"""A small query through Flight SQL with the stock ADBC driver."""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path

import grpc
from adbc_driver_flightsql import dbapi
from tests.support import batch, collector, spans

from benchmarks.figure import Figure
from roofleet_proto.services import PUSH

QUERIES = 200


def measure() -> list[Figure]:
    """Median and 95th percentile of queries one after the other on one connection."""
    with tempfile.TemporaryDirectory() as folder, collector(Path(folder)) as running:
        with grpc.insecure_channel(running.grpc) as channel:
            list(PUSH.client(channel)(iter(batch(spans(4096), i) for i in range(1, 11))))
        times = []
        with dbapi.connect(f"grpc://{running.sql}", autocommit=True) as connection:
            for _ in range(QUERIES):
                begin = time.perf_counter()
                with connection.cursor() as cursor:
                    cursor.execute(
                        "SELECT path, count(*), avg(self_ns) FROM spans GROUP BY path ORDER BY path"
                    )
                    assert cursor.fetch_arrow_table().num_rows == 12
                times.append((time.perf_counter() - begin) * 1e3)
    return [
        Figure("small_query", "median", statistics.median(times), "ms", goal=15),
        Figure("small_query", "95th percentile", statistics.quantiles(times, n=20)[-1], "ms"),
    ]
