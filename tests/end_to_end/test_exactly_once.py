"""Every row arrives once: over real gRPC, a collector that is killed, and a network that fails."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import grpc
import pytest
from tests.support import collector, eventually, spans, start_collector

from roofleet.api.client import connect
from roofleet_agent.errors import CollectorUnreachable
from roofleet_agent.sending.spool import Spool
from roofleet_agent.sending.uplink import Uplink, open_channel
from roofleet_proto.codec import encode_rows
from roofleet_proto.records import Batch
from roofleet_proto.services import PUSH

ROWS = 400


def test_nothing_is_lost_or_doubled_when_the_collector_is_killed(tmp_path: Path) -> None:
    """SIGKILL in the middle of a stream, three times: every acknowledged batch is there once, every spooled
    batch arrives once, none twice."""
    spool = Spool(tmp_path / "spool.sqlite")
    running = start_collector(tmp_path / "data")
    grpc_at, sql_at = running.grpc, running.sql
    channel = open_channel(grpc_at)
    uplink = Uplink(spool, channel)
    sending = threading.Thread(target=uplink.run, daemon=True)
    sending.start()
    written = 0
    acknowledged_before_kill: list[int] = []
    for _ in range(3):
        for _ in range(150):
            spool.write("spans", spans(ROWS, "kill", first=written))
            written += ROWS
        # killed while there is still something on its way
        eventually(lambda: spool.count() < 140)
        running.kill()
        acknowledged_before_kill.append(written // ROWS - spool.count())
        running = start_collector(tmp_path / "data", grpc_at, sql_at)
        with connect(sql_at) as connection:
            there = connection.sql("SELECT count(DISTINCT start_ns) FROM spans").column(0)[0].as_py()
        assert there >= acknowledged_before_kill[-1] * ROWS
    eventually(lambda: spool.count() == 0, timeout_s=240)
    uplink.stop()
    sending.join(120)
    with connect(sql_at) as connection:
        rows = connection.sql("SELECT count(*) AS n, count(DISTINCT start_ns) AS d FROM spans").to_pylist()[0]
    assert rows == {"n": written, "d": written}
    channel.close()
    running.terminate()


def test_an_acknowledgement_that_is_lost_does_no_harm(tmp_path: Path) -> None:
    """A batch stored without its sender hearing of it is sent again and stored once."""
    with collector(tmp_path / "data") as running:
        spool = Spool(tmp_path / "spool.sqlite")
        for first in range(0, 50, 10):
            spool.write("spans", spans(10, first=first))
        channel = open_channel(running.grpc)
        # everything is pushed, and none of the acknowledgements is taken to heart
        assert len(list(PUSH.client(channel)(iter(spool.pending()), timeout=120))) == 5
        Uplink(spool, channel).drain(120)
        assert spool.count() == 0
        with connect(running.sql) as connection:
            assert connection.sql("SELECT count(*) FROM spans").column(0).to_pylist() == [50]
        channel.close()


def test_a_batch_the_collector_cannot_take_does_not_stop_the_others(tmp_path: Path) -> None:
    """It is set aside with the collector's reason, and everything behind it arrives."""
    with collector(tmp_path / "data") as running:
        spool = Spool(tmp_path / "spool.sqlite")
        spool.write("spans", spans(10))
        spool._db.execute(
            "INSERT INTO batches (epoch, table_name, rows, arrow_ipc) VALUES (1, 'colours', 1, ?)",
            [encode_rows(spans(1))],
        )
        spool.write("spans", spans(10, first=10))
        channel = open_channel(running.grpc)
        Uplink(spool, channel).drain(120)
        assert [(t, "there is no table" in why) for _, t, why in spool.set_aside_reasons()] == [
            ("colours", True)
        ]
        with connect(running.sql) as connection:
            assert connection.sql("SELECT count(*) FROM spans").column(0).to_pylist() == [20]
        channel.close()


def test_a_batch_over_the_limit_is_found_and_set_aside(tmp_path: Path) -> None:
    """gRPC does not say which message was too large; the uplink finds it by sending one at a time."""
    with collector(tmp_path / "data") as running:
        spool = Spool(tmp_path / "spool.sqlite")
        spool.write("spans", spans(10))
        spool._db.execute(
            "INSERT INTO batches (epoch, table_name, rows, arrow_ipc) VALUES (1, 'spans', 1, zeroblob(?))",
            [17 * 1024 * 1024],
        )
        spool.write("spans", spans(10, first=10))
        channel = open_channel(running.grpc)
        Uplink(spool, channel).drain(120)
        assert [table for _, table, _ in spool.set_aside_reasons()] == ["spans"]
        with connect(running.sql) as connection:
            assert connection.sql("SELECT count(*) FROM spans").column(0).to_pylist() == [20]
        channel.close()


def test_a_collector_that_is_away_is_told_in_time_and_nothing_is_lost(tmp_path: Path) -> None:
    """Draining into nowhere ends with the reason, and the batches stay."""
    spool = Spool(tmp_path / "spool.sqlite")
    spool.write("spans", spans(10))
    channel = open_channel("127.0.0.1:9")
    with pytest.raises(CollectorUnreachable, match="1 batches stay in"):
        Uplink(spool, channel).drain(2)
    assert spool.count() == 1
    channel.close()


def test_a_port_that_is_no_collectors_is_told_at_once(tmp_path: Path) -> None:
    """Sending to the SQL port names the mistake instead of trying for ever."""
    with collector(tmp_path / "data") as running:
        spool = Spool(tmp_path / "spool.sqlite")
        spool.write("spans", spans(10))
        channel = open_channel(running.sql)
        with pytest.raises(CollectorUnreachable, match="7700"):
            Uplink(spool, channel).drain(3600)
        assert spool.count() == 1
        channel.close()


def test_many_agents_at_once_keep_their_own_rows(tmp_path: Path) -> None:
    """Eight agents stream at the same time; each one's rows are all there."""
    with collector(tmp_path / "data") as running:

        def send(agent: int) -> None:
            batches = (
                Batch(f"agent-{agent}", 1, i + 1, "spans", encode_rows(spans(100, f"run-{agent}", 100 * i)))
                for i in range(20)
            )
            with grpc.insecure_channel(running.grpc) as channel:
                assert len(list(PUSH.client(channel)(batches, timeout=120))) == 20

        threads: list[Any] = [threading.Thread(target=send, args=(agent,)) for agent in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        with connect(running.sql) as connection:
            counts = connection.sql(
                "SELECT run_id, count(*) AS n, count(DISTINCT start_ns) AS d FROM spans GROUP BY run_id"
            ).to_pylist()
        assert len(counts) == 8
        assert {(row["n"], row["d"]) for row in counts} == {(2000, 2000)}
