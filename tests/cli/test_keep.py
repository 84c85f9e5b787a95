"""`roofleet collector --keep`: a policy at the start, and what it did as it is told."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

from tests.collector.test_figures import KINDS, begin, put, rows_of
from tests.support import collector, eventually, roofleet

from roofleet.api.client import connect
from roofleet.running.runs import open_runs
from roofleet_agent.rows import table_of
from roofleet_collector.policy import Policy
from roofleet_collector.store import DuckDBStore
from roofleet_dashboard import queries


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


def test_what_needs_raw_spans_says_that_they_went(tmp_path: Path) -> None:
    """The network is drawn in the order that it was; a run and a comparison say what is missing, and layers
    of runs that took turns are compared by what is kept of each iteration."""
    runs = ("one-of-turns", "other-of-turns")
    store = DuckDBStore(tmp_path)
    try:
        begin(store)
        for run_id in runs:
            put(store, **rows_of(run_id, **KINDS[run_id]))
        order = queries.sql("network_order")
        before = store.query(order, [runs[0], "decode"]).read_all()
        policy = Policy(spans=timedelta(days=1))
        assert sum(done.rows for done in store.retain(policy, datetime.now(UTC) + timedelta(days=2))) == 448
        assert store.query(order, [runs[0], "decode"]).read_all() == before
        assert before.num_rows == 4
    finally:
        store.close()
    assert "its raw spans were let go on" in roofleet("runs", "show", runs[0], data=tmp_path).stdout
    said = roofleet("compare", *runs, data=tmp_path)
    assert said.returncode == 0, said.stderr
    assert "were let go, by the collector's policy" in said.stdout
    (phase, *_) = [
        row
        for row in json.loads(roofleet("compare", *runs, "--json", data=tmp_path).stdout)["layers"]
        if row["path"] == "b"
    ]
    assert phase["low"] < phase["ratio"] < phase["high"]
