"""The pages on the Python API and on factories say what works."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

import roofleet
from roofleet.api.formulas import forget
from roofleet.api.watched import Watched
from roofleet_agent.engines.factory import made_by

DOCS = Path(__file__).parents[2] / "docs"


def blocks(page: str) -> list[str]:
    """The Python code of a page, but for what needs a collector."""
    found = re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(), re.DOTALL)
    return [block for block in found if "collector-host" not in block]


def test_the_code_of_the_python_page_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each block as it stands, in the order of the page, gives what the page says."""
    monkeypatch.setenv("ROOFLEET_DATA", str(tmp_path))
    monkeypatch.setattr("roofleet.running.runs.Runs.measure_roofs", lambda self, device, show: None)
    names: dict[str, Any] = {}
    try:
        for block in blocks("python-api.md"):
            exec(block, names)
    finally:
        forget("mylib::scan")
    assert "time of a forward" in capsys.readouterr().out
    assert names["layers"].num_rows == names["slow"].num_rows == 4


def test_what_a_run_has_is_on_the_page() -> None:
    """Every public name of a run and of the package is named there, and no other."""
    page = (DOCS / "python-api.md").read_text()
    public = {name for name in vars(Watched) if not name.startswith("_")}
    assert set(re.findall(r"`run\.(\w+)", page)) == public
    assert all(f"`{name}`" in page or f"roofleet.{name}" in page for name in roofleet.__all__)


def test_the_factories_of_the_page_can_be_profiled(tmp_path: Path) -> None:
    """Put into a file they give a module that takes the inputs they give."""
    file = tmp_path / "nets.py"
    file.write_text(blocks("factories.md")[0])
    for name in ("make", "make_with_names"):
        module, inputs = made_by(f"{file}:{name}")
        output = module(**inputs) if isinstance(inputs, dict) else module(inputs)
        assert output.shape[0] == 8


def test_the_readme_leads_to_both_pages() -> None:
    """And says that backward is not profiled."""
    readme = (DOCS.parent / "README.md").read_text()
    assert "(docs/python-api.md)" in readme
    assert "(docs/factories.md)" in readme
    assert "Backward is not profiled" in readme
