"""A model's process: however it ends, its agent goes on and says how in words."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from tests.processes import running
from tests.support import eventually

from roofleet_agent.jobs import process as module
from roofleet_agent.jobs.clock import now_s
from roofleet_agent.jobs.leases import Leases
from roofleet_agent.jobs.process import ModelProcess
from roofleet_proto.jobs import LOG_TAIL_BYTES
from roofleet_proto.records import Lease, Renewed

READY = "import json, os, sys, time, signal; report = os.fdopen(int(sys.argv[1]), 'w', buffering=1)\n"
STAYS = READY + "print(json.dumps({'stage': 'there'}), file=report)\nwhile True: time.sleep(60)"
DEAF = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + STAYS


@contextmanager
def started(code: str) -> Iterator[tuple[ModelProcess, list[dict[str, Any]]]]:
    """A process that runs some code."""
    heard: list[dict[str, Any]] = []
    process = ModelProcess([sys.executable, "-c", code], {"job": 1}, heard.append)
    try:
        yield process, heard
    finally:
        process.close()


def words(code: str) -> str:
    """How a process that runs some code ends, in words."""
    with started(code) as (process, _):
        eventually(process.has_ended)
        process.close()
        return process.end_in_words()


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("import os; os.abort()", "SIGABRT"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "SIGSEGV (segmentation fault)"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "from outside by SIGKILL"),
        ("import os; os._exit(7)", "status 7"),
        ("raise RuntimeError('no room left')", "status 1: RuntimeError: no room left"),
    ],
)
def test_how_a_process_ended_is_told_in_words(code: str, says: str) -> None:
    """The signal by its name, or the status with what it printed last."""
    assert says in words(code)


def test_a_process_that_the_kernel_ended_for_want_of_memory_is_told_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """SIGKILL alone could be anybody's; the kernel counts those of its own."""
    counter = tmp_path / "vmstat"
    counter.write_text("oom_kill 3\n")
    monkeypatch.setattr(module, "_OOM_KILLS", counter)
    with started(STAYS) as (process, heard):
        eventually(lambda: heard)
        counter.write_text("oom_kill 4\n")
        os.kill(process.pid, signal.SIGKILL)
        eventually(process.has_ended)
        assert "ran out of memory" in process.end_in_words()


def test_a_process_that_ignores_sigterm_is_killed_with_all_it_started() -> None:
    """Its time after SIGTERM is bounded, and nothing of it stays."""
    code = DEAF.replace("while True", "import subprocess; subprocess.Popen(['sleep', '600'])\nwhile True")
    with started(code) as (process, heard):
        eventually(lambda: heard)
        eventually(lambda: psutil.Process(process.pid).children())
        [inner] = psutil.Process(process.pid).children()
        process.end("asked to", grace_s=0.2)
        eventually(process.has_ended)
        process.close()
        assert process.ending == "asked to"
        eventually(lambda: not inner.is_running() or inner.status() == psutil.STATUS_ZOMBIE)


def test_a_process_that_heeds_sigterm_is_not_killed() -> None:
    """It has the time to store what it has to say."""
    code = READY + (
        "def end(*_): print(json.dumps({'ended': 'cancelled'}), file=report); sys.exit(0)\n"
        "signal.signal(signal.SIGTERM, end)\nprint(json.dumps({'stage': 'there'}), file=report)\n"
        "while True: time.sleep(60)"
    )
    with started(code) as (process, heard):
        eventually(lambda: heard)
        process.end("asked to")
        eventually(process.has_ended)
        process.close()
        assert heard[-1] == {"ended": "cancelled"}


def test_the_last_of_what_it_prints_is_kept_and_reports_that_are_none_are_not() -> None:
    """16 kB of its log, whatever it writes and wherever."""
    code = READY + "print('x' * 50_000 + 'the end'); print('{]', file=report); print('[1]', file=report)"
    with started(code) as (process, heard):
        eventually(process.has_ended)
        process.close()
        assert process.log_tail().endswith("the end\n")
        assert len(process.log_tail()) == LOG_TAIL_BYTES
        assert heard == []


def test_its_memory_is_that_of_all_it_started() -> None:
    """Its agent can hold it to a limit."""
    code = (
        READY
        + "data = bytearray(60_000_000)\nprint(json.dumps({'stage': 'there'}), file=report)\ntime.sleep(60)"
    )
    with started(code) as (process, heard):
        eventually(lambda: heard)
        assert process.memory_bytes() > 60_000_000


# -- the process of a job itself, as far as it comes without a model

JOB = [sys.executable, "-m", "roofleet.running.job"]
WAITS = (
    "import sys, roofleet.running.job as job\n"
    "def run(order, reports):\n"
    "    reports.show('there', 0.0)\n"
    "    import threading; threading.Event().wait()\n"
    "job.run = run\njob.main()"
)


def test_a_model_ends_with_its_agent() -> None:
    """An agent that is killed leaves no process on its device."""
    agent = (
        "import sys, time; from roofleet_agent.jobs.process import ModelProcess\n"
        f"process = ModelProcess([sys.executable, '-c', {WAITS!r}], {{'until': {now_s() + 3600}}},\n"
        "    lambda report: print(process.pid, flush=True))\n"
        "time.sleep(600)"
    )
    with running("-c", agent, stdout=-1) as process:
        assert process.stdout is not None
        model = psutil.Process(int(process.stdout.readline()))
        process.kill()
        eventually(lambda: not model.is_running() or model.status() == psutil.STATUS_ZOMBIE)


def test_a_model_ends_itself_when_its_lease_has_ended_though_its_agent_stands_still() -> None:
    """A frozen agent renews nothing and ends nothing: the process looks at its own clock."""
    heard: list[dict[str, Any]] = []
    process = ModelProcess([sys.executable, "-c", WAITS], {"until": now_s() + 3600}, heard.append)
    try:
        eventually(lambda: heard)
        assert not process.has_ended()
        process.hold_until(now_s() + 0.1)
        eventually(process.has_ended)
        process.close()
        assert "its lease has ended" in process.log_tail()
    finally:
        process.close()


# -- leases


def test_a_lease_counts_from_when_its_renewal_was_sent() -> None:
    """However late the answer is, and a share of it is kept back."""
    leases, lease = Leases(), Lease("1", 1)
    asked = leases.ask([lease], now=100.0)
    assert leases.until(lease) is None
    assert leases.take(Renewed(asked.number, 10_000, (lease,))) == ()
    assert leases.until(lease) == 108.0
    assert leases.ending(lease) == 105.0


def test_an_old_answer_does_not_shorten_a_lease_and_an_unknown_one_gives_none() -> None:
    """Answers may come in any order, and of a connection before."""
    leases, lease = Leases(), Lease("1", 1)
    first, second = leases.ask([lease], 100.0), leases.ask([lease], 104.0)
    leases.take(Renewed(second.number, 10_000, (lease,)))
    leases.take(Renewed(first.number, 10_000, (lease,)))
    leases.take(Renewed(77, 10_000, (lease,)))
    leases.take(Renewed(second.number, 10_000, (lease,)))
    assert leases.until(lease) == 112.0


def test_a_lease_that_the_answer_lacks_has_ended() -> None:
    """And nothing that was not asked for is taken."""
    leases = Leases()
    asked = leases.ask([Lease("1", 1), Lease("2", 1)], 0.0)
    assert leases.take(Renewed(asked.number, 10_000, (Lease("2", 1), Lease("3", 1)))) == (Lease("1", 1),)
    assert leases.until(Lease("3", 1)) is None
