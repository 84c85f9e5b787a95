"""A collector on a disk that is really full, and then is not: a small file system of its own."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import duckdb
import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tests.support import batch, collector, eventually, spans

from roofleet.api.client import connect
from roofleet.errors import FAILED, status_of
from roofleet_collector.errors import StoreBroken
from roofleet_collector.store import DuckDBStore
from roofleet_proto import services
from roofleet_proto.records import Batch, Heartbeat, Hello

SIZE = "48m"


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 48 MB in memory."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(folder)], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("a file system can be mounted by root only")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_is_survived(disk: Path) -> None:
    """Rows are refused with UNAVAILABLE and heartbeats go on, health says NOT_SERVING and SQL answers; when
    there is room again it serves, and every acknowledged row is stored once."""
    with collector(disk / "data") as running, grpc.insecure_channel(running.grpc) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        push = services.PUSH.client(channel)

        def status() -> int:
            answer = health.Check(health_pb2.HealthCheckRequest(service=""), timeout=60)
            return int(answer.status)

        def send(number: int) -> bool:
            call = push(iter([numbered(number)]), timeout=60)
            with contextlib.suppress(grpc.RpcError):
                return len(list(call)) == 1
            assert call.code() == grpc.StatusCode.UNAVAILABLE
            return False

        def attached() -> Iterator[Hello | Heartbeat]:
            yield Hello("a", "h", "name", "1")
            eventually(lambda: over)

        over: list[bool] = []
        attachment = services.ATTACH.client(channel)(attached(), timeout=300)
        assert all(send(number) for number in range(1, 4))
        filler = disk / "filler"
        with filler.open("wb", buffering=0) as file:
            while True:
                try:
                    file.write(os.urandom(65536))
                except OSError:
                    break
        number = 4
        while send(number):  # into what the log had room for
            number += 1
        eventually(lambda: status() == health_pb2.HealthCheckResponse.NOT_SERVING)
        assert running.process.poll() is None
        with connect(running.sql) as connection:
            assert connection.sql("SELECT count(*) AS n FROM spans").to_pylist() == [
                {"n": 1000 * (number - 1)}
            ]
        filler.unlink()
        eventually(lambda: status() == health_pb2.HealthCheckResponse.SERVING)
        assert all(send(again) for again in range(1, number + 3))
        with connect(running.sql) as connection:
            found = connection.sql(
                "SELECT count(*) AS n, count(DISTINCT start_ns) AS d FROM spans"
            ).to_pylist()
        assert found == [{"n": 1000 * (number + 2), "d": 1000 * (number + 2)}]
        over.append(True)
        attachment.cancel()


def numbered(number: int) -> Batch:
    """A batch of a thousand rows that no other has."""
    return batch(spans(1000, first=1000 * number), number)


def test_a_database_that_the_engine_gave_up_is_said_to_be(tmp_path: Path) -> None:
    """A checkpoint that the disk did not take leaves the engine with a database it uses no more: a collector
    ends with one line, so that what looks after it starts it anew, and closing the store harms nothing."""

    def gives_up(connection: duckdb.DuckDBPyConnection) -> None:
        raise duckdb.FatalException("Failed to create checkpoint\nNo space left on device")

    store = DuckDBStore(tmp_path)
    store.check()
    with pytest.raises(duckdb.FatalException):
        store._writer.submit(gives_up).result()
    with pytest.raises(StoreBroken, match="Failed to create checkpoint") as broken:
        store.check()
    assert status_of(broken.value) == FAILED
    store.close()
    DuckDBStore(tmp_path).close()
