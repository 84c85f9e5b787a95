"""Streams of batches against a store that is slow, busy or full: bounded, in order, and told what to do."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tests.support import batch, spans

from roofleet_agent.sending.spool import Spool
from roofleet_agent.sending.uplink import Uplink
from roofleet_collector import fleet, pushing
from roofleet_collector.errors import RowsRefused
from roofleet_collector.fleet import Roster
from roofleet_collector.ingest import Ingest
from roofleet_collector.jobs.service import JobService
from roofleet_collector.limits import USUAL, Senders
from roofleet_collector.server import Catalogs, GrpcServer
from roofleet_collector.service import Health, trouble
from roofleet_collector.store import Append, Receipt, Seen
from roofleet_proto import services
from roofleet_proto.codec import encode_batch
from roofleet_proto.records import Ack, Batch, Hello


class HeldStore:
    """A store that commits nothing until it is let, and then in order; it refuses rows of the run
    `refused`."""

    def __init__(self) -> None:
        self.held: list[tuple[Append, Future[Receipt]]] = []
        self.full = False
        self.seen: dict[str, Seen] = {}

    def append(self, rows: Append) -> Future[Receipt]:
        """See Store.append."""
        future: Future[Receipt] = Future()
        self.held.append((rows, future))
        return future

    def let(self) -> None:
        """Commits what is held."""
        held, self.held = self.held, []
        for rows, future in held:
            if rows.rows["spans"].column("run_id")[0].as_py() == "refused":
                future.set_exception(RowsRefused("these never"))
            else:
                future.set_result(Receipt(False))

    def touch_hosts(self, seen: dict[str, Seen]) -> Future[None]:
        """See Store.touch_hosts."""
        if not self.full:
            self.seen |= seen
        return self.probe()

    def probe(self) -> Future[None]:
        """See Store.probe."""
        future: Future[None] = Future()
        if self.full:
            future.set_exception(OSError("No space left on device"))
        else:
            future.set_result(None)
        return future


@pytest.fixture
def store() -> HeldStore:
    """A store that holds back."""
    return HeldStore()


def serving(
    store: HeldStore,
    scene: Callable[[GrpcServer, str], Awaitable[None]],
    folder: Path = Path(),
    senders: Senders = USUAL.senders,
) -> None:
    """Plays a scene with a server over that store, and its address."""

    async def play() -> None:
        catalogs = Catalogs(lambda _: [], lambda _: [])
        jobs = JobService(store, 30.0)  # type: ignore[arg-type]
        server = GrpcServer(Ingest(store), Roster(store), jobs, catalogs, 0, folder, senders=senders)  # type: ignore[arg-type]
        await server.start("127.0.0.1", 0)
        try:
            await asyncio.wait_for(scene(server, f"127.0.0.1:{server.port}"), 60)
        finally:
            store.let()
            await server.stop(0)

    asyncio.run(play())


async def until(condition: Callable[[], bool]) -> None:
    """Waits until a condition holds."""
    while not condition():
        await asyncio.sleep(0.01)


def test_what_waits_is_bounded_in_bytes_over_all_streams(
    store: HeldStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sixteen streams send twenty messages each; what is not committed stays within the room of all, and
    each stream's within its own. Nothing is refused: the others wait, and all of it arrives in order."""
    message = encode_batch(batch(spans(100, "run-15"), 1, agent="agent-15"))
    senders = Senders(all_bytes=20 * len(message), stream_bytes=3 * len(message))
    monkeypatch.setattr(pushing, "PATIENCE_S", 60.0)

    async def scene(server: GrpcServer, address: str) -> None:
        async def one(agent: int) -> list[int]:
            async def messages() -> AsyncIterator[Batch]:
                for number in range(1, 21):
                    yield batch(spans(100, f"run-{agent}"), number, agent=f"agent-{agent}")

            async with grpc.aio.insecure_channel(address) as channel:
                return [ack.sequence async for ack in services.PUSH.client(channel)(messages())]

        streams = [asyncio.create_task(one(agent)) for agent in range(16)]
        most = before = 0
        while not all(stream.done() for stream in streams):
            await asyncio.sleep(0.01)
            by_agent = [rows.key[0] for rows, _ in store.held if rows.key]
            most = max(most, len(by_agent))
            assert len(by_agent) <= 20
            assert max(map(by_agent.count, by_agent), default=0) <= 3
            if len(by_agent) == before:  # no more comes in
                store.let()
            before = len(by_agent)
        assert most >= 19
        assert [await stream for stream in streams] == [list(range(1, 21))] * 16

    serving(store, scene, senders=senders)


