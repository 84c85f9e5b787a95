"""The `roofleet` command as its users meet it: results, exit statuses, and mistakes in one line."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import socket
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow.parquet as parquet
import pytest
from tests.processes import end, start
from tests.support import (
    TINY_GPT2,
    collector,
    eventually,
    roofed,
    roofleet,
    start_collector,
    start_roofleet,
    used,
)
from transformers import AutoModelForCausalLM, GPT2Config

from roofleet.running.destinations import REACH_S
from roofleet_agent.sending.spool import Spool, run_spool

QUICK = ("--prompt-tokens", "8", "--new-tokens", "4", "--iterations", "2", "--warmup", "0")
COMMANDS = (
    "profile",
    "analyze",
    "sweep",
    "demo",
    "collector",
    "agent",
    "dashboard",
    "sql",
    "models",
    "hardware",
)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny GPT-2 as save_pretrained writes it."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    config = GPT2Config(**{k: v for k, v in TINY_GPT2.items() if k != "model_type"})
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory, tiny: Path) -> Path:
    """A data folder with one run of it, made by the command itself, which measured roofs for it in haste."""
    folder = tmp_path_factory.mktemp("data")
    with pytest.MonkeyPatch.context() as hasty:
        hasty.setattr("roofleet_agent.roofs.measured.MEASURE_S", 0.0)
        answer = roofleet("profile", str(tiny), "--data", str(folder), *QUICK, "--json", data=folder)
    assert answer.returncode == 0, answer.stderr
    assert (folder / "roofs.json").exists()
    roofed(folder)
    (folder / "row.json").write_text(answer.stdout)
    return folder


def mistake(answer: subprocess.CompletedProcess[str], status: int = 2) -> str:
    """The message of a user's mistake: one error, the right status, no trace."""
    assert answer.returncode == status, answer.stdout + answer.stderr
    assert "Traceback" not in answer.stdout + answer.stderr
    return answer.stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_its_options_explained(command: str, tmp_path: Path) -> None:
    """--help ends with status 0, and every option has a text."""
    answer = roofleet(command, "--help", data=tmp_path, COLUMNS="200")
    assert answer.returncode == 0
    assert "Usage: roofleet" in answer.stdout
    for line in answer.stdout.splitlines():
        if line.strip("│ ").startswith("--"):
            assert len(line.strip("│ ").split()) > 3, line


@pytest.mark.parametrize("arguments", [["--help"], ["agent", "--help"], ["profile", "--help"]])
def test_help_imports_nothing_heavy(arguments: list[str], tmp_path: Path) -> None:
    """Help is there without torch, pandas, transformers, dash or duckdb."""
    code = (
        "import sys\nsys.argv = ['roofleet', *sys.argv[1:]]\nfrom roofleet.main import run\n"
        "try: run()\nexcept SystemExit: pass\n"
        "heavy = {'torch', 'pandas', 'transformers', 'dash', 'duckdb', 'grpc'} & set(sys.modules)\n"
        "print('heavy:', sorted(heavy))"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True
    )
    assert "heavy: []" in answer.stdout


def test_profile_prints_the_row_of_run_summary(data: Path) -> None:
    """--json is one object with the columns of the view, and nothing else on standard output."""
    row = json.loads((data / "row.json").read_text())
    view = json.loads(roofleet("sql", "SELECT * FROM run_summary", "--format", "json", data=data).stdout)[0]
    assert row == view
    assert row["status"] == "done"
    assert row["weights"] == "pretrained"
    assert row["time_per_output_token_ns"] > 0
    assert row["layer_time_coverage"] is None or row["layer_time_coverage"] > 0  # unknown under load
    assert row["unknown_ops"] == 0


def test_profile_prints_a_summary_for_people(tiny: Path, data: Path) -> None:
    """Without --json: latency, throughput, memory, utilisation, overhead, coverage and the slowest layers."""
    answer = roofleet("profile", str(tiny), *QUICK, data=data)
    assert answer.returncode == 0, answer.stderr
    for words in (
        "time to first token",
        "time per output token",
        "tokens/s",
        "peak memory",
        "FLOPs utilization",
        "bandwidth utilization",
        "instrumentation overhead",
        "explained by layers",
        "slowest layers",
        "bound",
    ):
        assert words in answer.stdout
    assert "\x1b[" not in answer.stdout
    assert "storing" in answer.stderr


