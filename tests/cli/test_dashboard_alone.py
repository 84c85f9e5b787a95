"""`roofleet dashboard --data`: the pages of a folder that no collector holds."""

from __future__ import annotations

import re
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.cli.test_runs import MODEL, run_row
from tests.processes import running
from tests.support import collector

from roofleet.asking.pages import way_to_pages
from roofleet.asking.source import FolderSource
from roofleet.running.runs import open_runs
from roofleet_dashboard.source import SourceError

COUNTED = "SELECT count(*) AS n FROM run_summary"


@contextmanager
def dashboard(data: Path) -> Iterator[str]:
    """A real `roofleet dashboard` on a folder; gives the line it prints."""
    command = ["-m", "roofleet", "dashboard", "--data", str(data), "--listen", "127.0.0.1:0"]
    with running(*command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        yield process.stdout.readline()
        process.terminate()
        assert process.wait() == 0


def store_run(folder: Path, run_id: str) -> None:
    """Stores a run as `profile` does."""
    with open_runs(None, folder) as runs:
        runs.write("models", [MODEL])
        runs.write("runs", [run_row(run_id, 0)])
        runs.deliver()


def test_a_folder_alone_is_served_and_its_runs_are_linked_to(tmp_path: Path) -> None:
    """Without a collector the dashboard prints its address and answers there, runs are stored meanwhile, and
    a run's report ends with the link; without a dashboard with the command that starts one."""
    store_run(tmp_path, "one")
    command = f"roofleet dashboard --data {tmp_path}"
    assert way_to_pages("one", tmp_path) == command
    with dashboard(tmp_path) as line:
        found = re.match(r"dashboard: (http://127\.0\.0\.1:\d+) of the runs in (\S+)", line)
        assert found, line
        assert found[2] == str(tmp_path)
        with urllib.request.urlopen(f"{found[1]}/runs?run=one", timeout=120) as page:
            assert page.status == 200
        store_run(tmp_path, "two")
        assert way_to_pages("two", tmp_path) == f"{found[1]}/runs?run=two"
    assert way_to_pages("two", tmp_path) == command


def test_the_dashboards_source_sees_what_is_stored_meanwhile(tmp_path: Path) -> None:
    """No data is told as such; runs are there as they are stored, by this process, or by a collector that
    holds the folder by now."""
    source = FolderSource(tmp_path)
    with pytest.raises(SourceError, match="holds no data yet"):
        source.query(COUNTED)
    for number, run_id in enumerate(("one", "two")):
        store_run(tmp_path, run_id)
        assert source.query(COUNTED).to_pylist() == [{"n": number + 1}]
    with collector(tmp_path):
        store_run(tmp_path, "three")
        assert source.query(COUNTED).to_pylist() == [{"n": 3}]
    assert source.query(COUNTED).to_pylist() == [{"n": 3}]
