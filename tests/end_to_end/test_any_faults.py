"""Whatever fails, in whatever order: no acknowledged row is lost, none stored twice, losses are counted."""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import tempfile
import threading
from dataclasses import dataclass, field
from pathlib import Path

import duckdb
import psutil
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)
from tests.network import Network
from tests.processes import end
from tests.support import CollectorProcess, eventually, free_port, spans, start_collector

from roofleet_agent.errors import SpoolUnusable
from roofleet_agent.sending import uplink as uplinks
from roofleet_agent.sending.dropping import UNLIMITED, Limits
from roofleet_agent.sending.spool import Spool
from roofleet_agent.sending.uplink import Uplink, open_channel
from roofleet_collector.keys.authority import Authority
from roofleet_collector.store.duckdb_store import FILE_NAME
from roofleet_proto.door import Door
from roofleet_proto.services import BACKUP

EXAMPLES, STEPS = int(os.environ.get("ROOFLEET_EXAMPLES", 3)), 25
"""`make soak` tries more."""
ROWS = 20
HOUR_NS = 3600 * 10**9
ENDED = -1 / 1440
"""A minute ago, in days."""
SMALL = Limits(size_bytes=40_000)
"""Room for about ten batches."""


@dataclass
class Agent:
    """An agent, whose rows are numbered, and what has to become of each."""

    path: Path
    limits: Limits
    address: str
    door: Door
    written: list[int] = field(default_factory=list)
    sequences: dict[int, list[int]] = field(default_factory=dict)
    """The rows of each batch."""
    spool: Spool = field(init=False)

    def __post_init__(self) -> None:
        self.start()

    @property
    def run_id(self) -> str:
        """The run that its rows are of."""
        return self.path.stem

    def start(self, clock_ns: int = 0) -> None:
        """Opens the spool, by a clock that is wrong by so much, and sends."""
        self.spool = Spool(self.path, self.limits)
        self.spool.epoch += clock_ns
        self._channel = open_channel(self.address, self.door)
        self._uplink = Uplink(self.spool, self._channel)
        self._thread = threading.Thread(target=self._uplink.run, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Ends in the midst of what it does."""
        self._uplink.stop()
        self._channel.close()
        self._thread.join(60)
        assert not self._thread.is_alive()
        self.spool.close()

    def write(self) -> None:
        """Keeps rows; a disk that takes none is told, and they are not among those that were written."""
        rows = [len(self.written) + number for number in range(ROWS)]
        try:
            self.spool.write("spans", spans(ROWS, self.run_id, first=rows[0]))
        except SpoolUnusable:
            return
        self.written += rows
        self.sequences[self.spool.last_sequence() or max(self.sequences, default=0) + 1] = rows

    def is_done(self) -> bool:
        """Whether all has arrived that it can tell, losses included."""
        if self.spool.count():
            return False
        self.spool.report_dropped()
        return not self.spool.count()

    def fill_disk(self) -> None:
        """Its disk takes nothing more."""
        with self.spool._using() as db:
            db.execute("PRAGMA max_page_count = 1")

    def free_disk(self) -> None:
        """There is room again."""
        with self.spool._using() as db:
            db.execute("PRAGMA max_page_count = 1000000")


class Faults(RuleBasedStateMachine):
    """Two agents, one of which drops what is over its limit, a network, and a collector behind TLS."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.authority = Authority.make(self.folder / "certs", "authority", 30)
        self.cert, self.key = self.authority.issue("collector", [], 30)
        self.ports = [f"127.0.0.1:{free_port()}" for _ in range(2)]
        self.collector: CollectorProcess | None = None
        self.start_collector()
        self.network = Network(self.ports[0])
        self.door = Door(tls_ca=self.folder / "certs" / "ca.pem")
        self.agents = [
            Agent(self.folder / f"{name}.sqlite", limits, self.network.address, self.door)
            for name, limits in (("roomy", UNLIMITED), ("small", SMALL))
        ]
        self.copies: list[Path] = []
        self.may_miss: set[tuple[str, int]] = set()
        self.restored = False

    # -- what happens

    @initialize()
    def begin(self) -> None:
        """There are rows."""
        for agent in self.agents:
            agent.write()

    @rule(which=st.integers(0, 1), batches=st.integers(1, 8))
    def write(self, which: int, batches: int) -> None:
        """An agent measures."""
        for _ in range(batches):
            self.agents[which].write()

    @rule(which=st.integers(0, 1), clock=st.sampled_from([-HOUR_NS, 0, HOUR_NS]))
    def restart_agent(self, which: int, clock: int) -> None:
        """An agent ends and begins again, with a clock that may be wrong."""
        self.agents[which].stop()
        self.agents[which].start(clock)

    @rule(which=st.integers(0, 1), full=st.booleans())
    def agents_disk(self, which: int, full: bool) -> None:
        """The disk of an agent is full, or is not."""
        self.agents[which].fill_disk() if full else self.agents[which].free_disk()

    @rule()
    def arrive(self) -> None:
        """There is time for something to arrive, where it can."""
        waiting = self.agents[0].spool.count()
        with contextlib.suppress(AssertionError):
            eventually(lambda: not waiting or self.agents[0].spool.count() < waiting, timeout_s=1)

    @rule(kind=st.sampled_from(["cut", "stall", "forget", "drop", "heal", "heal"]))
    def on_the_way(self, kind: str) -> None:
        """Something happens to the network."""
        getattr(self.network, kind)()

    @precondition(lambda self: self.collector is not None)
    @rule()
    def kill_collector(self) -> None:
        """The collector is killed."""
        assert self.collector is not None
        self.collector.kill()
        end(self.collector.process)
        self.collector = None

    @precondition(lambda self: self.collector is None)
    @rule()
    def start_collector(self) -> None:
        """It is there again."""
        shows = ("--tls-cert", str(self.cert), "--tls-key", str(self.key))
        self.collector = start_collector(self.folder / "data", *self.ports, *shows)

    @precondition(lambda self: self.collector is not None)
    @rule(full=st.booleans())
    def collectors_disk(self, full: bool) -> None:
        """Its disk takes nothing more, or does again."""
        assert self.collector is not None
        most = 4096 if full else resource.RLIM_INFINITY
        psutil.Process(self.collector.process.pid).rlimit(psutil.RLIMIT_FSIZE, (most, resource.RLIM_INFINITY))

    @rule(expired=st.booleans())
    def certificate(self, expired: bool) -> None:
        """The collector's certificate is replaced, by one that has ended or one that has not."""
        self.authority.rotate("collector", ENDED if expired else 30)
        self.network.drop()

    @precondition(lambda self: self.collector is not None)
    @rule()
    def back_up(self) -> None:
        """A copy of what is stored is made, if there is room for one."""
        assert self.collector is not None
        self.collectors_disk(full=False)
        self.certificate(expired=False)
        with open_channel(self.collector.grpc, self.door) as channel:
            copied = BACKUP.client(channel)(None, timeout=60)
        self.copies.append(Path(copied.path))

    @precondition(lambda self: self.copies)
    @rule(data=st.data())
    def restore(self, data: st.DataObject) -> None:
        """An older copy takes the place of what is stored: what agents no longer hold is gone with it."""
        if self.collector is not None:
            self.collector.kill()
            end(self.collector.process)
            self.collector = None
        copy = data.draw(st.sampled_from(self.copies))
        with duckdb.connect(str(copy), read_only=True) as connection:
            there = set(connection.execute("SELECT run_id, start_ns FROM spans").fetchall())
        for agent in self.agents:
            agent.stop()  # so that no acknowledgement is on its way
            agent.start()  # there is no collector
            held = {batch.sequence for batch in agent.spool.pending(limit=10_000)}
            for sequence, rows in agent.sequences.items():
                if sequence not in held:
                    self.may_miss |= {(agent.run_id, row) for row in rows} - there
        place = self.folder / "data" / FILE_NAME
        place.with_name(f"{FILE_NAME}.wal").unlink(missing_ok=True)
        shutil.copy(copy, place)
        self.restored = True

    # -- what has to be true

    def teardown(self) -> None:
        """When all is well again, everything that agents hold arrives, once."""
        try:
            self.check()
        finally:
            for agent in self.agents:
                agent.stop()
            self.network.close()
            if self.collector is not None:
                end(self.collector.process)
            shutil.rmtree(self.folder)

    def check(self) -> None:
        """Heals what can be healed, waits, and compares."""
        if self.collector is None:
            self.start_collector()
        self.collectors_disk(full=False)
        self.certificate(expired=False)
        self.network.heal()
        for agent in self.agents:
            agent.free_disk()
        eventually(lambda: all(agent.is_done() for agent in self.agents))
        assert self.collector is not None
        assert self.collector.terminate() == 0
        end(self.collector.process)
        self.collector = None
        with duckdb.connect(str(self.folder / "data" / FILE_NAME), read_only=True) as connection:
            stored = connection.execute("SELECT run_id, start_ns FROM spans").fetchall()
            told = dict(connection.execute("SELECT agent_id, sum(rows) FROM losses GROUP BY ALL").fetchall())
        assert len(stored) == len(set(stored)), "a row was stored twice"
        for agent in self.agents:
            assert not agent.spool.set_aside_reasons()
            there = {row for run_id, row in stored if run_id == agent.run_id}
            assert there <= set(agent.written), "a row was stored that nobody was told is kept"
            missing = {(agent.run_id, row) for row in set(agent.written) - there} - self.may_miss
            if agent.limits is UNLIMITED:
                assert not missing, "a row was lost"
            elif not self.restored:  # what was told of losses may be gone with it
                assert len(missing) == told.get(agent.spool.agent_id, 0), "a loss was not told"


def test_rows_arrive_once_whatever_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """Agents and collector that end, clocks, disks, networks, certificates, older copies, in any order."""
    quick = {
        "grpc.keepalive_time_ms": 500,
        "grpc.keepalive_timeout_ms": 500,
        "grpc.initial_reconnect_backoff_ms": 100,
        "grpc.max_reconnect_backoff_ms": 200,
    }
    options = [(name, quick.get(name, value)) for name, value in uplinks.CHANNEL_OPTIONS]
    monkeypatch.setattr(uplinks, "CHANNEL_OPTIONS", options)
    run_state_machine_as_test(
        Faults,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=STEPS,
            phases=[Phase.generate],  # making a failure smaller would take many minutes
            deadline=None,
            suppress_health_check=list(HealthCheck),
            database=None,
        ),
    )
