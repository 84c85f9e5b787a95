"""Two agents of one identity, since one machine is a copy of the other, lose nothing and are told apart."""

from __future__ import annotations

import asyncio
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest
from tests.support import eventually, spans

from roofleet_agent.sending.attach import Attachment
from roofleet_agent.sending.spool import Spool
from roofleet_agent.sending.uplink import Uplink, open_channel
from roofleet_collector import fleet
from roofleet_collector.fleet import Roster
from roofleet_collector.ingest import Ingest
from roofleet_collector.jobs.service import JobService
from roofleet_collector.server import Catalogs, GrpcServer
from roofleet_collector.store import DuckDBStore
from roofleet_proto.records import Heartbeat, Hello, Separation, Welcome


class Collector:
    """A collector in this process, whose agents send many heartbeats a second."""

    def __init__(self, folder: Path) -> None:
        self.store = DuckDBStore(folder)
        self.roster = Roster(self.store)
        self.address = ""
        self._ready, self._stop = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)
        self._thread.start()
        self._ready.wait(60)

    async def _serve(self) -> None:
        catalogs = Catalogs(lambda _: [], lambda _: [])
        async with JobService(self.store, 30.0) as jobs:
            server = GrpcServer(Ingest(self.store), self.roster, jobs, catalogs, 0, Path())
            await server.start("127.0.0.1", 0)
            self.address = f"127.0.0.1:{server.port}"
            self._ready.set()
            await asyncio.to_thread(self._stop.wait)
            await server.stop(1)

    def stored(self) -> list[int]:
        """The rows that are stored, by the number that each was given."""
        rows = self.store.query("SELECT start_ns FROM spans ORDER BY start_ns").read_all()
        return [int(row) for row in rows.column(0).to_pylist()]

    def close(self) -> None:
        """Ends it."""
        self._stop.set()
        self._thread.join(60)
        self.store.close()


@pytest.fixture
def collecting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    """A collector."""
    monkeypatch.setattr(fleet, "_WELCOME", Welcome("1", 20))
    monkeypatch.setattr(fleet, "HEARTBEAT_MS", 200)
    there = Collector(tmp_path / "data")
    yield there
    there.close()


def copy_of(spool: Spool, to: Path) -> Spool:
    """The spool on a copy of the machine, made while it ran: the process there has its epoch too."""
    spool.path.parent.mkdir(exist_ok=True)
    with spool._using() as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    to.parent.mkdir()
    shutil.copy(spool.path, to)
    copied = Spool(to)
    copied.epoch = spool.epoch
    return copied


def drain(spool: Spool, address: str) -> None:
    """Sends what it holds."""
    with open_channel(address) as channel:
        Uplink(spool, channel).drain(60)


@contextmanager
def attached(spool: Spool, address: str, host: str) -> Iterator[Attachment]:
    """Keeps an agent attached."""
    with open_channel(address) as channel:
        attachment = Attachment(Hello("", host, host, "1"), spool, channel)
        thread = threading.Thread(target=attachment.run, daemon=True)
        thread.start()
        try:
            yield attachment
        finally:
            attachment.stop()
            thread.join(60)


def test_rows_of_both_arrive_once(tmp_path: Path, collecting: Collector) -> None:
    """What waited when the copy was made is stored once, and what each wrote since then once too, though
    it has the same numbers; the one whose batches had other rows takes another identity."""
    first = Spool(tmp_path / "a" / "spool.sqlite")
    first.write("spans", spans(10, first=0))
    second = copy_of(first, tmp_path / "b" / "spool.sqlite")
    for number in range(1, 4):
        first.write("spans", spans(10, first=100 * number))
        second.write("spans", spans(10, first=100 * number + 50))
    drain(first, collecting.address)
    before = second.agent_id
    drain(second, collecting.address)
    starts = [0, *(100 * number + half for number in range(1, 4) for half in (0, 50))]
    assert collecting.stored() == [start + row for start in starts for row in range(10)]
    assert second.agent_id != before == first.agent_id
    again = Spool(second.path)
    assert again.agent_id == second.agent_id


def test_two_that_are_attached_are_told_apart(tmp_path: Path, collecting: Collector) -> None:
    """The later one takes an identity of its own, keeps it, and both stay attached."""
    first = Spool(tmp_path / "a" / "spool.sqlite")
    second = copy_of(first, tmp_path / "b" / "spool.sqlite")
    shared = first.agent_id
    with attached(first, collecting.address, "one"):
        eventually(lambda: len(collecting.roster.agents()) == 1)
        with attached(second, collecting.address, "two"):
            eventually(lambda: len(collecting.roster.agents()) == 2)
            by_name = {agent.hostname: agent.agent_id for agent in collecting.roster.agents()}
            assert by_name == {"one": shared, "two": second.agent_id}
            assert second.agent_id != shared
    assert Spool(second.path).agent_id == second.agent_id


def test_one_that_comes_back_is_not_taken_for_two(tmp_path: Path) -> None:
    """Nor if what it said on the connection before arrives late and all at once."""
    now = [0.0]
    store = DuckDBStore(tmp_path)
    roster = Roster(store, lambda: now[0])
    said: list[object] = []
    old = roster.join(Hello("a", "h", "name", "1"), said.append)
    now[0] = 60
    roster.join(Hello("a", "h", "name", "1"), said.append)
    now[0] = 90
    for _ in range(6):
        roster.heard(old, Heartbeat(0))
    roster.leave(old)
    assert not [message for message in said if isinstance(message, Separation)]
    assert len(roster.agents()) == 1
    store.close()


def test_what_a_given_up_identity_may_not_send_any_more_is_kept(tmp_path: Path) -> None:
    """A key that is bound to the new identity lets the rest through; the former's rows are set aside."""
    spool = Spool(tmp_path / "spool.sqlite")
    spool.write("spans", spans(10))
    spool.separate()
    spool.write("spans", spans(10))
    assert [batch.agent_id == spool.agent_id for batch in spool.pending()] == [False, True]

    class Refused(grpc.RpcError):
        """What a collector says to a key of another agent."""

        def code(self) -> grpc.StatusCode:
            """Its status."""
            return grpc.StatusCode.PERMISSION_DENIED

        def details(self) -> str:
            """Its words."""
            return "another agent's"

        def trailing_metadata(self) -> None:
            """Nothing."""

    with open_channel("127.0.0.1:1") as channel:
        Uplink(spool, channel)._after(Refused(), 32)
    assert [batch.agent_id for batch in spool.pending()] == [spool.agent_id]
    assert [(table, why) for _, table, why in spool.set_aside_reasons()] == [("spans", "another agent's")]
