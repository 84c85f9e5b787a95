"""A thousand messages that are wrong in a thousand ways, against a real collector: seeded, so that each can
be had again."""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Iterator
from typing import Any

import grpc
import psutil
import pyarrow as pa
import pytest
from tests.support import CollectorProcess, batch, collector, spans

from roofleet.api.client import connect
from roofleet_agent.rows import table_of
from roofleet_proto import codec, services
from roofleet_proto.codec import encode_batch, encode_rows
from roofleet_proto.ranges import broken
from roofleet_proto.records import Batch
from roofleet_proto.tables import TABLES

MESSAGES = 1000
BOMB_BYTES = 200_000_000
MOST_BYTES = 600 * 1024 * 1024
"""What the collector may grow by: the bombs together would take 20 GB."""


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CollectorProcess]:
    """One collector for the file."""
    with collector(tmp_path_factory.mktemp("collector")) as process:
        # it says something of each message, and a pipe that nobody reads would stop it
        threading.Thread(target=process.process.stdout.read, daemon=True).start()  # type: ignore[union-attr]
        yield process


def compressed(rows: pa.Table) -> bytes:
    """Rows as a compressed stream."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, rows.schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as writer:
        writer.write(rows)
    return bytes(sink.getvalue())


def bombs() -> list[bytes]:
    """Streams of some kilobytes that would decode to 200 MB: in one value, in many rows, in many messages."""
    one = spans(1).set_column(4, "path", pa.array(["x" * BOMB_BYTES]))
    many = pa.table(
        [
            pa.nulls(BOMB_BYTES // 100, field.type).fill_null(0 if field.type == pa.int64() else "")
            for field in one.schema
        ],
        schema=one.schema,
    )
    sink = pa.BufferOutputStream()
    part = spans(1).set_column(4, "path", pa.array(["x" * (BOMB_BYTES // 50)]))
    with pa.ipc.new_stream(sink, part.schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as writer:
        for _ in range(50):
            writer.write(part)
    return [compressed(one), compressed(many), bytes(sink.getvalue())]


def mutated(chance: random.Random, data: bytes) -> bytes:
    """Bytes flipped, cut out, doubled, or put in; or the end cut off."""
    changed = bytearray(data)
    for _ in range(chance.choice((1, 1, 2, 8))):
        at, length = chance.randrange(len(changed) + 1), chance.choice((1, 2, 8, 64))
        match chance.randrange(5):
            case 0:
                changed[at : at + 1] = bytes([chance.randrange(256)])
            case 1:
                del changed[at : at + length]
            case 2:
                changed[at:at] = changed[at : at + length]
            case 3:
                changed[at:at] = chance.randbytes(length)
            case _:
                changed[at : at + 8] = chance.choice((b"\xff" * 8, b"\x00" * 8, b"\x7f" + b"\xff" * 7))
        if not changed:
            break
    return bytes(changed[: chance.randrange(len(changed) + 1)] if chance.random() < 0.1 else changed)


def messages() -> Iterator[bytes]:
    """The thousand, each from an agent of its own so far as it says one."""
    chance = random.Random(8)
    blown = bombs()
    payloads = [encode_rows(spans(20, "fuzz")), compressed(spans(200, "fuzz"))]
    reading = {"device_id": "fuzz", "read_at": 1_800_000_000_000_000, "utilization": 0.5}
    payloads.append(encode_rows(table_of("readings", [reading] * 3)))
    for number in range(MESSAGES):
        agent = f"fuzz-{number}"
        table = chance.choice(
            ("spans", "spans", "readings", "ops", "colours", "op_costs", "rejected_rows", "\0")
        )
        payload = chance.choice(payloads)
        match number % 10:
            case 0:
                yield chance.randbytes(chance.randrange(200))
            case 1 | 2 | 3:
                yield mutated(chance, encode_batch(Batch(agent, 1, 1, "spans", payload)))
            case 4 | 5 | 6:
                yield encode_batch(Batch(agent, 1, 1, "spans", mutated(chance, payload)))
            case 7:
                yield encode_batch(Batch(agent, 1, 1, table, payload))
            case 8:
                numbers = (0, 1, 2**31, 2**63 - 1, 2**63, 2**64 - 1)
                name = chance.choice((agent, "x" * 10_000, "../../etc", "a\0b", "\u202egnp"))
                yield encode_batch(
                    Batch(name, chance.choice(numbers), chance.choice(numbers), table, payload)
                )
            case _:
                yield encode_batch(Batch(agent, 1, 1, "spans", chance.choice(blown)))


def answers(channel: Any, sent: list[bytes]) -> Counter[str]:
    """How a stream of these messages was answered: acknowledgements, and the status that ended it."""
    call = channel.stream_stream(services.PUSH.path, response_deserializer=codec.decode_ack)(
        iter(sent), timeout=60
    )
    said: Counter[str] = Counter()
    try:
        for _ in call:
            said["ack"] += 1
    except grpc.RpcError as error:
        said[error.code().name] += 1  # type: ignore[attr-defined]
    return said


def test_nothing_that_is_wrong_harms_the_collector(running: CollectorProcess) -> None:
    """It answers each with an acknowledgement or with INVALID_ARGUMENT, stays within its memory, has stored
    only what is acknowledged and valid, and takes good rows as before."""
    process = psutil.Process(running.process.pid)
    said, before, most = Counter[str](), process.memory_info().rss, 0
    with grpc.insecure_channel(running.grpc) as channel:
        for message in messages():
            said += answers(channel, [message])
            most = max(most, process.memory_info().rss - before)
        assert sum(said.values()) == MESSAGES
        assert set(said) == {"ack", "INVALID_ARGUMENT"}
        assert said["INVALID_ARGUMENT"] > MESSAGES / 2
        assert most < MOST_BYTES
        assert answers(channel, [encode_batch(batch(spans(10, "good"), 1, agent="good"))]) == {"ack": 1}
    with connect(running.sql) as connection:
        for name in ("spans", "readings", "ops"):
            for rows in connection.sql(f"SELECT * FROM {name}").to_batches():
                assert broken(TABLES[name].ranges, rows) == {}
        keys = "SELECT sum(last_sequence - first_sequence + 1)::BIGINT AS n FROM ingest_log"
        assert connection.sql(keys).to_pylist() == [{"n": said["ack"] + 1}]
        good = connection.sql("SELECT count(*) AS n FROM spans WHERE run_id = 'good'").to_pylist()
        assert good == [{"n": 10}]