@pytest.mark.slow
def test_analyze_prints_one_object(tmp_path: Path) -> None:
    """--json has the figures of each phase and the lower bounds on the hardware asked for."""
    answer = roofleet(
        "analyze",
        "llama-2-7B",
        "--prompt-tokens",
        "2048",
        "--logits",
        "all",
        "--json",
        "--hardware",
        "H100 SXM",
        "--hardware",
        "mi300x",
        data=tmp_path,
    )
    assert answer.returncode == 0, answer.stderr
    found = json.loads(answer.stdout)
    assert found["model"] == "Llama-2-7b"
    assert found["parameters"] == 6_738_415_616
    assert found["kv_bytes_per_token"] == 524_288
    assert found["phases"]["prefill"]["matmul_flops"] == 29_261_612_187_648
    assert found["phases"]["decode"]["matmul_flops"] == 14_288_420_864 + 15 * 4 * 4096 * 32
    assert [h["name"] for h in found["hardware"]] == ["h100-sxm", "mi300x"]
    bounds = found["hardware"][0]["phases"]
    assert (bounds["prefill"]["bound"], bounds["decode"]["bound"]) == ("compute", "memory")


def test_analyze_prints_tables_for_people(tmp_path: Path) -> None:
    """Without --json: parameters, phases and lower bounds."""
    answer = roofleet("analyze", "gpt2", data=tmp_path)
    assert answer.returncode == 0
    for words in ("124,439,808", "prefill", "decode", "h100-sxm", "at least"):
        assert words in answer.stdout


@pytest.mark.parametrize(
    ("model", "says"),
    [
        ("gpt3", "Did you mean gpt2"),
        ("lama-2-7b", "Llama-2-7b"),
        ("no/such-model", "could not be loaded"),
        ("./no/such/folder", "there is no model"),
        ("no_package:factory", "package.module:factory"),
    ],
)
@pytest.mark.parametrize("command", ["profile", "analyze"])
def test_a_model_that_does_not_exist_is_a_mistake(
    command: str, model: str, says: str, tmp_path: Path
) -> None:
    """The message names what was given and offers the nearest names."""
    extra = ["--data", str(tmp_path)] if command == "profile" else []
    (tmp_path / "roofs.json").write_text("{}")
    error = mistake(roofleet(command, model, *extra, data=tmp_path))
    assert says in error
    assert model.split("/")[-1].split(":")[0] in error


def test_a_folder_without_safetensors_is_refused_with_advice(tmp_path: Path) -> None:
    """Pickled weights can run code: they are not read, and the message says how to convert."""
    GPT2Config(n_layer=1, n_embd=8, n_head=1, vocab_size=11).save_pretrained(tmp_path / "m")
    (tmp_path / "m" / "pytorch_model.bin").write_bytes(b"x")
    error = mistake(roofleet("profile", str(tmp_path / "m"), *QUICK, data=tmp_path))
    assert "safetensors" in error
    assert "save_pretrained" in error


def test_hardware_that_does_not_exist_is_a_mistake(tmp_path: Path) -> None:
    """The nearest names are offered."""
    assert "h100" in mistake(roofleet("analyze", "gpt2", "--hardware", "h1000", data=tmp_path))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["profile", "gpt2", "--collector", "localhost"], "HOST:PORT"),
        (["profile", "gpt2", "--collector", "h:1", "--data", "x"], "not both"),
        (["profile", "gpt2", "--device", "cuda:9"], "no device 'cuda:9'"),
        (["profile", "gpt2", "--prompt-tokens", "2000"], "positions for 1024"),
        (["profile", "gpt2", "--prompt", "hello"], "tokenizer"),
        (["profile", "gpt2", "--prompt", "hello", "--prompt-tokens", "8"], "not both"),
        (["analyze", "gpt2", "--prompt", "hello", "--prompt-tokens", "8"], "not both"),
        (["profile", "gpt2", "--dtype", "int3"], "int3"),
        (["profile", "gpt2", "--batch-size", "0"], "batch-size"),
        (["sql", "SELECT 1", "--server", "h:1", "--data", "x"], "not both"),
        (["sql", "SELECT 1", "--format", "xml"], "xml"),
        (["nothing"], "nothing"),
    ],
)
def test_a_wrong_option_is_a_mistake(arguments: list[str], says: str, data: Path) -> None:
    """Status 2, a message with the offending value, and no trace."""
    assert says in mistake(roofleet(*arguments, data=data, COLUMNS="200"))


