"""`make bench`: what was measured is kept whatever becomes of the rest."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from benchmarks import run
from benchmarks.figure import Figure


def fast() -> list[Figure]:
    """A benchmark whose goal is kept."""
    return [Figure("fast", "ratio", 0.5, goal=1.0)]


def broken() -> list[Figure]:
    """A benchmark that ends as an assertion in the code it measures does."""
    raise AssertionError("rounds were left out\nwhere there is no loop")


def stopped() -> list[Figure]:
    """A benchmark during which somebody presses Ctrl-C."""
    raise KeyboardInterrupt


def parts(monkeypatch: pytest.MonkeyPatch, **measures: Callable[[], list[Figure]]) -> None:
    """The bench has these parts and no others."""
    monkeypatch.setattr(run, "BENCHMARKS", tuple(measures))
    monkeypatch.setattr(run, "measure", lambda name: measures[name]())


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures are written where the bench is run."""
    monkeypatch.chdir(tmp_path)


def written() -> dict[str, Any]:
    """What the bench has written."""
    found: dict[str, Any] = json.loads(Path("bench.json").read_text())
    return found


def test_a_part_that_fails_is_a_line_and_the_others_go_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each part is announced, the one that fails is told with its reason and in the exit status, and the
    figures of the others are there."""
    parts(monkeypatch, first=fast, second=broken, third=fast)
    assert run.main([]) == 1
    said = capsys.readouterr().out
    for announced in ("1 of 3: first", "2 of 3: second", "3 of 3: third"):
        assert announced in said
    assert "AssertionError: rounds were left out" in said
    assert said.count("kept") == 2
    assert len(written()["figures"]) == 2
    assert written()["failed"] == {"second": "AssertionError: rounds were left out"}


def test_figures_of_parts_that_are_not_asked_for_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    """Naming one part measures that one, and leaves the others in the file."""
    other = Figure("other", "ratio", 0.1)
    parts(monkeypatch, fast=fast, other=lambda: [other])
    assert run.main([]) == 0
    assert run.main(["fast"]) == 0
    assert sorted(figure["benchmark"] for figure in written()["figures"]) == ["fast", "other"]


def test_an_interrupt_keeps_what_was_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C ends the bench; parts before it are written, and those after it are named."""
    parts(monkeypatch, first=fast, second=stopped, third=fast)
    assert run.main([]) == 130
    assert len(written()["figures"]) == 1
    assert written()["failed"] == {"second": "interrupted", "third": "interrupted"}


def test_every_part_can_be_imported() -> None:
    """A part that follows the code it measures no more is found before somebody waits for it."""
    for name in run.BENCHMARKS:
        assert callable(import_module(f"benchmarks.{name}").measure)
