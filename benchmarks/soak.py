"""`make soak`: agents and a collector for many minutes, with connections that break, calls that are cancelled
and both sides beginning anew; what they hold in memory in the end is what they held in the beginning.

`python -m benchmarks.soak 10` goes on for so many minutes.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import multiprocessing
import random
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import grpc
import psutil
from rich.console import Console
from rich.progress import Progress
from tests.network import Network
from tests.support import CollectorProcess, free_port, spans, start_collector

from benchmarks.figure import Figure
from roofleet.api.client import connect
from roofleet_agent.sending.attach import Attachment
from roofleet_agent.sending.spool import Spool
from roofleet_agent.sending.uplink import Uplink, open_channel
from roofleet_proto import services
from roofleet_proto.records import Hello

MINUTES = 10.0
AGENTS, ROWS = 30, 20
"""Agents, and the rows that each writes in a second."""
BEGINS_ANEW = 0.2
"""The part of the time after which the collector is ended and started again."""
SETTLED = 0.4
"""The part of the time from which on memory is looked at."""
GROWTH = 1.1
"""What the last third of what is looked at may hold of the first."""
SLOW = "SELECT count(*) FROM range(100000) a, range(100000) b WHERE a.range + b.range = -1"


def measure(minutes: float = MINUTES) -> list[Figure]:
    """How memory grew on both sides, and that every row is there once."""
    end = time.monotonic() + minutes * 60
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        addresses = [f"127.0.0.1:{free_port()}" for _ in range(2)]
        collector = start_collector(place / "data", *addresses)
        network = Network(addresses[0])
        stop, written = (
            multiprocessing.get_context("spawn").Event(),
            multiprocessing.get_context("spawn").Queue(),
        )
        agents = multiprocessing.get_context("spawn").Process(
            target=_agents, args=(str(place), network.address, stop, written)
        )
        agents.start()
        memory: dict[str, list[int]] = {"collector": [], "agents": []}
        try:
            collector = _disturb(collector, addresses, network, end, agents.pid, memory, minutes * 60)
            network.heal()
            stop.set()
            rows = written.get(timeout=300)
            stored, distinct = _stored(collector)
        finally:
            stop.set()
            agents.join(60)
            agents.kill()
            network.close()
            collector.terminate()
    if not rows == stored == distinct:
        raise AssertionError(f"{rows} rows written, {stored} stored, {distinct} distinct")
    figures = [Figure("soak", f"{minutes:g} min: rows written, stored and distinct", rows, "rows")]
    for who, taken in memory.items():
        third = len(taken) // 3
        first, last = statistics.median(taken[:third]), statistics.median(taken[-third:])
        figures += [
            Figure("soak", f"{minutes:g} min: {who}, resident memory in the end", last / 2**20, "MiB"),
            Figure(
                "soak", f"{minutes:g} min: {who}, the same over that before", last / first, "", goal=GROWTH
            ),
        ]
    return figures


def _disturb(
    collector: CollectorProcess,
    addresses: list[str],
    network: Network,
    end: float,
    agents: int | None,
    memory: dict[str, list[int]],
    seconds: float,
) -> CollectorProcess:
    """Breaks connections, cancels calls, ends the collector once, until the time is over; the one then."""
    chance = random.Random(7)
    begin, began_anew = end - seconds, False
    console = Console()
    with Progress(console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task("soak", total=seconds)
        for second in itertools.count():
            passed = time.monotonic() - begin
            if passed >= seconds:
                return collector
            progress.update(task, completed=passed)
            time.sleep(1)
            if second % 5 == 0:
                network.drop()
            if second % 30 == 29:
                network.stall()
                threading.Timer(3, network.heal).start()
            _cancel_push(addresses[0])
            if second % 3 == 0:
                _leave_query(addresses[1])
            if not began_anew and passed > BEGINS_ANEW * seconds:
                began_anew = True
                collector.kill() if chance.random() < 0.5 else collector.terminate()
                collector = start_collector(collector.data, *addresses)
            if passed > SETTLED * seconds:
                memory["collector"].append(psutil.Process(collector.process.pid).memory_info().rss)
                memory["agents"].append(psutil.Process(agents).memory_info().rss)
    raise AssertionError


def _cancel_push(address: str) -> None:
    """A stream that is cancelled after some rubbish."""
    with grpc.insecure_channel(address) as channel, contextlib.suppress(grpc.RpcError):
        call = channel.stream_stream(services.PUSH.path)(iter([b"rubbish"] * 3), timeout=5)
        call.cancel()


def _leave_query(address: str) -> None:
    """A query that runs for long and is not waited for."""
    with contextlib.suppress(Exception), connect(address) as connection:
        cursor = connection.cursor()
        timer = threading.Timer(0.3, cursor.adbc_cancel)
        timer.start()
        try:
            cursor.execute(SLOW)
        finally:
            timer.cancel()


def _stored(collector: CollectorProcess) -> tuple[int, int]:
    with connect(collector.sql) as connection:
        row = connection.sql(
            "SELECT count(*) AS n, count(DISTINCT (run_id, start_ns)) AS d FROM spans"
        ).to_pylist()[0]
    return row["n"], row["d"]


def _agents(folder: str, address: str, stop: Any, written: Any) -> None:
    """Agents in one process: each writes, and now and then one of them ends and begins again."""
    logging.disable()  # connections are broken all the time
    place = Path(folder)
    agents = [_Agent(place / f"agent-{number}.sqlite", address) for number in range(AGENTS)]
    turn = itertools.cycle(agents)
    rows = 0
    for second in itertools.count():
        if stop.wait(1):
            break
        for agent in agents:
            agent.spool.write("spans", spans(ROWS, agent.spool.path.stem, first=rows))
        rows += ROWS
        if second % 2 == 0:
            next(turn).begin_anew()
    give_up = time.monotonic() + 120
    while any(agent.spool.count() for agent in agents) and time.monotonic() < give_up:
        time.sleep(0.2)
    for agent in agents:
        agent.end()
    written.put(rows * AGENTS)


class _Agent:
    """One agent."""

    def __init__(self, path: Path, address: str) -> None:
        self._path, self._address = path, address
        self._begin()

    def _begin(self) -> None:
        self.spool = Spool(self._path)
        self._channel = open_channel(self._address)
        name = self._path.stem
        self._attachment = Attachment(Hello("", name, name, "1"), self.spool, self._channel)
        self._uplink = Uplink(self.spool, self._channel)
        self._threads = [
            threading.Thread(target=part.run, daemon=True) for part in (self._attachment, self._uplink)
        ]
        for thread in self._threads:
            thread.start()

    def end(self) -> None:
        """Ends it."""
        self._attachment.stop()
        self._uplink.stop()
        self._channel.close()
        for thread in self._threads:
            thread.join(30)
        self.spool.close()

    def begin_anew(self) -> None:
        """Ends it, and begins again with what it has."""
        self.end()
        self._begin()


if __name__ == "__main__":
    missed = False
    for figure in measure(float(sys.argv[1]) if len(sys.argv) > 1 else MINUTES):
        goal = "" if figure.kept is None else " kept" if figure.kept else " MISSED"
        missed |= figure.kept is False
        print(f"{figure.name}: {figure.value:.2f} {figure.unit}{goal}")
    sys.exit(missed)