@pytest.mark.slow
def test_a_collector_that_is_not_there_keeps_the_run(tiny: Path, tmp_path: Path) -> None:
    """The warning comes within five seconds of asking, the run stays in the spool with status 3, and the next
    profile that reaches the collector sends both."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    used(tmp_path)
    away = roofleet("profile", str(tiny), "--collector", address, *QUICK, data=tmp_path)
    assert away.returncode == 3
    assert REACH_S < 5
    assert f"no collector answers at {address}" in away.stderr.splitlines()[0]  # before anything is loaded
    assert "kept in" in away.stderr
    assert "Traceback" not in away.stderr
    spool = Spool(run_spool(tmp_path, address))
    assert spool.count() > 0
    running = start_collector(tmp_path / "collector", address)
    try:
        answer = roofleet("profile", str(tiny), "--collector", running.grpc, *QUICK, "--json", data=tmp_path)
        assert answer.returncode == 0, answer.stderr
        found = roofleet(
            "sql",
            "SELECT count(*) AS runs FROM run_summary WHERE status = 'done'",
            "--format",
            "json",
            "--server",
            running.sql,
            data=tmp_path,
        )
        assert json.loads(found.stdout) == [{"runs": 2}]
    finally:
        running.terminate()
    assert spool.count() == 0


def test_profile_uses_the_collector_that_holds_the_folder(tiny: Path, data: Path, tmp_path: Path) -> None:
    """With --data of a running collector the run goes through it, and so does sql."""
    with collector(used(tmp_path)) as running:
        answer = roofleet("profile", str(tiny), "--data", str(tmp_path), *QUICK, "--json", data=data)
        assert answer.returncode == 0, answer.stderr
        found = roofleet(
            "sql", "SELECT count(*) AS n FROM runs", "-f", "json", "--data", str(tmp_path), data=data
        )
        assert json.loads(found.stdout) == [{"n": 1}]
        assert running.process.poll() is None


@pytest.mark.parametrize("which", ["--grpc", "--sql"])
def test_a_port_in_use_is_a_mistake(which: str, tmp_path: Path) -> None:
    """A collector that cannot listen names the address."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        other = "--sql" if which == "--grpc" else "--grpc"
        error = mistake(
            roofleet(
                "collector", which, address, other, "127.0.0.1:0", "--data", str(tmp_path), data=tmp_path
            )
        )
    assert address in error


def test_a_dashboard_that_cannot_listen_is_a_mistake(tmp_path: Path) -> None:
    """A port that is taken and a host that is not there are named, without a trace."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        assert address in mistake(roofleet("dashboard", "--listen", address, data=tmp_path))
    error = mistake(roofleet("dashboard", "--listen", "nohost.invalid:7702", data=tmp_path))
    assert "nohost.invalid is no address" in error


def test_two_collectors_do_not_share_a_folder(tmp_path: Path) -> None:
    """The second says who holds the data."""
    with collector(tmp_path):
        error = mistake(
            roofleet(
                "collector",
                "--grpc",
                "127.0.0.1:0",
                "--sql",
                "127.0.0.1:0",
                "--data",
                str(tmp_path),
                data=tmp_path,
            )
        )
    assert "held by another process" in error


SQL_REFUSED = (
    "DELETE FROM runs",
    "INSERT INTO runs SELECT * FROM runs",
    "WITH x AS (DELETE FROM runs RETURNING *) SELECT * FROM x",
    "SELECT * FROM read_csv('/etc/passwd')",
    "SELECT * FROM '/etc/passwd'",
    "ATTACH ':memory:' AS other",
    "INSTALL httpfs",
    "LOAD httpfs",
    "SET memory_limit = '1GB'",
    "COPY runs TO '/tmp/stolen.csv'",
    "SELECT 1; SELECT 2",
    "SELECT getenv('HOME')",
)


@pytest.mark.parametrize("statement", SQL_REFUSED)
def test_sql_that_does_more_than_read_is_refused(statement: str, data: Path) -> None:
    """Writing, reading files, attaching, installing and setting: refused, with the engine's or our reason."""
    assert "error:" in mistake(roofleet("sql", statement, data=data))


def test_a_sql_error_is_the_engines_message(data: Path) -> None:
    """On the file and through a collector the message is the engine's own, with no driver's words around."""
    on_file = mistake(roofleet("sql", "SELECT nope FROM runs", data=data))
    assert "Binder Error" in on_file
    with collector(data) as running:
        by_flight = mistake(roofleet("sql", "SELECT nope FROM runs", "--server", running.sql, data=data))
        refused = mistake(roofleet("sql", "DELETE FROM runs", "--server", running.sql, data=data))
    assert by_flight == on_file
    assert "FlightSQL" not in refused


