"""`roofleet fleet`: who is there, how far behind, and what is amiss."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

from tests.processes import running
from tests.support import collector, eventually, roofleet

from roofleet.api.client import connect
from roofleet.running.runs import open_runs
from roofleet_agent.rows import table_of


def test_a_fleet_is_listed_with_what_is_amiss(tmp_path: Path) -> None:
    """A host that is away is told with when it was seen, what it lost, and why a reading is missing."""
    seen = datetime.now(UTC) - timedelta(hours=3)
    with open_runs(None, tmp_path) as runs:
        runs.sink.write(
            "hosts",
            table_of("hosts", [{"host_id": "h", "hostname": "attic", "agent_id": "a", "last_seen_at": seen}]),
        )
        device = {
            "device_id": "d", "host_id": "h", "kind": "cpu", "name": "Old CPU", "backend": "cpu",
            "device_index": 0, "unavailable": json.dumps({"power_w": "no counter may be read"}),
        }  # fmt: skip
        runs.sink.write("devices", table_of("devices", [device]))
        loss = {
            "loss_id": "l", "agent_id": "a", "table_name": "readings", "reason": "full", "rows": 1200,
            "batches": 1200, "first_at": seen, "last_at": seen,
        }  # fmt: skip
        runs.sink.write("losses", table_of("losses", [loss]))
        reading = {"device_id": "d", "read_at": datetime.now(UTC) - timedelta(minutes=7), "utilization": 0.5}
        runs.sink.write("readings", table_of("readings", [reading]))
        runs.deliver()
    said = roofleet("fleet", data=tmp_path)
    assert said.returncode == 0, said.stderr
    assert "attic: 1,200 rows were let go of unsent" in said.stdout
    assert re.search(r"7\.0\d min\s+ago", said.stdout)
    assert "no power_w of Old CPU of attic: no counter may be read" in said.stdout
    (row,) = json.loads(roofleet("fleet", "--json", data=tmp_path).stdout)
    assert (row["hostname"], row["lost_rows"], row["attached_since"]) == ("attic", 1200, None)
    assert roofleet("fleet", data=tmp_path / "nobody").returncode == 2


def test_an_agent_that_is_attached_is_told_with_since_when_and_what_waits(tmp_path: Path) -> None:
    """What its heartbeats say reaches the fleet's rows."""
    with collector(tmp_path / "data") as there:
        command = ("-m", "roofleet", "agent", "--collector", there.grpc, "--data", str(tmp_path / "agent"))
        with running(*command) as agent, connect(there.sql) as connection:
            asked = "SELECT is_online, waiting_batches, attached_since <= last_seen_at FROM fleet_status"

            def told() -> bool:
                rows = connection.sql(asked).to_pylist()
                return bool(rows) and None not in rows[0].values()

            eventually(told)
            online, waiting, in_order = connection.sql(asked).to_pylist()[0].values()
            assert online
            assert waiting >= 0
            assert in_order
            agent.terminate()
            agent.wait(60)
