"""The bare install: an agent where there is neither torch nor a store."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.processes import running
from tests.support import collector, eventually

from roofleet.api.client import connect

BARE = (
    "import sys; sys.modules.update(dict.fromkeys(('torch', 'transformers', 'duckdb', 'dash', 'pynvml')))\n"
    "from roofleet.main import run; sys.argv[0] = 'roofleet'; run()"
)
"""The command as it is where only the bare package is installed."""


def test_the_bare_install_runs_an_agent(tmp_path: Path) -> None:
    """Host and processors are registered, readings come, and the agent ends cleanly."""
    with collector(tmp_path / "data") as holder:
        command = ["-c", BARE, "agent", "--collector", holder.grpc, "--data", str(tmp_path / "agent")]
        with running(*command, stdout=subprocess.DEVNULL) as agent, connect(holder.sql) as fleet:
            seen = "SELECT device_kind FROM fleet_status JOIN readings USING (device_id) WHERE is_online"
            eventually(lambda: set(fleet.sql(seen).column(0).to_pylist()) == {"cpu"})
            agent.terminate()
            assert agent.wait() == 0


def test_the_bare_install_says_what_running_a_model_needs(tmp_path: Path) -> None:
    """One line names what to install, and nothing is promised before it."""
    command = ["-c", BARE, "profile", "gpt2", "--data", str(tmp_path)]
    with running(*command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        _, said = process.communicate()
    assert process.returncode == 2
    assert said == "error: this needs torch, which is not installed: pip install 'roofleet[agent]'\n"
