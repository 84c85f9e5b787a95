"""A watched run is never lost and never ends the user's program, whatever is wrong where it should go."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.cli.test_one_folder_for_many import held
from tests.support import collector, laid
from torch import nn

import roofleet
from roofleet.asking.reading import reading
from roofleet.errors import UserError
from roofleet_agent.sending.spool import Spool, run_spool
from roofleet_collector.store import visits


def used(**where: Any) -> Any:
    """A model that was watched for three calls, and its run."""
    model = nn.Linear(2, 2)
    with roofleet.profile(model, "mine", roofs=False, **where) as run:
        for _ in range(3):
            model(torch.ones(1, 2))
    return run


def stored(folder: Path) -> list[dict[str, Any]]:
    """The runs that a folder has when it is next asked."""
    with reading(None, folder) as query:
        return query("SELECT run_id, model_name, status FROM run_summary", ()).to_pylist()


def test_without_duckdb_the_run_is_kept_and_stored_later(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is said when the with statement is entered and again where the run lies; nothing is raised. Once
    duckdb is there, whoever asks the folder finds the run."""
    with pytest.MonkeyPatch.context() as without:
        without.setitem(sys.modules, "duckdb", None)
        run = used(data=str(tmp_path))
        said = capsys.readouterr().err.replace("\n", " ")
        assert "pip install 'roofleet[collector]'" in said.partition("The run is kept in")[0]
        assert said.count("local.sqlite") == 2
        with pytest.raises(UserError, match="duckdb"):
            run.layers()
        assert "duckdb" in repr(run)
        assert run._repr_html_() is None
    assert stored(tmp_path) == [{"run_id": run.run_id, "model_name": "mine", "status": "done"}]


def test_a_store_that_another_process_holds_gets_the_run_later(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a while of waiting the run is kept, and the error of the user's own code is the one that is
    raised."""
    monkeypatch.setattr(visits, "PATIENCE_S", 0.1)
    used(data=str(laid(tmp_path)))
    with held(tmp_path):
        model = nn.Linear(2, 2)

        def evaluate() -> None:
            with roofleet.profile(model, data=str(tmp_path), roofs=False):
                model(torch.ones(1, 2))
                raise ZeroDivisionError("theirs")

        with pytest.raises(ZeroDivisionError):
            evaluate()
    assert "is held by another process" in capsys.readouterr().err.replace("\n", " ")
    assert [row["status"] for row in stored(tmp_path)].count("failed") == 1


def test_without_a_collector_the_run_waits_for_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The warning names the spool and the command that sends it; the next run to that collector takes it
    along."""
    monkeypatch.setenv("ROOFLEET_DATA", str(tmp_path / "own"))
    with collector(tmp_path / "fleet") as running:
        address = running.grpc
    monkeypatch.setattr("roofleet.running.destinations.REACH_S", 0.3)
    used(collector=address)
    said = capsys.readouterr().err.replace("\n", " ")
    assert f"--collector {address}" in said
    spool = Spool(run_spool(tmp_path / "own", address))
    assert spool.count() > 0
    spool.close()


def test_a_folder_that_cannot_be_used_is_said_and_the_run_lies_elsewhere(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other folder is named, and has the run when it is asked."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    (tmp_path / "file").write_text("no folder")
    run = used(data=str(tmp_path / "file" / "data"))
    assert "The run goes on and will be kept elsewhere" in capsys.readouterr().err.replace("\n", " ")
    (folder,) = tmp_path.glob("roofleet-*")
    assert [row["run_id"] for row in stored(folder)] == [run.run_id]


def test_a_run_shows_itself_in_a_notebook(tmp_path: Path) -> None:
    """One block with the summary and a row for each layer, its names escaped; in a terminal a line."""
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    with roofleet.profile(model, "<mine>", data=str(laid(tmp_path)), roofs=False) as run:
        for _ in range(4):
            model(torch.ones(1, 2))
    shown = run._repr_html_()
    assert shown.count("<div") == shown.count("</div>") == 1
    assert "time of a forward" in shown
    assert "2 rows of layers" not in shown
    assert shown.count("<tr>") == 1 + run.layers().num_rows
    assert "&lt;mine&gt;" in shown
    assert "<mine>" not in shown
    assert "4 x forward" in repr(run)
    assert run.run_id in repr(run)


def test_measuring_roofs_draws_none_of_the_users_random_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What torch draws after the with statement is what it would draw without it."""
    monkeypatch.setattr("roofleet.running.runs.Runs.measure_roofs", lambda *_: torch.randn(64))
    drawn = []
    for watched in (False, True):
        model = nn.Linear(2, 2)
        torch.manual_seed(5)
        with roofleet.profile(model, data=str(laid(tmp_path))) if watched else nullcontext():
            model(torch.ones(1, 2))
        drawn.append(torch.rand(4))
    assert torch.equal(*drawn)


def test_the_users_logging_is_left_alone(tmp_path: Path) -> None:
    """No handler is put on the root logger."""
    import logging

    before = list(logging.getLogger().handlers)
    used(data=str(tmp_path))
    assert logging.getLogger().handlers == before
