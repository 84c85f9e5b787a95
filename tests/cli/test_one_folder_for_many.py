"""One data folder used by several at once: an attached agent, runs, queries, and whoever holds the store."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.processes import running
from tests.support import TINY_GPT2, collector, eventually, laid, roofleet_process, spans, used
from transformers import AutoModelForCausalLM, GPT2Config
from typer.testing import CliRunner, Result

from roofleet.api.client import connect
from roofleet.errors import UNREACHABLE, UserError
from roofleet.main import app
from roofleet.running.runs import open_runs
from roofleet_agent.sending.spool import Spool, run_spool
from roofleet_collector.store import visits

QUICK = ("--prompt-tokens", "8", "--new-tokens", "4", "--iterations", "2", "--warmup", "0")
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny GPT-2 as save_pretrained writes it."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    config = GPT2Config(**{k: v for k, v in TINY_GPT2.items() if k != "model_type"})
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return folder


@pytest.fixture(autouse=True)
def quick_roofs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Roofs are not the point here."""
    monkeypatch.setattr("roofleet.running.runs.Runs.measure_roofs", lambda self, device, show: None)


def here(*arguments: str) -> Result:
    """The command in this process."""
    return CliRunner().invoke(app, arguments)


def asked(folder: Path, query: str) -> list[dict[str, Any]]:
    """What `roofleet sql` answers over a folder."""
    answer = here("sql", query, "--data", str(folder), "-f", "json")
    assert answer.exit_code == 0, answer.output
    rows: list[dict[str, Any]] = json.loads(answer.stdout)
    return rows


@contextmanager
def attached_agent(address: str, folder: Path) -> Iterator[None]:
    """A real `roofleet agent`."""
    command = ["-m", "roofleet", "agent", "--collector", address, "--data", str(folder)]
    with running(*command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        yield
        process.terminate()
        process.wait()


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """The store of a folder, held by another process."""
    code = (
        "import sys; from pathlib import Path; from roofleet_collector.store import DuckDBStore\n"
        "store = DuckDBStore(Path(sys.argv[1])); print('held', flush=True); sys.stdin.read(); store.close()"
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with running("-c", code, str(folder), **pipes) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield
        process.communicate()


def test_a_local_run_beside_an_attached_agent_stays_whole_and_here(tiny: Path, tmp_path: Path) -> None:
    """With an agent attached on the same folder a run is stored in the folder, done and with its times, and
    nothing of it reaches the fleet; what an older release left in the agent's spool does."""
    folder = tmp_path / "data"
    old = Spool(folder / "spool.sqlite")
    old.write("spans", spans(10, "older"))
    old.close()
    with collector(tmp_path / "fleet") as holder, attached_agent(holder.grpc, folder):
        with connect(holder.sql) as fleet:

            def there(what: str) -> int:
                return int(fleet.sql(f"SELECT count(*) FROM {what}").column(0)[0].as_py())

            eventually(lambda: there("readings") > 0)
            answer = here("profile", str(tiny), "--data", str(folder), *QUICK)
            assert answer.exit_code == 0, answer.output
            after = there("readings")
            eventually(lambda: there("readings") > after)  # the agent has looked into its spool since
            assert there("runs") == 0
            assert there("spans") == 10
    summary = "SELECT status, time_per_output_token_ns > 0 AS timed FROM run_summary"
    assert asked(folder, summary) == [{"status": "done", "timed": True}]


def test_what_was_kept_for_a_collector_is_sent_by_its_agent_alone(tmp_path: Path) -> None:
    """A run that its collector did not take in time is sent by the agent of that collector, not of others."""
    folder = tmp_path / "data"
    with collector(tmp_path / "one") as one, collector(tmp_path / "two") as two:
        for run in (one, two):
            spool = Spool(run_spool(folder, run.grpc))
            spool.write("spans", spans(5, run.grpc))
            spool.close()
        with attached_agent(one.grpc, folder), connect(one.sql) as here, connect(two.sql) as elsewhere:
            found = "SELECT run_id FROM spans UNION SELECT 'read' FROM readings"
            eventually(lambda: set(here.sql(found).column(0).to_pylist()) == {one.grpc, "read"})
            assert elsewhere.sql(found).num_rows == 0


def test_two_profiles_and_a_query_share_a_folder(tiny: Path, tmp_path: Path) -> None:
    """While one run is under way another is made and stored, and SQL is answered, all on one folder."""
    with open_runs(None, used(tmp_path)) as runs:
        runs.sink.write("spans", spans(7, "first"))
        runs.deliver()
        second = roofleet_process("profile", str(tiny), *QUICK, data=tmp_path)
        assert second.returncode == 0, second.stderr
        counted = roofleet_process("sql", "SELECT count(*) AS n FROM runs", "-f", "csv", data=tmp_path)
        assert counted.stdout == "n\n1\n", counted.stderr
        runs.sink.write("spans", spans(7, "first", first=7))
        runs.deliver()
    assert asked(tmp_path, "SELECT count(*) AS n FROM spans WHERE run_id = 'first'") == [{"n": 14}]


def test_many_processes_take_turns_at_a_store(tmp_path: Path) -> None:
    """Four processes that each store and read five times at once lose nothing and refuse nobody."""
    code = (
        "import sys; from pathlib import Path; from tests.support import spans\n"
        "from roofleet_collector.store import Append; from roofleet_collector.store.visits import visited\n"
        "for turn in range(5):\n"
        "    with visited(Path(sys.argv[1])).writing() as store:\n"
        "        store.append(Append({'spans': spans(3)}, (sys.argv[2], 1, turn + 1))).result()\n"
        "    visited(Path(sys.argv[1])).query('SELECT count(*) FROM spans')\n"
    )
    with ExitStack() as stack:
        processes = [
            stack.enter_context(running("-c", code, str(tmp_path), str(n), cwd=ROOT)) for n in range(4)
        ]
        assert [process.wait() for process in processes] == [0, 0, 0, 0]
    assert asked(tmp_path, "SELECT count(*) AS n FROM spans") == [{"n": 60}]


def test_a_run_whose_store_is_held_too_long_is_kept_and_stored_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a bounded wait the error says who holds the store and where the run is; a query stores it."""
    monkeypatch.setattr(visits, "PATIENCE_S", 0.1)
    with held(laid(tmp_path)), open_runs(None, tmp_path) as runs:
        runs.sink.write("spans", spans(7))
        with pytest.raises(UserError, match=r"held by another process \(\d+\)(.|\n)*local.sqlite") as error:
            runs.deliver()
        assert error.value.status == UNREACHABLE
    assert asked(tmp_path, "SELECT count(*) AS n FROM spans") == [{"n": 7}]


def test_a_run_without_duckdb_is_kept_with_a_warning_before_it_begins(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The warning says what to install, the run is made and kept, and stored once duckdb is there."""
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "duckdb", None)
        answer = here("profile", str(tiny), "--data", str(tmp_path), *QUICK)
    assert isinstance(answer.exception, UserError)
    assert answer.exception.status == UNREACHABLE
    assert answer.stderr.startswith("warning: this needs duckdb")
    assert asked(tmp_path, "SELECT status FROM runs") == [{"status": "done"}]


def test_what_profiles_can_store() -> None:
    """The extra `agent` brings the store along."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert "roofleet[collector]" in extras["agent"]
    assert any(line.startswith("duckdb") for line in extras["collector"])
