"""The bare install: an agent where there is neither torch nor a store."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from tests.processes import running
from tests.support import collector, eventually

from roofleet.api.client import connect

WITHOUT = (
    "import sys; sys.modules.update(dict.fromkeys({}))\n"
    "from roofleet.main import run; sys.argv[0] = 'roofleet'; run()"
)
BARE = WITHOUT.format(("torch", "transformers", "numpy", "pandas", "duckdb", "dash", "pynvml"))
"""The command as it is where only the bare package is installed."""
COLLECTOR = WITHOUT.format(("torch", "transformers", "numpy", "pandas", "dash", "pynvml", "cryptography"))
"""The same with the extra of a collector."""


def test_the_bare_install_runs_an_agent(tmp_path: Path) -> None:
    """Host and processors are registered, readings come, and the agent ends cleanly."""
    with collector(tmp_path / "data") as holder:
        command = ["-c", BARE, "agent", "--collector", holder.grpc, "--data", str(tmp_path / "agent")]
        with running(*command, stdout=subprocess.DEVNULL) as agent, connect(holder.sql) as fleet:
            seen = "SELECT device_kind FROM fleet_status JOIN readings USING (device_id) WHERE is_online"
            eventually(lambda: set(fleet.sql(seen).column(0).to_pylist()) == {"cpu"})
            agent.terminate()
            assert agent.wait() == 0


def test_a_collector_needs_its_own_extra_alone(tmp_path: Path) -> None:
    """Rows are checked, stored and asked for where there is neither numpy nor torch; none is set aside."""
    command = ["-c", COLLECTOR, "collector", "--grpc", "127.0.0.1:0", "--sql", "127.0.0.1:0"]
    log = (tmp_path / "log").open("w")
    with running(*command, "--data", str(tmp_path / "data"), stdout=subprocess.PIPE, stderr=log) as holder:
        assert holder.stdout is not None
        found = re.search(r"gRPC on (\S+), Flight SQL on (\S+),", holder.stdout.readline())
        assert found
        sends = ["-c", BARE, "agent", "--collector", found[1], "--data", str(tmp_path / "agent")]
        with running(*sends, stdout=subprocess.DEVNULL) as agent, connect(found[2]) as fleet:
            seen = "SELECT count(*) > 0 FROM fleet_status JOIN readings USING (device_id)"
            eventually(lambda: fleet.sql(seen).column(0).to_pylist() == [True])
            assert fleet.sql("SELECT count(*) FROM rejected_rows").column(0).to_pylist() == [0]
            agent.terminate()
            agent.wait()
        holder.terminate()
        holder.wait()
    log.close()
    assert "could not be worked" not in (tmp_path / "log").read_text()


def test_the_bare_install_says_what_running_a_model_needs(tmp_path: Path) -> None:
    """One line names what to install, and nothing is promised before it."""
    command = ["-c", BARE, "profile", "gpt2", "--data", str(tmp_path)]
    with running(*command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        _, said = process.communicate()
    assert process.returncode == 2
    assert said == "error: this needs torch, which is not installed: pip install 'roofleet[agent]'\n"


def test_a_folder_has_one_agent(tmp_path: Path) -> None:
    """A second one is refused with the first one's process; after that was killed it may begin."""
    command = ["-c", BARE, "agent", "--collector", "127.0.0.1:9", "--data", str(tmp_path)]
    with running(*command, stdout=subprocess.DEVNULL) as agent:
        eventually(lambda: (tmp_path / "agent.lock").exists() and (tmp_path / "agent.lock").read_text())
        with running(*command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as second:
            _, said = second.communicate(timeout=120)
        assert second.returncode == 2
        assert f"(process {(tmp_path / 'agent.lock').read_text().strip()})" in said
        agent.kill()
        agent.wait()
    with running(*command, stdout=subprocess.PIPE) as third:
        assert third.stdout is not None
        assert "sending to" in third.stdout.readline()
