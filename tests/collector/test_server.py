"""The gRPC server over the wire: what it takes, what it refuses, and that others go on unharmed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tests.support import CollectorProcess, batch, collector, eventually, spans

from roofleet.api.client import connect
from roofleet_agent.rows import table_of
from roofleet_proto import codec, services
from roofleet_proto.records import Ack, Batch, Filter, Heartbeat, Hello, JobsAsked, Welcome

RAW = services.PUSH.path


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CollectorProcess]:
    """One collector for all tests of this file; each uses agents of its own."""
    with collector(tmp_path_factory.mktemp("collector")) as process:
        yield process


@pytest.fixture
def channel(running: CollectorProcess) -> Iterator[Any]:
    """A channel to it without a limit on what may be sent."""
    options = [("grpc.max_send_message_length", -1)]
    with grpc.insecure_channel(running.grpc, options=options) as opened:
        yield opened


def push(channel: Any, messages: list[bytes]) -> tuple[list[Ack], Any]:
    """Sends raw messages on one stream; the acknowledgements, and the error that ended it if one did."""
    call = channel.stream_stream(RAW, response_deserializer=codec.decode_ack)(iter(messages), timeout=120)
    acks = []
    try:
        for ack in call:
            acks.append(ack)
    except grpc.RpcError as error:
        return acks, error
    return acks, None


def stored(running: CollectorProcess, run_id: str) -> int:
    """How many spans of a run are stored."""
    with connect(running.sql) as connection:
        rows = connection.sql("SELECT count(*) FROM spans WHERE run_id = ?", (run_id,))
    return int(rows.column(0)[0].as_py())


def good(run_id: str, sequence: int, agent: str | None = None) -> bytes:
    """A batch of ten spans."""
    return codec.encode_batch(batch(spans(10, run_id), sequence, agent=agent or run_id))


def test_an_acknowledged_batch_is_committed(running: CollectorProcess, channel: Any) -> None:
    """When the acknowledgement is here the rows are there."""
    acks, error = push(channel, [good("committed", 1), good("committed", 2)])
    assert error is None
    assert acks == [Ack("committed", 1, 1), Ack("committed", 1, 2)]
    assert stored(running, "committed") == 20


def test_a_batch_that_comes_twice_is_acknowledged_and_stored_once(
    running: CollectorProcess, channel: Any
) -> None:
    """On one stream and on another the second is a duplicate."""
    acks, _ = push(channel, [good("twice", 1), good("twice", 1)])
    acks += push(channel, [good("twice", 1)])[0]
    assert [ack.duplicate for ack in acks] == [False, True, True]
    assert stored(running, "twice") == 10


def test_a_batch_whose_rows_were_given_up_is_told_what_became_of_it(
    running: CollectorProcess, channel: Any
) -> None:
    """It is a duplicate if they are stored; if not, its key is taken, and they are not stored later."""
    first, second = (
        codec.encode_batch(Batch("given-up", 1, number, "spans", b"", given_up=True)) for number in (1, 2)
    )
    acks, error = push(channel, [good("given-up", 1), first, second, good("given-up", 2)])
    assert error is None
    assert [(ack.duplicate, ack.foreign) for ack in acks] == [
        (False, False), (True, False), (False, False), (True, False)
    ]  # fmt: skip
    assert stored(running, "given-up") == 10


BAD = {
    "wrong schema": codec.encode_batch(batch(spans(10, "bad"), 2, table="steps", agent="bad")),
    "unknown table": codec.encode_batch(batch(spans(10, "bad"), 2, table="colours", agent="bad")),
    "derived table": codec.encode_batch(batch(spans(10, "bad"), 2, table="op_costs", agent="bad")),
    "no arrow": codec.encode_batch(Batch("bad", 1, 2, "spans", b"\x00" * 100)),
    "truncated arrow": codec.encode_batch(
        Batch("bad", 1, 2, "spans", codec.encode_rows(spans(10, "bad"))[:-400])
    ),
    "truncated protobuf": good("bad", 2)[:-30],
    "no protobuf": b"\xff" * 50,
    "no key": b"",
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_batch_ends_its_stream_and_nothing_else(
    running: CollectorProcess, channel: Any, kind: str
) -> None:
    """It is INVALID_ARGUMENT with a reason; what came before is acknowledged, nothing of it is stored, and a
    stream beside it goes on."""
    name = f"before {kind}"
    beside = channel.stream_stream(RAW, response_deserializer=codec.decode_ack)
    first, second = good(f"beside {kind}", 1), good(f"beside {kind}", 2)
    refused: list[Any] = []

    def messages() -> Iterator[bytes]:
        yield first
        refused.extend(push(channel, [good(name, 1), BAD[kind], good(name, 3)]))
        yield second

    assert len(list(beside(messages(), timeout=120))) == 2
    acks, error = refused
    assert acks == [Ack(name, 1, 1)]
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert len(error.details()) > 10
    assert "Traceback" not in error.details()
    assert stored(running, name) == 10
    assert stored(running, "bad") == 0
    assert stored(running, f"beside {kind}") == 20


def test_a_refused_batch_is_named(channel: Any) -> None:
    """The trailing metadata say which batch it was, so that its agent can set it aside."""
    _, error = push(channel, [BAD["unknown table"]])
    trailing = dict(error.trailing_metadata())
    assert (trailing[services.REJECTED_EPOCH], trailing[services.REJECTED_SEQUENCE]) == ("1", "2")


def test_a_message_over_the_limit_is_refused(running: CollectorProcess, channel: Any) -> None:
    """More than 16 MiB is RESOURCE_EXHAUSTED, nothing of it is stored, and the next stream works."""
    large = codec.encode_batch(Batch("large", 1, 1, "spans", b"\x00" * (services.MAX_MESSAGE_BYTES + 1)))
    acks, error = push(channel, [large])
    assert acks == []
    assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert push(channel, [good("after large", 1)])[1] is None
    assert stored(running, "after large") == 10


def test_a_client_that_leaves_in_the_middle_harms_nobody(running: CollectorProcess, channel: Any) -> None:
    """Streams called off with batches under way: what is acknowledged is there, and others go on."""
    for round in range(3):
        call = channel.stream_stream(RAW, response_deserializer=codec.decode_ack)(
            iter([good("leaves", 100 * round + i) for i in range(1, 41)]), timeout=120
        )
        next(call)
        call.cancel()
    assert push(channel, [good("after leaving", 1)])[1] is None
    assert stored(running, "after leaving") == 10
    assert stored(running, "leaves") >= 30


def test_an_op_of_a_form_no_formula_knows_is_stored_as_unknown(
    running: CollectorProcess, channel: Any
) -> None:
    """A linear without operands is taken, and its cost is unknown: it does not stop the stream."""
    op = {
        "run_id": "odd", "phase": "forward", "op_index": 0, "path": "", "op": "aten.linear",
        "inputs": [], "outputs": [], "is_view": False,
    }  # fmt: skip
    rows = table_of("ops", [op])
    acks, error = push(channel, [codec.encode_batch(batch(rows, 1, "ops", agent="odd"))])
    assert (len(acks), error) == (1, None)
    with connect(running.sql) as connection:
        found = connection.sql("SELECT is_known FROM op_costs WHERE run_id = 'odd'").to_pylist()
    assert found == [{"is_known": False}]


def test_health_says_serving(channel: Any) -> None:
    """The standard health service knows the server and each of its services."""
    health = health_pb2_grpc.HealthStub(channel)
    for name in ("", "roofleet.v1.Ingest", "roofleet.v1.Fleet", "roofleet.v1.Control"):
        answer = health.Check(health_pb2.HealthCheckRequest(service=name), timeout=120)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING


def test_an_agent_attaches_and_is_listed_until_it_leaves(channel: Any) -> None:
    """Hello is answered with a welcome; heartbeats update the list; the end of the stream leaves it."""
    leave: list[bool] = []

    def messages() -> Iterator[Any]:
        yield Hello("agent-1", "host-1", "machine", "0.1.0")
        yield Heartbeat(7)
        eventually(lambda: leave)

    call = services.ATTACH.client(channel)(messages(), timeout=120)
    assert isinstance(next(iter(call)), Welcome)
    listing = services.LIST_AGENTS.client(channel)

    def listed() -> list[tuple[str, int]]:
        return [(a.hostname, a.spooled_batches) for a in listing(Filter(), timeout=120)]

    eventually(lambda: listed() == [("machine", 7)])
    leave.append(True)
    eventually(lambda: listed() == [])


def test_an_agent_that_does_not_say_hello_is_refused(channel: Any) -> None:
    """A heartbeat before hello is INVALID_ARGUMENT."""
    call = services.ATTACH.client(channel)(iter([Heartbeat(1)]), timeout=120)
    with pytest.raises(grpc.RpcError) as caught:
        list(call)
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT  # type: ignore[attr-defined]


def test_control_lists_the_catalogues(channel: Any, running: CollectorProcess) -> None:
    """Models and hardware are listed with a filter, and the collector says where its SQL is."""
    assert services.LIST_MODELS.client(channel)(Filter("bert-large"), timeout=120) == ["bert-large-uncased"]
    assert "h100-sxm" in services.LIST_HARDWARE.client(channel)(Filter("h100"), timeout=120)
    assert services.LIST_JOBS.client(channel)(JobsAsked(), timeout=120) == []
    info = services.GET_COLLECTOR.client(channel)(Filter(), timeout=120)
    assert running.sql.endswith(f":{info.sql_port}")


def test_a_call_that_is_not_there_is_unimplemented(channel: Any) -> None:
    """A client that knows more than the collector is told so in gRPC's own word."""
    with pytest.raises(grpc.RpcError) as caught:
        channel.unary_unary("/roofleet.v1.Control/Foresee")(b"", timeout=120)
    assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED  # type: ignore[attr-defined]


def test_sigterm_ends_the_collector_cleanly(tmp_path: Path) -> None:
    """A collector asked to end commits, lets go of its data and exits with 0."""
    from roofleet_collector.store import DuckDBStore

    with collector(tmp_path) as process, grpc.insecure_channel(process.grpc) as opened:
        assert len(push(opened, [good("end", i) for i in range(1, 6)])[0]) == 5
        assert process.terminate() == 0
    store = DuckDBStore(tmp_path)
    assert store.query("SELECT count(*) FROM spans").read_all().column(0).to_pylist() == [50]
    store.close()
    assert not (tmp_path / "collector.json").exists()
