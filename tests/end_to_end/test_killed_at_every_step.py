"""Every row arrives once, at whichever step of a batch's life an agent or a collector is killed."""

from __future__ import annotations

import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.faults import AGENT_STEPS, COLLECTOR_STEPS, ROWS
from tests.processes import end, running
from tests.support import CollectorProcess, collector, eventually, spans, start_collector

from roofleet.api.client import connect
from roofleet_agent.sending.spool import Spool
from roofleet_agent.sending.uplink import Uplink, open_channel

BATCHES = 6


@pytest.fixture(scope="module")
def collecting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CollectorProcess]:
    """A collector for all agents that are killed."""
    with collector(tmp_path_factory.mktemp("collecting")) as there:
        yield there


def sent(step: str, spool: Path, collector: str, batches: int) -> tuple[int, list[int]]:
    """The status of a sender that is killed at a step, and the batches that it was told are kept."""
    arguments = ("-m", "tests.faults", step, "3", "send", str(spool), collector, str(batches))
    with running(*arguments, stdout=subprocess.PIPE) as process:
        said, _ = process.communicate(timeout=300)
    return process.returncode, [int(line) for line in said.split()]


def stored(sql: str, run_id: str) -> list[int]:
    """The rows of a run that are stored, by the number each was given."""
    with connect(sql) as connection:
        rows = connection.sql("SELECT start_ns FROM spans WHERE run_id = ? ORDER BY start_ns", [run_id])
    return [int(row) for row in rows.column(0).to_pylist()]


@pytest.mark.parametrize("step", AGENT_STEPS)
def test_a_killed_agent_loses_and_doubles_nothing(
    step: str, collecting: CollectorProcess, tmp_path: Path
) -> None:
    """What it was told is kept arrives once, and at most the batch that it was writing is there beside it."""
    spool = tmp_path / f"{step.replace(' ', '-')}.sqlite"
    status, kept = sent(step, spool, collecting.grpc, BATCHES)
    assert status == -signal.SIGKILL
    assert sent("none", spool, collecting.grpc, 0) == (0, [])
    there = stored(collecting.sql, spool.stem)
    batches = sorted({row // ROWS for row in there})
    assert there == [ROWS * batch + row for batch in batches for row in range(ROWS)]
    assert set(kept) <= set(batches) <= {*kept, len(kept)}


@pytest.mark.parametrize("step", COLLECTOR_STEPS)
def test_a_killed_collector_loses_and_doubles_nothing(step: str, tmp_path: Path) -> None:
    """What agents have when it comes back is stored once."""
    spool = Spool(tmp_path / "spool.sqlite")
    for number in range(BATCHES):
        spool.write("spans", spans(ROWS, "run", first=ROWS * number))
    killed = start_collector(tmp_path / "data", faults=(step, "3"))
    channel = open_channel(killed.grpc)
    uplink = Uplink(spool, channel)
    sending = threading.Thread(target=uplink.run, daemon=True)
    sending.start()
    try:
        for number in range(BATCHES, BATCHES + 20):  # those before may have been taken as one
            spool.write("spans", spans(ROWS, "run", first=ROWS * number))
            if number % 5 == 4:
                eventually(lambda: killed.process.poll() is not None or spool.count() == 0)
        assert killed.process.wait(120) == -signal.SIGKILL
        acknowledged = BATCHES + 20 - spool.count()
        again = start_collector(tmp_path / "data", killed.grpc, killed.sql)
        try:
            assert len(stored(again.sql, "run")) >= ROWS * acknowledged
            eventually(lambda: spool.count() == 0)
            assert stored(again.sql, "run") == list(range(ROWS * (BATCHES + 20)))
        finally:
            again.terminate()
    finally:
        uplink.stop()
        sending.join(60)
        channel.close()
        end(killed.process)
