"""Rows acknowledged a second from four client processes, against a bare loop of DuckDB inserts."""

from __future__ import annotations

import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
from tests.support import collector, spans

from benchmarks.figure import Figure
from roofleet_collector.store.schema import create_table
from roofleet_proto.codec import encode_rows
from roofleet_proto.records import Batch
from roofleet_proto.tables import TABLES

CLIENTS = 4
BATCHES = 120
ROWS = 4096
ROUNDS = 3


def measure() -> list[Figure]:
    """The median of a few rounds of each, taken in turns."""
    loops, acknowledged = [], []
    for _ in range(ROUNDS):
        loops.append(_bare_loop())
        acknowledged.append(_through_the_collector())
    ratio = statistics.median(a / b for a, b in zip(acknowledged, loops, strict=True))
    return [
        Figure("ingest", "acknowledged / bare insert loop", ratio, goal=0.6, at_most=False),
        Figure(
            "ingest", f"acknowledged, {CLIENTS} clients", statistics.median(acknowledged) / 1e3, "k rows/s"
        ),
        Figure("ingest", "bare insert loop", statistics.median(loops) / 1e3, "k rows/s"),
    ]


def _bare_loop() -> float:
    """Rows a second of inserts of the same Arrow batches with a commit each."""
    with tempfile.TemporaryDirectory() as folder:
        connection = duckdb.connect(str(Path(folder) / "bare.duckdb"))
        connection.execute(create_table(TABLES["spans"]))
        batches = [spans(ROWS, f"run-{i % CLIENTS}", i * ROWS) for i in range(CLIENTS * BATCHES // 2)]
        begin = time.perf_counter()
        for rows in batches:
            connection.register("incoming", rows)
            connection.execute("BEGIN")
            connection.execute("INSERT INTO spans SELECT * FROM incoming")
            connection.execute("COMMIT")
            connection.unregister("incoming")
        seconds = time.perf_counter() - begin
        connection.close()
    return len(batches) * ROWS / seconds


def _through_the_collector() -> float:
    """Rows a second from the first send to the last acknowledgement, over real gRPC."""
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder, collector(Path(folder)) as running:
        ready, go = context.Barrier(CLIENTS + 1), context.Event()
        done: Any = context.Queue()
        clients = [
            context.Process(target=_client, args=(number, running.grpc, ready, go, done))
            for number in range(CLIENTS)
        ]
        for client in clients:
            client.start()
        ready.wait()
        begin = time.perf_counter()
        go.set()
        counts = [done.get() for _ in clients]
        seconds = time.perf_counter() - begin
        for client in clients:
            client.join()
    return sum(counts) * ROWS / seconds


def _client(number: int, address: str, ready: Any, go: Any, done: Any) -> None:
    import grpc

    from roofleet_proto.services import PUSH

    batches = [
        Batch(f"agent-{number}", 1, i + 1, "spans", encode_rows(spans(ROWS, f"run-{number}", i * ROWS)))
        for i in range(8)
    ]

    def messages() -> Iterator[Batch]:
        for i in range(BATCHES):
            again = batches[i % len(batches)]
            yield Batch(again.agent_id, 1, i + 1, again.table, again.arrow_ipc)

    with grpc.insecure_channel(address) as channel:
        grpc.channel_ready_future(channel).result(timeout=30)
        ready.wait()
        go.wait()
        acks = sum(1 for _ in PUSH.client(channel)(messages()))
    done.put(acks)
