"""Names that need the hub where there is no network, and what a shell is offered for a word half typed."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from tests.cli.test_runs import MODEL, run_row
from tests.support import roofleet

from roofleet.naming import hub
from roofleet.running.runs import open_runs


@pytest.fixture
def port() -> int:
    """A port on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_a_hub_that_is_away_is_told_before_anything_is_tried(
    port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The warning says why, and a model that the cache does not hold is an error, with the nearest names."""
    for name in ("HTTP_PROXY", "http_proxy"):
        monkeypatch.delenv(name, raising=False)
    place = {"HF_ENDPOINT": f"http://127.0.0.1:{port}", "HF_HUB_OFFLINE": "0", "HF_HUB_CACHE": str(tmp_path)}
    twice = ("--variant", "base", "--variant", "base")
    for command in (("profile",), ("analyze",), ("sweep",), ("compare", *twice, "--run")):
        answer = roofleet(*command, "nobody/gpt2-of-mine", data=tmp_path, **place)
        assert answer.returncode == 2
        assert "the hub does not answer (127.0.0.1: Connection refused)" in answer.stderr
        assert "its cache in" in answer.stderr
        assert "gpt2" in answer.stderr.rpartition("nearest names")[2]


def test_offline_asks_no_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With --offline nothing is connected to."""
    monkeypatch.setattr(hub, "why_away", lambda: pytest.fail("the hub was asked"))
    place = {"HF_HUB_OFFLINE": "0", "HF_HUB_CACHE": str(tmp_path)}
    answer = roofleet("analyze", "nobody/nothing", "--offline", data=tmp_path, **place)
    assert answer.returncode == 2
    assert "the hub is not asked" in answer.stderr


def test_a_hub_or_a_proxy_that_takes_a_connection_is_there(
    port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Behind a proxy it is the proxy that must answer; a name without an address is told as such."""
    for name in ("http_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        here = f"http://127.0.0.1:{listening.getsockname()[1]}"
        monkeypatch.setenv("HF_ENDPOINT", here)
        assert hub.why_away() is None
        monkeypatch.setenv("HF_ENDPOINT", "http://hub.invalid")
        assert "hub.invalid" in str(hub.why_away())
        monkeypatch.setenv("http_proxy", here)
        assert hub.why_away() is None
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{port}")
        assert "127.0.0.1" in str(hub.why_away())


def offered(*words: str, data: Path) -> list[str]:
    """What the shell is offered for the last of the words."""
    place = {"_ROOFLEET_COMPLETE": "complete_bash", "COMP_WORDS": " ".join(("roofleet", *words))}
    return roofleet(data=data, COMP_CWORD=str(len(words)), **place).stdout.split()


def test_the_shell_is_offered_models_hardware_variants_and_runs(tmp_path: Path) -> None:
    """Each by what is typed of it; runs by id and by name; without data nothing is raised into the prompt."""
    assert "gpt2-medium" in offered("analyze", "gpt2", data=tmp_path)
    assert offered("analyze", "gpt2", "--hardware", "h100", data=tmp_path) == ["h100-sxm", "h100-pcie"]
    joined = offered("profile", "gpt2", "--variant", "compile+int4", data=tmp_path)
    assert joined == ["compile+int4-weight-only"]
    assert offered("runs", "show", "o", data=tmp_path) == []
    with open_runs(None, tmp_path) as runs:
        runs.write("models", [MODEL])
        runs.label("older", [])
        runs.write("runs", [run_row("one-1", 0)])
        runs.deliver()
    assert sorted(offered("runs", "show", "o", data=tmp_path)) == ["older", "one-1"]
    assert "latest" in offered("compare", "l", data=tmp_path)
