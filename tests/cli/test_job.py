"""What the process of a job does with its order: the run that was asked for, into the agent's spool."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from tests.support import TINY_GPT2

from roofleet.running import job
from roofleet_agent.errors import JobRefused
from roofleet_agent.sending.spool import Spool
from roofleet_proto.codec import decode_rows
from roofleet_proto.jobs import JobRequest
from roofleet_proto.tables import TABLES


def rows_of(spool: Path, table: str) -> list[dict[str, Any]]:
    """Rows of a table in a spool."""
    opened = Spool(spool)
    batches = [batch for batch in opened.pending(limit=10_000) if batch.table == table]
    opened.close()
    return pa.concat_tables([decode_rows(b.arrow_ipc, TABLES[table]) for b in batches]).to_pylist()


def test_a_job_is_the_run_that_was_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under the id that it was given, with its job, sweep, name and tags; how far it is, and its row, are
    reported."""
    monkeypatch.setattr("roofleet.running.runs.Runs.measure_roofs", lambda self, device, show: None)
    folder = tmp_path / "tiny"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(TINY_GPT2))
    asked = JobRequest(
        str(folder), "random", prompt_tokens=8, new_tokens=4, iterations=2, warmup=1, settings={"n_layer": 1},
        name="mine", tags=("a",), sweep_id="sweep",
    )  # fmt: skip
    said = io.StringIO()
    order = {
        "job_id": "job", "run_id": "run", "request": asked.text(), "device": "cpu", "data": str(tmp_path),
        "spool": str(tmp_path / "spool.sqlite"), "folder": str(folder), "revisions": {}, "memory_bytes": None,
    }  # fmt: skip
    job.run(order, job.Reports(said))
    rows = rows_of(tmp_path / "spool.sqlite", "runs")
    keys = ("run_id", "job_id", "sweep_id", "weights", "iterations")
    assert {tuple(row[key] for key in keys) for row in rows[-1:]} == {("run", "job", "sweep", "random", 2)}
    assert [row["status"] for row in rows] == ["running", "done"]
    [model] = rows_of(tmp_path / "spool.sqlite", "models")
    assert json.loads(model["config"])["n_layer"] == 1
    assert rows_of(tmp_path / "spool.sqlite", "run_labels")[0]["tags"] == ["a"]
    reports = [json.loads(line) for line in said.getvalue().splitlines()]
    stages = [report["stage"] for report in reports if "stage" in report]
    assert {"tracing on meta", "loading the model", "warm-up", "measuring, iteration 2 of 2"} <= {*stages}
    assert sum("run" in report for report in reports) == 2


def test_what_is_of_the_hub_needs_its_commit() -> None:
    """A model of the hub, pretrained weights of the catalogue, and a text's tokenizer alike."""
    commit = "607a30d783dfa663caf39e06633721c8d4cfcd7e"
    for asked in (
        JobRequest("openai-community/gpt2-x"),
        JobRequest("gpt2", "pretrained"),
        JobRequest("gpt2", prompt="hello"),
    ):
        with pytest.raises(JobRefused, match="hub"):
            job.model_of(asked, None, {})
    pinned = job.model_of(JobRequest("someone/model"), None, {"someone/model": commit})
    assert (pinned.origin, pinned.revision) == ("hub", commit)


def test_a_name_is_never_looked_up_on_the_agents_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder that is called like a model, or a factory, is not what the rules allowed."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own").mkdir()
    (tmp_path / "someone").mkdir()
    (tmp_path / "someone" / "model").mkdir()
    for name in ("own", "someone/model"):
        with pytest.raises(JobRefused, match="folder"):
            job.model_of(JobRequest(name), None, {"someone/model": "c"})
