"""`roofleet demo`, as `make demo` calls it without a terminal."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import urllib.request
from pathlib import Path

import psutil
import pytest
from tests.processes import end, running, start
from tests.support import TINY_BERT, TINY_GPT2, roofed, roofleet, used
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM

from roofleet.commands.demo import MODELS
from roofleet_collector.store import DuckDBStore

DEMO = (
    "import sys; from roofleet.commands import demo; from roofleet.main import run\n"
    "demo.BUDGET_S, demo.MODELS, sys.argv = 1, sys.argv[1:3], ['roofleet', *sys.argv[3:]]; run()"
)
"""The command with other models, which are measured for a second each."""
SMALL = {
    "small-bert": TINY_BERT | {"hidden_size": 512, "intermediate_size": 2048, "max_position_embeddings": 256},
    "small-gpt2": TINY_GPT2 | {"n_embd": 768, "n_positions": 256, "vocab_size": 8_000},
}
"""Large enough for the slowest layers to be those that compute."""


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with models that take little time, in folders of their names."""
    folder = tmp_path_factory.mktemp("models")
    for name, values in SMALL.items():
        config = AutoConfig.for_model(**values)
        kind = AutoModelForCausalLM if "gpt2" in name else AutoModel
        kind.from_config(config).save_pretrained(folder / name)
    return folder


@pytest.fixture(scope="module")
def demo(
    models: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """The demo, run once for the whole file."""
    data = tmp_path_factory.mktemp("demo")
    roofed(data / "agent")
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with running("-c", DEMO, *SMALL, "demo", "--once", "--data", str(data), cwd=models, **pipes) as process:
        said, complained = process.communicate(timeout=850)
    return data, subprocess.CompletedProcess(DEMO, process.returncode, said, complained)


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_the_demos_models_run_at_full_size(name: str, tmp_path: Path) -> None:
    """Those of the catalogue, for as few tokens as can be; the other tests give the demo small models."""
    options = ("--prompt-tokens", "4", "--new-tokens", "2", "--iterations", "1", "--warmup", "0", "--json")
    answer = roofleet("profile", name, *options, data=used(tmp_path))
    assert answer.returncode == 0, answer.stderr
    row = json.loads(answer.stdout)
    assert (row["model_name"], row["status"], row["unknown_ops"]) == (name, "done", 0)
    assert row["parameters"] > 100_000_000
    assert row["peak_memory_bytes"] > 4 * row["parameters"]


@pytest.mark.slow
def test_the_demo_ends_well_and_prints_what_it_found(
    demo: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    """Both models have a summary and five slowest layers with their bound, and the address is there."""
    _, answer = demo
    assert answer.returncode == 0, answer.stdout + answer.stderr
    for words in (
        *SMALL, "time to first token", "time per output token", "time of a forward",
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
        ("small-bert", "done", 0),
        ("small-gpt2", "done", 32),
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
    demo: tuple[Path, subprocess.CompletedProcess[str]], models: Path
) -> None:
    """It finds both runs, serves the pages, and Ctrl-C stops everything it started."""
    ours, theirs = pty.openpty()  # a terminal, so that the demo goes on serving
    command = ("-c", DEMO, *SMALL, "demo", "--data", str(demo[0]))
    process = start(*command, cwd=models, stdout=theirs, stderr=theirs)
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
