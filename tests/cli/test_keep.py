"""`roofleet collector --keep`: a policy at the start, and what it did as it is told."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from tests.support import collector, eventually, roofleet

from roofleet.api.client import connect
from roofleet.running.runs import open_runs
from roofleet_agent.rows import table_of


def test_a_collector_rolls_up_what_is_older_than_it_was_told_to_keep(tmp_path: Path) -> None:
    """Readings of three hours ago are minutes soon after its start, and `roofleet fleet` says so."""
    began = datetime.now(UTC).replace(second=0, microsecond=0) - timedelta(hours=3)
    with open_runs(None, tmp_path) as runs:
        runs.sink.write("hosts", table_of("hosts", [{"host_id": "h", "hostname": "attic"}]))
        rows = [
            {"device_id": "d", "read_at": began + timedelta(seconds=s), "power_w": 5.0} for s in range(90)
        ]
        runs.sink.write("readings", table_of("readings", rows))
        runs.deliver()
    with collector(tmp_path, "--keep", "readings=2h") as there, connect(there.sql) as connection:
        history = "SELECT readings, mean_power_w AS mean FROM reading_history ORDER BY began_at"
        minutes = [{"readings": 60, "mean": 5.0}, {"readings": 30, "mean": 5.0}]
        eventually(lambda: connection.sql(history).to_pylist() == minutes)
        said = roofleet("fleet", data=tmp_path)
    assert "retention: 90 rows of readings rolled up since" in said.stdout


def test_a_policy_that_cannot_be_read_is_no_start(tmp_path: Path) -> None:
    """Said in one line, with what may be written; nothing is opened, and so nothing can be deleted."""
    (tmp_path / "collector.toml").write_text('[keep]\nruns = "soon"\n')
    said = roofleet("collector", "--grpc", "127.0.0.1:0", "--sql", "127.0.0.1:0", data=tmp_path)
    assert said.returncode == 2
    assert "[keep]: runs is 'soon'; it must be an age such as 90m, 12h, 7d, 8w, or forever" in said.stderr
    assert not (tmp_path / "roofleet.duckdb").exists()
