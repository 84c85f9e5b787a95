"""`roofleet runs`: listed, shown, tagged, noted and deleted, in a folder and at a collector."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.support import collector, laid, spans
from typer.testing import CliRunner

from roofleet.errors import UserError
from roofleet.main import app
from roofleet.running.runs import Runs, open_runs

BEGAN = datetime(2026, 1, 2, tzinfo=UTC)
MODEL = {"model_id": "m", "name": "tiny", "origin": "folder", "architecture": "GPT2", "task": "generate",
         "parameters": 10}  # fmt: skip


def run_row(run_id: str, number: int, **changes: Any) -> dict[str, Any]:
    """A row of `runs`, begun so many minutes after the first."""
    return {
        "run_id": run_id, "host_id": "h", "device_id": "d", "model_id": "m", "status": "done",
        "started_at": BEGAN + timedelta(minutes=number), "dtype": "fp32", "variant": "base",
        "weights": "random", "engine": "transformers", "batch_size": 1, "prompt_tokens": 8, "new_tokens": 4,
        "logits": "last", "iterations": 2, "warmup": 0,
    } | changes  # fmt: skip


def fill(runs: Runs) -> None:
    """Three runs of one model, the last one failed; the second generated something that was kept."""
    runs.write("models", [MODEL])
    for number, run_id in enumerate(("one-1", "two-2", "two-3")):
        runs.label(f"run {number}", ["night"] if number else [])
        runs.write("runs", [run_row(run_id, number, status="failed" if number == 2 else "done")])
        runs.sink.write("spans", spans(5, run_id))
    runs.write(
        "outputs", [{"run_id": "two-2", "sequence_index": 0, "token_ids": [7, 9], "text": "over there"}]
    )
    runs.deliver()


@pytest.fixture(params=["folder", "collector"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[list[str], list[str]]]:
    """Options that read and options that change, for a folder and for a collector elsewhere; it is filled."""
    if request.param == "folder":
        with open_runs(None, laid(tmp_path)) as runs:
            fill(runs)
        yield ["--data", str(tmp_path)], ["--data", str(tmp_path)]
        return
    with collector(tmp_path / "data") as running:
        with open_runs(running.grpc, None) as runs:
            fill(runs)
        yield ["--server", running.sql], ["--collector", running.grpc]


@pytest.fixture(autouse=True)
def own_spools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is kept in the user's own folder."""
    monkeypatch.setenv("ROOFLEET_DATA", str(tmp_path / "usual"))


def said(*arguments: str, status: int = 0, given: str | None = None) -> str:
    """What the command prints, in this process."""
    answer = CliRunner().invoke(app, arguments, input=given, catch_exceptions=False)
    assert answer.exit_code == status, answer.output
    return answer.stdout


def ids(*arguments: str) -> list[str]:
    """The ids that `runs list --json` gives."""
    return [row["run_id"] for row in json.loads(said("runs", "list", "--json", *arguments))]


def test_runs_are_listed_tagged_noted_shown_and_deleted(place: tuple[list[str], list[str]]) -> None:
    """Newest first, with filters and a limit; what is said of a run is shown with it, and found by it; a run
    that is deleted is gone with all its rows, and the others stay."""
    read, change = place
    assert ids(*read) == ["two-3", "two-2", "one-1"]
    assert ids("--limit", "1", *read) == ["two-3"]
    assert ids("--status", "done", "--tag", "night", *read) == ["two-2"]
    assert ids("RUN 0", *read) == ["one-1"]
    assert ids("Tiny", *read) == ["two-3", "two-2", "one-1"]
    said("runs", "tag", "one", "dawn", "dusk", *change)
    said("runs", "tag", "one", "dusk", "--remove", *change)
    said("runs", "note", "run 0", "the fan was off", *change)
    assert said("runs", "name", "one", "warm", *change) == "run one-1: warm, #dawn, the fan was off\n"
    said("runs", "name", "warm", "", *change)
    assert json.loads(said("runs", "show", "one-1", "--json", *read))["run_name"] is None
    said("runs", "name", "one", "run 0", *change)
    shown = json.loads(said("runs", "show", "one-1", "--json", *read))
    assert (shown["run_name"], shown["tags"], shown["note"]) == ("run 0", ["dawn"], "the fan was off")
    assert "run 0, #dawn, the fan was off" in said("runs", "list", *read)
    assert said("runs", "pin", "one", *change) == "run one-1: run 0, #dawn, the fan was off, pinned\n"
    assert "the fan was off, pinned" in said("runs", "show", "one-1", *read)
    assert said("runs", "unpin", "one", *change) == "run one-1: run 0, #dawn, the fan was off\n"
    said("runs", "pin", "two-3", *change)
    with pytest.raises(UserError, match="run two-3 is pinned"):
        said("runs", "delete", "two-3", "--yes", *change)
    with pytest.raises(UserError, match="names other runs"):
        said("runs", "name", "two-2", "latest~1", *change)
    shown_too = said("runs", "show", "two-2", *read)
    assert "'over there'" in shown_too
    assert "roofleet dashboard" in shown_too
    with pytest.raises(UserError, match="--yes"):
        said("runs", "delete", "two-2", *change)
    with pytest.raises(UserError, match="too short a beginning"):
        said("runs", "delete", "one", "--yes", *change)
    with pytest.raises(UserError, match="beginning of several"):
        said("runs", "delete", "two", "--yes", *change)
    said("runs", "unpin", "two-3", *change)
    assert said("runs", "delete", "two-2", "two-3", "--yes", *change) == "deleted 2 runs: two-2, two-3\n"
    assert ids(*read) == ["one-1"]
    left = "SELECT DISTINCT run_id FROM spans UNION ALL SELECT run_id FROM outputs UNION ALL SELECT run_id "
    answer = said("sql", f"{left} FROM run_labels", "-f", "csv", *read)
    assert answer.split() == ["run_id", "one-1", "one-1"]


def test_deleting_asks_on_a_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The runs are shown and the question is put; anything but yes leaves them."""
    with open_runs(None, laid(tmp_path)) as runs:
        fill(runs)
    monkeypatch.setattr("roofleet.commands.runs.is_asked", lambda: True)
    asked = said("runs", "delete", "one", "--data", str(tmp_path), status=1, given="n\n")
    assert "one-1" in asked
    assert len(ids("--data", str(tmp_path))) == 3
    said("runs", "delete", "one", "--data", str(tmp_path), given="y\n")
    assert len(ids("--data", str(tmp_path))) == 2


def test_what_is_said_of_a_run_stays_when_its_row_comes_again(tmp_path: Path) -> None:
    """A run that goes on sends its row again; a tag that was set meanwhile is not lost."""
    with open_runs(None, laid(tmp_path)) as runs:
        runs.write("models", [MODEL])
        runs.label("mine", ["first"])
        runs.write("runs", [run_row("one-1", 0, status="running")])
        runs.deliver()
        said("runs", "tag", "one", "second", "--data", str(tmp_path))
        runs.write("runs", [run_row("one-1", 0)])
        runs.deliver()
    (row,) = json.loads(said("runs", "list", "--json", "--data", str(tmp_path)))
    assert (row["status"], row["run_name"], row["tags"]) == ("done", "mine", ["first", "second"])
