"""The log of the processes that stay: text, JSON lines, the journal's priorities, and no secret in any."""

from __future__ import annotations

import io
import json
import logging
import os
import subprocess
import threading
import warnings
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from tests.processes import end
from tests.support import eventually, roofleet, start_roofleet

from roofleet import beside, logs
from roofleet.logs import Format, Level, keep_log

TOKEN = "rft_0a1b2c3d_" + "Zx9-_" * 8
CODE = "rfj_0a1b2c3d_" + "Zx9-_" * 8 + "." + "ab" * 32
SECRET = "Zx9-_Zx9-_"


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level, hook, grpc = root.handlers, root.level, threading.excepthook, "GRPC_VERBOSITY"
    environment = dict(os.environ)
    yield
    root.handlers, threading.excepthook = handlers, hook
    root.setLevel(level)
    logging.captureWarnings(False)
    if grpc not in environment:
        os.environ.pop(grpc, None)


def lines(text: str) -> list[dict[str, Any]]:
    """The objects of a log in JSON; every line has to be one."""
    return [json.loads(line) for line in text.splitlines()]


def test_a_line_of_json_says_when_who_and_what() -> None:
    """One object a line: the time in UTC, level, logger, message, fields, and an exception with its trace."""
    said = io.StringIO()
    keep_log(Format.json, Level.info, said)
    log = logging.getLogger("roofleet_agent.jobs")
    log.info("job %s\nruns", "7", extra={"job_id": "7", "peer": "ipv4:10.0.0.1", "run_id": None, "other": 1})
    log.debug("not this")
    try:
        raise ValueError("of two\nlines")
    except ValueError:
        log.exception("it failed")
    first, second = lines(said.getvalue())
    assert datetime.fromisoformat(first.pop("time")).tzinfo == UTC
    assert first == {
        "level": "info",
        "logger": "roofleet_agent.jobs",
        "message": "job 7\nruns",
        "job_id": "7",
        "peer": "ipv4:10.0.0.1",
    }
    assert "Traceback" in second["exception"]
    assert "of two\nlines" in second["exception"]


def test_what_nobody_caught_and_what_python_warns_of_are_lines_too() -> None:
    """A thread that ends by an error, and `warnings.warn`, do not write between the lines of JSON."""
    said = io.StringIO()
    keep_log(Format.json, Level.warning, said)
    warnings.warn("old driver", UserWarning, stacklevel=1)
    thread = threading.Thread(target=lambda: 1 / 0, name="roofleet-uplink")
    thread.start()
    thread.join()
    warned, failed = lines(said.getvalue())
    assert "old driver" in warned["message"]
    assert failed["message"] == "roofleet-uplink ended by an error"
    assert "ZeroDivisionError" in failed["exception"]


def test_text_tells_fields_once_and_nobody_writes_a_line_of_their_own() -> None:
    """A field stands behind a message that does not say it. What a peer sent neither begins a line nor steers
    the terminal."""
    said = io.StringIO()
    keep_log(Format.text, Level.info, said)
    log = logging.getLogger("x")
    log.warning("job 7", extra={"job_id": "7", "peer": "ipv4:10.0.0.1"})
    log.warning("agent %s", "a\n2026-01-01 ERROR x: forged \x1b[2J")
    first, second = said.getvalue().splitlines()
    assert first.endswith("Z WARNING x: job 7 peer=ipv4:10.0.0.1")
    assert "\x1b" not in second
    assert second.endswith("x: agent a 2026-01-01 ERROR x: forged \N{REPLACEMENT CHARACTER}[2J")