def test_a_batch_that_finds_no_room_is_told_when_to_come_back(
    store: HeldStore, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """RESOURCE_EXHAUSTED with a time; the agent waits, sets nothing aside, and sends it again when there is
    room."""
    monkeypatch.setattr(pushing, "PATIENCE_S", 0.05)
    monkeypatch.setattr("roofleet_collector.server.RETRY_AFTER_MS", 700)
    monkeypatch.setattr("roofleet_agent.sending.uplink.Pauses.next_s", lambda _: 0.1)  # the agent's own

    async def scene(server: GrpcServer, address: str) -> None:
        async def one(number: int) -> AsyncIterator[Batch]:
            yield batch(spans(1), number)

        async with grpc.aio.insecure_channel(address) as channel:
            push = services.PUSH.client(channel)
            first = asyncio.create_task(_all(push(one(1))))
            await until(lambda: len(store.held) == 1)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await _all(push(one(2)))
            assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
            assert dict(caught.value.trailing_metadata() or ())[services.RETRY_AFTER_MS] == "700"

            spool = Spool(tmp_path / "spool.sqlite")
            spool.write("spans", spans(1))
            with grpc.insecure_channel(address) as plain:
                refused = asyncio.Event()
                uplink = Uplink(spool, plain)
                waits = monkeypatch_wait(uplink, refused, asyncio.get_running_loop())
                sending = asyncio.create_task(asyncio.to_thread(uplink.run))
                await refused.wait()
                assert spool.set_aside_reasons() == []
                store.let()
                await first
                while spool.count():
                    store.let()
                    await asyncio.sleep(0.01)
                uplink.stop()
                await sending
            assert 0.7 in waits

    def monkeypatch_wait(uplink: Uplink, refused: asyncio.Event, loop: Any) -> list[float]:
        waits: list[float] = []
        wait = uplink._stopping.wait

        def noted(timeout: float | None = None) -> bool:
            waits.append(timeout or 0.0)
            loop.call_soon_threadsafe(refused.set)
            return wait(timeout)

        monkeypatch.setattr(uplink._stopping, "wait", noted)
        return waits

    serving(store, scene, senders=Senders(all_bytes=1))


def test_rows_that_the_store_cannot_take_are_named(store: HeldStore) -> None:
    """What came before is acknowledged, and the batch at fault is said so that it is set aside and not sent
    again."""

    async def scene(server: GrpcServer, address: str) -> None:
        async def messages() -> AsyncIterator[Batch]:
            yield batch(spans(1), 1)
            yield batch(spans(1, "refused"), 2)

        acks: list[Ack] = []
        async with grpc.aio.insecure_channel(address) as channel:
            call = services.PUSH.client(channel)(messages())
            letting = asyncio.create_task(until(lambda: len(store.held) == 2))
            letting.add_done_callback(lambda _: store.let())
            acks.append(await call.read())
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call.read()
        assert [ack.sequence for ack in acks] == [1]
        assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
        assert dict(caught.value.trailing_metadata() or ())[services.REJECTED_SEQUENCE] == "2"

    serving(store, scene)


def test_a_full_disk_is_said_by_health_and_ends_nothing(
    store: HeldStore, caplog: pytest.LogCaptureFixture
) -> None:
    """A heartbeat that cannot be written is kept; NOT_SERVING while it is so, SERVING after, one line for
    each."""

    async def scene(server: GrpcServer, address: str) -> None:
        roster = Roster(store)  # type: ignore[arg-type]
        health = Health(server.can_store)
        async with grpc.aio.insecure_channel(address) as channel:

            async def status() -> Any:
                asked = health_pb2.HealthCheckRequest(service="roofleet.v1.Ingest")
                return (await health_pb2_grpc.HealthStub(channel).Check(asked)).status

            roster.join(Hello("a", "h", "name", "1"), lambda _: None)
            store.full = True
            for _ in range(3):
                await health.say(trouble(store, roster))  # type: ignore[arg-type]
                assert await status() == health_pb2.HealthCheckResponse.NOT_SERVING
            assert (list(store.seen), len(caplog.records)) == ([], 1)
            store.full = False
            await health.say(trouble(store, roster))  # type: ignore[arg-type]
            assert await status() == health_pb2.HealthCheckResponse.SERVING
            assert list(store.seen) == ["h"]

    serving(store, scene)


YEAR_S, MOST_S = 365 * 86_400, fleet.MOST_AHEAD_US / 1e6


@pytest.mark.parametrize(
    ("ahead_s", "told_s"),
    [(3600, 3600), (-3600, -3600), (0, 0), (-YEAR_S, -MOST_S), (10**12, MOST_S)],
)
def test_the_clock_of_a_host_is_measured(store: HeldStore, ahead_s: int, told_s: float) -> None:
    """By what an agent says its time is when it says hello; what is more than can be stored is the most."""
    roster = Roster(store)  # type: ignore[arg-type]
    roster.join(Hello("a", "h", "name", "1", time.time_ns() // 1000 + ahead_s * 1_000_000), lambda _: None)
    roster.flush()
    offset = store.seen["h"].clock_offset_ns
    assert offset is not None
    assert abs(offset / 1e9 - told_s) < 60


async def _all(call: Any) -> list[Ack]:
    return [ack async for ack in call]
