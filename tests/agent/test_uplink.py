"""What the uplink sends first, and that it goes on whatever fails."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from concurrent import futures
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest
from tests.support import eventually, spans

from roofleet_agent.errors import SpoolUnusable
from roofleet_agent.sending import pauses
from roofleet_agent.sending.kept import Kept
from roofleet_agent.sending.pauses import FIRST_S, LONGEST_S, Pauses
from roofleet_agent.sending.spool import Spool
from roofleet_agent.sending.uplink import WINDOW, Uplink, open_channel
from roofleet_proto.records import Ack
from roofleet_proto.services import PACKAGE, PUSH


class Taker:
    """A collector that takes every batch and acknowledges it when it may."""

    def __init__(self) -> None:
        self.taken: list[int] = []
        self.may_acknowledge = threading.Event()

    def push(self, requests: Iterable[bytes], context: object) -> Iterator[bytes]:
        """Ingest.Push."""
        acks: list[Ack] = []
        for data in requests:
            batch = PUSH.decode_request(data)
            self.taken.append(batch.sequence)
            acks.append(Ack(batch.agent_id, batch.epoch, batch.sequence))
            if self.may_acknowledge.is_set() or len(acks) == WINDOW:
                self.may_acknowledge.wait()
                yield from map(PUSH.encode_reply, acks)
                acks.clear()

    @contextmanager
    def serving(self) -> Iterator[str]:
        """Its address while it serves."""
        server = grpc.server(futures.ThreadPoolExecutor(4))
        handler = grpc.stream_stream_rpc_method_handler(self.push)
        server.add_generic_rpc_handlers(
            [grpc.method_handlers_generic_handler(f"{PACKAGE}.{PUSH.service}", {PUSH.name: handler})]
        )
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        try:
            yield f"127.0.0.1:{port}"
        finally:
            self.may_acknowledge.set()
            server.stop(0).wait()


@contextmanager
def sending(spool: Spool, address: str) -> Iterator[None]:
    """An uplink that runs."""
    channel = open_channel(address)
    uplink = Uplink(spool, channel)
    thread = threading.Thread(target=uplink.run, daemon=True)
    thread.start()
    try:
        yield
    finally:
        uplink.stop()
        thread.join(60)
        channel.close()


def test_what_comes_in_goes_first_and_the_backlog_twice_as_fast(tmp_path: Path) -> None:
    """Rows written while a backlog drains do not wait for its end, and do not keep it from draining."""
    spool, taker = Spool(tmp_path / "spool.sqlite"), Taker()
    for number in range(150):
        spool.write("spans", spans(1, first=number))
    last_of_backlog = spool.last_sequence()
    with taker.serving() as address, sending(spool, address):
        eventually(lambda: len(taker.taken) == WINDOW)
        for number in range(30):
            spool.write("spans", spans(1, first=1000 + number))
        taker.may_acknowledge.set()
        eventually(lambda: spool.count() == 0)
    assert sorted(taker.taken) == list(range(1, 181))
    live = [place for place, sequence in enumerate(taker.taken) if sequence > last_of_backlog]
    assert live[-1] < len(taker.taken) - 30, "rows that came in waited for the backlog"
    meanwhile = live[-1] - live[0] + 1 - len(live)
    assert meanwhile >= 2 * (len(live) - 8), "the backlog waited for the rows that came in"


class FullDisk(Spool):
    """A spool on a disk that is full when the first acknowledgements come."""

    failures = 3

    def acknowledge(self, sequences: Iterable[int], *, stored: bool = True) -> None:
        """Fails three times."""
        if self.failures:
            self.failures -= 1
            raise SpoolUnusable("database or disk is full")
        super().acknowledge(sequences, stored=stored)


def test_a_spool_that_fails_while_it_is_acknowledged_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is lost and the uplink does not fall silent."""
    monkeypatch.setattr(pauses, "FIRST_S", 0.01)
    spool, taker = FullDisk(tmp_path / "spool.sqlite"), Taker()
    taker.may_acknowledge.set()
    for number in range(5):
        spool.write("spans", spans(1, first=number))
    with taker.serving() as address, sending(spool, address):
        eventually(lambda: spool.count() == 0)
    assert set(taker.taken) == set(range(1, 6))


def test_work_that_ends_by_an_error_is_begun_again_until_it_returns(monkeypatch: pytest.MonkeyPatch) -> None:
    """An agent that goes silent and looks healthy is worse than one that is gone."""
    monkeypatch.setattr(pauses, "FIRST_S", 0.01)
    begun: list[int] = []

    def work() -> None:
        begun.append(len(begun))
        if len(begun) < 4:
            raise RuntimeError("not yet")

    kept = Kept("roofleet-test", work)
    kept.start()

    def done() -> bool:
        kept.start_again_if_ended()
        return len(begun) == 4

    eventually(done)
    kept.join(10)
    kept.start_again_if_ended()
    assert len(begun) == 4


def test_pauses_grow_and_no_two_senders_pause_alike() -> None:
    """A fleet that lost its collector comes back spread out, and soon."""
    first = {Pauses().next_s() for _ in range(100)}
    assert len(first) == 100
    assert FIRST_S / 2 <= min(first) < max(first) <= FIRST_S * 1.5
    long = Pauses()
    assert max(long.next_s() for _ in range(50)) <= LONGEST_S * 1.5
