"""`roofleet demo`, as `make demo` calls it without a terminal."""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
import urllib.request
from pathlib import Path

import psutil
import pytest
from tests.processes import end, start
from tests.support import roofleet_process

from roofleet_collector.store import DuckDBStore


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """The demo, run once for the whole file."""
    data = tmp_path_factory.mktemp("demo")
    return data, roofleet_process("demo", "--once", "--data", str(data), data=data, timeout=850)


@pytest.mark.slow
def test_the_demo_ends_well_and_prints_what_it_found(
    demo: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    """Both models have a summary and five slowest layers with their bound, and the address is there."""
    _, answer = demo
    assert answer.returncode == 0, answer.stdout + answer.stderr
    for words in (
        "gpt2", "bert-base-uncased", "time to first token", "time per output token", "time of a forward",
        "tokens/s", "peak memory", "FLOPs utilization", "bandwidth utilization", "instrumentation overhead",
        "explained by layers", "dashboard  http://127.0.0.1:", "lm_head",
    ):  # fmt: skip
        assert words in answer.stdout, words
    bounds = re.findall(
        r"(?:mlp|attention|head|embedding|norm)\s+.*?(compute|memory|overhead)", answer.stdout
    )
    assert len(bounds) == 2 * 5


@pytest.mark.slow
def test_the_demos_runs_are_stored_with_all_their_parts(
    demo: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    """Overhead, coverage, utilisation and memory are there for both; readings came from the agent."""
    store = DuckDBStore(demo[0])
    rows = store.query("SELECT * FROM run_summary ORDER BY model_name").read_all().to_pylist()
    readings = store.query("SELECT count(*) FROM readings").read_all().column(0)[0].as_py()
    shares = store.query(
        "SELECT sum(share_of_phase) AS s FROM layer_summary GROUP BY run_id, phase"
    ).read_all()
    store.close()
    assert [(r["model_name"], r["status"], r["new_tokens"]) for r in rows] == [
        ("bert-base-uncased", "done", 0),
        ("gpt2", "done", 32),
    ]
    for row in rows:
        for figure in ("layer_time_coverage", "instrumentation_overhead"):  # NULL where noise hides them
            assert row[figure] is None or 0.5 < row[figure] < 2
        assert row["model_flops_utilization"] > 0
        assert row["memory_bandwidth_utilization"] > 0
        assert row["peak_memory_bytes"] > 4 * row["parameters"]
        assert row["unknown_ops"] == 0
    assert readings > 5
    assert shares.column("s").to_pylist() == [pytest.approx(1.0)] * 3


@pytest.mark.slow
def test_a_second_demo_shows_the_runs_that_are_there(
    demo: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    """It finds both runs, serves the pages, and Ctrl-C stops everything it started."""
    ours, theirs = pty.openpty()  # a terminal, so that the demo goes on serving
    process = start("-m", "roofleet", "demo", "--data", str(demo[0]), stdout=theirs, stderr=theirs)
    try:
        os.close(theirs)
        said = ""
        while "Ctrl-C" not in said:
            said += os.read(ours, 65_536).decode(errors="replace")
        address = re.search(r"http://127\.0\.0\.1:\d+", said)
        assert address, said
        assert "measuring" not in said
        assert urllib.request.urlopen(address[0], timeout=60).status == 200
        started = psutil.Process(process.pid).children(recursive=True)
        assert len([p for p in started if {"collector", "agent", "dashboard"} & set(p.cmdline())]) == 3
        process.send_signal(signal.SIGINT)
        assert process.wait(120) == 0
        _, alive = psutil.wait_procs(started, timeout=60)
        assert alive == []
    finally:
        end(process)
        os.close(ours)
