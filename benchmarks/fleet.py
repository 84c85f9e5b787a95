"""Many agents at once: each a gRPC stream of its own that sends 20 rows a second, and now and then readings.

`python -m benchmarks.fleet 500 60` has so many agents for so many seconds; `make bench` a smaller fleet for
less. What was sent, acknowledged, stored and distinct must be the same number, or it fails.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
from tests.support import CollectorProcess, collector

from benchmarks.figure import Figure
from roofleet.api.client import connect
from roofleet_proto.codec import encode_rows
from roofleet_proto.records import Batch
from roofleet_proto.tables import TABLES

AGENTS, SECONDS = 500, 20
PROCESSES = 2
ROWS, READINGS_EVERY = 20, 10
"""Rows a second, and the seconds whose readings go out as one batch."""
SMALL = "SELECT hostname, last_seen_at FROM hosts LIMIT 10"


def measure(agents: int = AGENTS, seconds: int = SECONDS) -> list[Figure]:
    """Batches a second, what the collector holds meanwhile, and how long a small question takes."""
    with tempfile.TemporaryDirectory() as folder, collector(Path(folder)) as running:
        watch = _Watch(running)
        watch.start()
        sent, acknowledged, late_s = _send(running.grpc, agents, seconds)
        watch.stop()
        stored, distinct = _stored(running)
    name = f"{agents} agents"
    if not sent == acknowledged == stored == distinct:
        raise AssertionError(
            f"{name}: {sent} rows sent, {acknowledged} acknowledged, {stored} stored, {distinct} distinct"
        )
    return [
        Figure("fleet", f"{name}: last acknowledgement after the last second", late_s, "s", goal=2.0),
        Figure("fleet", f"{name}: rows a second", sent / seconds, "rows/s"),
        Figure("fleet", f"{name}: resident memory", watch.peak_bytes / 2**20, "MiB", goal=1024),
        Figure("fleet", f"{name}: small query, median", watch.median_ms, "ms", goal=100),
        Figure("fleet", f"{name}: processor time", watch.busy_s / seconds, "cores"),
    ]


class _Watch(threading.Thread):
    """Asks the collector small questions, and looks at what it takes of the machine."""

    def __init__(self, running: CollectorProcess) -> None:
        super().__init__(daemon=True)
        self._running, self._over = running, threading.Event()
        self._process = psutil.Process(running.process.pid)
        self._times_ms: list[float] = []
        self.peak_bytes, self.busy_s = 0, 0.0

    @property
    def median_ms(self) -> float:
        """Of the questions asked so far."""
        return statistics.median(self._times_ms)

    def run(self) -> None:
        """See threading.Thread.run."""
        before = self._process.cpu_times()
        with connect(self._running.sql) as connection:
            while not self._over.wait(0.2):
                begin = time.perf_counter()
                connection.sql(SMALL)
                self._times_ms.append((time.perf_counter() - begin) * 1e3)
                self.peak_bytes = max(self.peak_bytes, self._process.memory_info().rss)
        after = self._process.cpu_times()
        self.busy_s = after.user + after.system - before.user - before.system

    def stop(self) -> None:
        """Ends it."""
        self._over.set()
        self.join()


def _stored(running: CollectorProcess) -> tuple[int, int]:
    with connect(running.sql) as connection:
        row = connection.sql(
            "SELECT count(*) AS n, count(DISTINCT (run_id, start_ns)) AS d FROM spans "
            "UNION ALL SELECT count(*), count(DISTINCT (device_id, read_at)) FROM readings"
        ).to_pylist()
    return sum(r["n"] for r in row), sum(r["d"] for r in row)


def _send(address: str, agents: int, seconds: int) -> tuple[int, int, float]:
    """Rows sent and acknowledged, and how long after the last second that was."""
    context = multiprocessing.get_context("spawn")
    ready: Any = context.Barrier(PROCESSES + 1)
    done: Any = context.Queue()
    parts = [range(first, agents, PROCESSES) for first in range(PROCESSES)]
    senders = [context.Process(target=_sender, args=(address, part, seconds, ready, done)) for part in parts]
    for sender in senders:
        sender.start()
    ready.wait()
    begin = time.monotonic()
    counts = [done.get(timeout=seconds + 120) for _ in senders]
    took = time.monotonic() - begin
    for sender in senders:
        sender.join()
    return sum(sent for sent, _ in counts), sum(acked for _, acked in counts), took - seconds


def _sender(address: str, agents: range, seconds: int, ready: Any, done: Any) -> None:
    done.put(asyncio.run(_agents(address, agents, seconds, ready)))


async def _agents(address: str, agents: range, seconds: int, ready: Any) -> tuple[int, int]:
    import grpc.aio

    options = [("grpc.use_local_subchannel_pool", 1)]  # a connection each
    channels = [grpc.aio.insecure_channel(address, options=options) for _ in agents]
    for channel in channels:
        await channel.channel_ready()
    await asyncio.to_thread(ready.wait)
    counts = await asyncio.gather(
        *(_agent(channel, number, seconds) for channel, number in zip(channels, agents, strict=True))
    )
    for channel in channels:
        await channel.close()
    return sum(sent for sent, _ in counts), sum(acked for _, acked in counts)


async def _agent(channel: Any, number: int, seconds: int) -> tuple[int, int]:
    """One agent: what is not acknowledged when a stream ends, it sends on the next one."""
    import grpc

    from roofleet_proto.services import PUSH, RETRY_AFTER_MS

    waiting: dict[int, Batch] = {}
    rows: dict[int, int] = {}
    sent = acked = 0
    begin, second = time.monotonic(), 0

    async def batches() -> AsyncIterator[Batch]:
        nonlocal sent, second
        for batch in list(waiting.values()):
            yield batch
        offset = (number % 100) / 100  # agents are not in step
        while second < seconds:
            await asyncio.sleep(max(0.0, begin + second + offset - time.monotonic()))
            parts = [("spans", _spans(number, second))]
            if second % READINGS_EVERY == READINGS_EVERY - 1:
                parts.append(("readings", _readings(number, second)))
            second += 1
            for table, part in parts:
                sequence = len(rows) + 1
                rows[sequence] = part.num_rows
                sent += part.num_rows
                waiting[sequence] = Batch(f"agent-{number}", 1, sequence, table, encode_rows(part))
            for sequence in range(len(rows) + 1 - len(parts), len(rows) + 1):
                yield waiting[sequence]

    while second < seconds or waiting:
        try:
            async for ack in PUSH.client(channel)(batches()):
                if waiting.pop(ack.sequence, None) is not None:
                    acked += rows[ack.sequence]
        except grpc.aio.AioRpcError as error:
            told = dict(error.trailing_metadata() or ()).get(RETRY_AFTER_MS, 1000)
            await asyncio.sleep(float(told) / 1000)
    return sent, acked


def _spans(agent: int, second: int) -> pa.Table:
    columns: dict[str, Any] = {
        "run_id": [f"run-{agent}"] * ROWS,
        "phase": ["decode"] * ROWS,
        "iteration": [0] * ROWS,
        "step_index": [second] * ROWS,
        "path": [f"h.{row}" for row in range(ROWS)],
        "start_ns": range(second * ROWS, (second + 1) * ROWS),
        "duration_ns": [1000] * ROWS,
        "self_ns": [500] * ROWS,
        "inner_calls": [0] * ROWS,
    }
    schema = TABLES["spans"].schema
    return pa.table([pa.array(columns[field.name], field.type) for field in schema], schema=schema)


def _readings(agent: int, second: int) -> pa.Table:
    rows = [
        {
            "device_id": f"device-{agent}",
            "read_at": datetime.fromtimestamp(1_800_000_000 + second - past, UTC),
            "utilization": 0.5,
            "power_w": 100.0,
        }
        for past in range(READINGS_EVERY)
    ]
    return pa.Table.from_pylist(rows, schema=TABLES["readings"].schema)


if __name__ == "__main__":
    for figure in measure(*map(int, sys.argv[1:3])):
        goal = "" if figure.kept is None else " kept" if figure.kept else " MISSED"
        print(f"{figure.name}: {figure.value:.1f} {figure.unit}{goal}")