def test_sql_without_a_collector_at_the_address_says_so(tmp_path: Path) -> None:
    """Status 3, and what to do."""
    error = mistake(roofleet("sql", "SELECT 1", "--server", "127.0.0.1:9", data=tmp_path), status=3)
    assert "no collector answers SQL at 127.0.0.1:9" in error


def test_sql_on_an_empty_folder_says_what_to_do_first(tmp_path: Path) -> None:
    """A folder without data is not made into one by asking."""
    assert "roofleet profile" in mistake(roofleet("sql", "SELECT 1", data=tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_columns_of_one_name_are_all_written(data: Path) -> None:
    """As CSV by position, as JSON with a number; what JSON cannot say is null."""

    def answer(form: str) -> str:
        return roofleet("sql", "SELECT 1 AS a, 2 AS a, 1.0/0 AS b", "-f", form, data=data).stdout

    assert answer("csv").splitlines() == ["a,a,b", "1,2,inf"]
    assert json.loads(answer("json")) == [{"a": 1, "a_2": 2, "b": None}]
    assert answer("table").count("2") == 1


def test_a_killed_collectors_note_misleads_nobody(data: Path) -> None:
    """A note of a collector that is gone, under a process number that is another's, is passed over."""
    note = data / "collector.json"
    note.write_text(json.dumps({"pid": os.getpid(), "grpc": "127.0.0.1:9", "sql": "127.0.0.1:9"}))
    try:
        assert roofleet("sql", "SELECT 1 AS a", "-f", "csv", data=data).stdout == "a\n1\n"
    finally:
        note.unlink()


def test_a_collector_listens_on_ipv6(tmp_path: Path) -> None:
    """Addresses in brackets serve gRPC and SQL, and the note in the folder can be used."""
    with socket.socket(socket.AF_INET6) as probe:
        try:
            probe.bind(("::1", 0))
        except OSError:
            pytest.skip("this machine has no IPv6")
    running = start_collector(tmp_path, "[::1]:0", "[::1]:0")
    try:
        assert running.sql.startswith("[::1]:")
        for place in (["--server", running.sql], ["--data", str(tmp_path)]):
            assert roofleet("sql", "SELECT 1 AS a", "-f", "csv", *place, data=tmp_path).stdout == "a\n1\n"
    finally:
        assert running.terminate() == 0


@pytest.mark.parametrize("command", ["collector", "agent", "profile", "sql"])
def test_a_data_folder_that_cannot_be_used_is_a_mistake(command: str, tiny: Path, tmp_path: Path) -> None:
    """A file where a folder is expected is named, with no trace."""
    file = tmp_path / "file"
    file.write_text("")
    arguments = {"profile": [str(tiny), *QUICK], "sql": ["SELECT 1"]}.get(command, [])
    error = mistake(roofleet(command, *arguments, data=file))
    assert str(file) in error


def test_data_that_is_no_database_is_a_mistake(tmp_path: Path) -> None:
    """The file is named, and left as it is."""
    (tmp_path / "roofleet.duckdb").write_text("not a database")
    assert "roofleet.duckdb" in mistake(roofleet("sql", "SELECT 1", data=tmp_path))
    assert (tmp_path / "roofleet.duckdb").read_text() == "not a database"


@pytest.mark.slow
def test_a_model_that_does_not_fit_is_refused_with_the_numbers(tmp_path: Path) -> None:
    """405 billion parameters in fp32 are 1.5 TiB: said before anything is loaded."""
    error = mistake(roofleet("profile", "Llama-3.1-405B", data=tmp_path))
    assert "1511.9 for its weights" in error
    assert "roofleet analyze" in error


def test_sql_writes_every_format(data: Path, tmp_path: Path) -> None:
    """Table, CSV, JSON and Parquet hold the same rows."""
    statement = "SELECT path, layer_index, is_leaf FROM layers ORDER BY layer_index"

    def answer(*arguments: str) -> str:
        done = roofleet("sql", statement, *arguments, data=data)
        assert done.returncode == 0, done.stderr
        return done.stdout

    rows: list[dict[str, Any]] = json.loads(answer("--format", "json"))
    assert len(rows) > 10
    listed = list(csv.DictReader(io.StringIO(answer("--format", "csv"))))
    assert [(r["path"], int(r["layer_index"])) for r in listed] == [
        (r["path"], r["layer_index"]) for r in rows
    ]
    file = tmp_path / "layers.parquet"
    answer("--format", "parquet", "--output", str(file))
    assert parquet.read_table(file).to_pylist() == rows
    answer("--output", str(tmp_path / "by_suffix.parquet"))
    assert parquet.read_table(tmp_path / "by_suffix.parquet").to_pylist() == rows
    answer("--output", str(tmp_path / "by_suffix.json"))
    assert json.loads((tmp_path / "by_suffix.json").read_text()) == rows
    refused = roofleet("sql", statement, "--output", str(tmp_path / "layers.xyz"), data=data)
    assert refused.returncode == 2
    assert "--format" in refused.stderr
    table = answer("--format", "table")
    assert all(row["path"] in table for row in rows)
    answer("--output", str(tmp_path / "table.txt"))
    assert "transformer.wte" in (tmp_path / "table.txt").read_text()


def test_the_catalogues_are_listed_with_a_filter(tmp_path: Path) -> None:
    """A filter selects, --json is for scripts, and a filter that fits nothing has status 1."""
    models = json.loads(roofleet("models", "llama-3.1", "--json", data=tmp_path).stdout)
    assert {m["name"] for m in models} == {"Llama-3.1-8B", "Llama-3.1-70B", "Llama-3.1-405B"}
    chips = json.loads(roofleet("hardware", "tpu", "--json", data=tmp_path).stdout)
    assert {c["name"] for c in chips} >= {"tpu-v4", "tpu-v5e", "tpu-v5p", "tpu-v6e"}
    assert "gpt2-xl" in roofleet("models", data=tmp_path).stdout
    assert "3.35 TB/s" in roofleet("hardware", "h100-sxm", data=tmp_path).stdout
    assert roofleet("models", "zzz", data=tmp_path).returncode == 1


@pytest.mark.slow
def test_an_interrupted_run_is_stored_as_cancelled(tiny: Path, data: Path) -> None:
    """Ctrl-C ends with status 130 and no trace, and the run is not left running."""
    process = start_roofleet(
        *("profile", str(tiny), "--iterations", "100000", "--prompt-tokens", "8", "--new-tokens", "4"),
        data=data,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        assert process.stderr is not None
        for line in process.stderr:
            if "measuring" in line or "warm-up" in line:
                break
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=120)
    finally:
        end(process)
    assert process.returncode == 130
    assert "cancelled" in error
    assert "Traceback" not in error
    found = json.loads(
        roofleet(
            "sql", "SELECT status, count(*) AS n FROM runs GROUP BY status", "-f", "json", data=data
        ).stdout
    )
    assert {row["status"] for row in found} == {"done", "cancelled"}


@pytest.mark.slow
def test_an_agent_registers_reads_and_survives_its_collector(tmp_path: Path) -> None:
    """It attaches, sends readings, waits while the collector is away, and goes on when it is back."""
    with collector(tmp_path / "data") as running:
        agent = start(
            *("-m", "roofleet", "agent", "--collector", running.grpc, "--data", str(tmp_path / "agent")),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.STDOUT,
        )
        try:

            def readings(where: str = "true") -> int:
                asked = f"SELECT count(*) AS n FROM readings WHERE {where}"
                answer = roofleet("sql", asked, "-f", "json", "--server", running.sql, data=tmp_path)
                return int(json.loads(answer.stdout)[0]["n"]) if answer.returncode == 0 else -1

            eventually(lambda: readings() >= 2)
            seen = roofleet(
                "sql",
                "SELECT is_online, device_kind FROM fleet_status",
                "-f",
                "json",
                "--server",
                running.sql,
                data=tmp_path,
            )
            assert {"is_online": True, "device_kind": "cpu"} in json.loads(seen.stdout)
            running.kill()
            killed = datetime.now(UTC)
            time.sleep(3)  # it reads once a second while nobody listens
            back = datetime.now(UTC)
            again = start_collector(tmp_path / "data", running.grpc, running.sql)
            running.process = again.process
            away = f"read_at BETWEEN '{killed.isoformat()}' AND '{back.isoformat()}'"
            eventually(lambda: readings(away) >= 2)  # what was read while it was away has come too
            agent.terminate()
            assert agent.wait(120) == 0
        finally:
            end(agent)