def test_the_journal_gets_priorities_instead_of_times(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where JOURNAL_STREAM names the stream, each line begins with its priority and has no time; where it
    names another, such as one that was redirected, it is text as ever."""
    with (tmp_path / "journal").open("w+") as stream:
        place = os.fstat(stream.fileno())
        for named, wanted in (
            (f"{place.st_dev}:{place.st_ino}", "<4>x: full\n<3>x: gone\n<3>Traceback"),
            (f"{place.st_dev}:{place.st_ino + 1}", None),
        ):
            monkeypatch.setenv("JOURNAL_STREAM", named)
            stream.seek(0), stream.truncate()
            keep_log(Format.text, Level.info, stream)
            logging.getLogger("x").warning("full")
            try:
                raise OSError
            except OSError:
                logging.getLogger("x").exception("gone")
            stream.flush()
            written = (tmp_path / "journal").read_text()
            assert written.startswith(wanted) if wanted else "WARNING x: full" in written


def test_a_command_in_this_process_leaves_no_log_behind(tmp_path: Path) -> None:
    """What a test runs takes neither its handlers nor what looks after its threads away."""
    before = (threading.excepthook, list(logging.getLogger().handlers), warnings.showwarning)
    wrong = ("collector", "--grpc", "0.0.0.0:0", "--sql", "0.0.0.0:0", "--log-format", "json")
    done = roofleet(*wrong, data=tmp_path)
    assert lines(done.stderr)[0]["level"] == "error"  # why it did not start is a line of the log too
    assert (threading.excepthook, list(logging.getLogger().handlers), warnings.showwarning) == before


@pytest.mark.parametrize("format", list(Format))
def test_no_secret_is_in_a_log(format: Format) -> None:
    """Tokens, codes and what stands behind `Bearer` are cut in messages, fields and traces of either format;
    of a token its public part stays, so that one knows which it was."""
    said = io.StringIO()
    keep_log(format, Level.info, said)
    log = logging.getLogger("x")
    log.info("shown was %s, and %r", TOKEN, {"authorization": f"Bearer {SECRET}"}, extra={"identity": CODE})
    try:
        raise ValueError(f"no such code: {CODE}")
    except ValueError:
        log.exception("bearer %s", SECRET)
    logs.say_always(peer=lambda: TOKEN)
    log.info("again")
    assert SECRET not in said.getvalue()
    assert "ab" * 32 not in said.getvalue()
    assert "rft_0a1b2c3d…" in said.getvalue()


def test_a_collector_and_its_agent_log_json_alone(tmp_path: Path) -> None:
    """With --log-format json all that both processes print is objects, those of the agent under its id; who
    comes and who is refused is among them, and no token."""
    import roofleet as api

    token = roofleet("tokens", "create", "anna", "--role", "reader", data=tmp_path / "fleet").stdout.strip()
    code = roofleet("tokens", "join-code", "lab1", data=tmp_path / "fleet").stdout.strip()
    options = ("--log-format", "json", "--log-level", "debug")
    process = start_roofleet(
        *("collector", "--grpc", "127.0.0.1:0", "--sql", "127.0.0.1:0", *options),
        data=tmp_path / "fleet",
        stdout=subprocess.PIPE,
        stderr=(tmp_path / "collector.log").open("w"),
    )
    log = tmp_path / "collector.log"

    def said(part: str) -> list[dict[str, Any]]:
        return [line for line in lines(log.read_text()) if part in line["message"]]

    try:
        eventually(lambda: said("gRPC on"))
        at = said("gRPC on")[0]
        joined = roofleet("agent", "join", code, "--collector", at["grpc"], data=tmp_path / "lab1")
        assert joined.returncode == 0, joined.stderr
        agent = start_roofleet(
            *("agent", "--collector", at["grpc"], *options),
            data=tmp_path / "lab1",
            stdout=subprocess.DEVNULL,
            stderr=(tmp_path / "agent.log").open("w"),
        )
        try:
            eventually(lambda: said("attached"))
            with pytest.raises(api.errors.UserError), api.connect(at["sql"], token=token[:-1] + "!") as wrong:
                wrong.sql("SELECT 1")
            eventually(lambda: said("refused"))
            agent.terminate()
            agent.wait(60)
        finally:
            end(agent)
        process.terminate()
        assert process.stdout is not None
        assert process.stdout.read() == ""
        process.wait(60)
    finally:
        end(process)
    told = lines((tmp_path / "agent.log").read_text())
    assert {line["agent_id"] for line in told} == {said("attached")[0]["agent_id"]}
    assert told[-1]["message"] == "stopped"
    assert said("refused")[0]["peer"].startswith("ipv4:127.0.0.1")
    both = log.read_text() + (tmp_path / "agent.log").read_text()
    kept = (tmp_path / "lab1/agent.token").read_text().strip()
    for secret in (token, code, code.partition(".")[0], kept):
        assert secret[13:] not in both


def test_a_log_that_nobody_reads_holds_nobody_up() -> None:
    """Lines wait for a reader who stalls; those that find no room are left out, and counted."""
    reading, writing = os.pipe()
    stream = os.fdopen(writing, "w")
    keep_log(Format.text, Level.info, stream)
    logging.getLogger("roofleet").warning("the first")

    def many() -> None:
        for number in range(2 * beside.MOST):
            logging.getLogger("roofleet").warning("line %d", number)

    talking = threading.Thread(target=many, daemon=True)
    talking.start()
    talking.join(60)
    assert not talking.is_alive()
    with os.fdopen(reading) as lines:
        assert "the first" in lines.readline()
        left_out = next(int(line.split()[0]) for line in lines if "were left out" in line)
    assert 0 < left_out < 2 * beside.MOST
    with suppress(BrokenPipeError):  # what was not read
        stream.close()
