"""Processes that tests start: each is ended whatever happens, and a test that leaves one behind fails."""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import psutil
import pytest

KEPT = ("multiprocessing.resource_tracker", "torch/_inductor/compile_worker", "torch._inductor")
"""Helpers that a library starts once and ends with its process."""
PR_SET_CHILD_SUBREAPER = 36


def dies_with_us() -> list[str]:
    """What is put before a command so that the kernel ends it when the process that started it ends, also by
    SIGKILL; by SIGTERM, so that it ends what it has started itself. Empty where there is no setpriv, as
    outside Linux."""
    setpriv = shutil.which("setpriv")
    return [setpriv, "--pdeathsig", "TERM"] if setpriv else []


def start(*command: str, **options: Any) -> subprocess.Popen[str]:
    """Starts a command, `roofleet` by default being `start("-m", "roofleet", …)` with this interpreter."""
    return subprocess.Popen([*dies_with_us(), sys.executable, *command], text=True, **options)


@contextlib.contextmanager
def running(*command: str, **options: Any) -> Iterator[subprocess.Popen[str]]:
    """A command of this interpreter while the block lasts; if it still runs at the end, it is killed."""
    process = start(*command, **options)
    try:
        yield process
    finally:
        end(process)


def end(process: subprocess.Popen[str]) -> None:
    """Kills a process if it still runs, with everything that it has started, and closes its pipes."""
    if process.poll() is None:
        with contextlib.suppress(psutil.NoSuchProcess):
            kill(psutil.Process(process.pid).children(recursive=True))
        process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe is not None:
            pipe.close()


def kill(processes: list[psutil.Process]) -> None:
    """Kills processes and waits until they are gone."""
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(processes, timeout=30)


def adopt_orphans() -> None:
    """Makes this process the parent of what its children leave behind, so that it can be found (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def children() -> list[psutil.Process]:
    """Processes that this one has started and that still run."""
    found = []
    for process in psutil.Process().children():
        with contextlib.suppress(psutil.NoSuchProcess):
            command = " ".join(process.cmdline())
            if process.status() != psutil.STATUS_ZOMBIE and not any(name in command for name in KEPT):
                found.append(process)
    return found


def told(processes: list[psutil.Process]) -> str:
    """The command lines of processes."""
    lines = []
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            lines.append(f"{process.pid}: {' '.join(process.cmdline())}")
    return "\n".join(lines)


@pytest.fixture(autouse=True)
def leaves_no_process() -> Iterator[None]:
    """Fails a test that leaves a process running, and ends that; signals are handled as they were before.

    Processes of wider fixtures were there before the test and stay.
    """
    before = {process.pid for process in psutil.Process().children()}
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    yield
    for number, handler in handlers.items():
        if signal.getsignal(number) is not handler:
            signal.signal(number, handler)
    _nothing_left([process for process in children() if process.pid not in before])


@pytest.fixture(autouse=True, scope="session")
def leaves_no_process_in_the_end() -> Iterator[None]:
    """The same of what fixtures of modules and of the session have started."""
    adopt_orphans()
    before = {process.pid for process in psutil.Process().children()}
    # a shell that starts pytest in the background has it and everything it starts ignore Ctrl-C
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    _nothing_left([process for process in children() if process.pid not in before])


def _nothing_left(left: list[psutil.Process]) -> None:
    if left:
        names = told(left)
        kill([*left, *(inner for process in left for inner in process.children(recursive=True))])
        pytest.fail(f"left running:\n{names}", pytrace=False)


def own_session() -> dict[str, str]:
    """The environment of a pytest inside a test, which is not a worker of the one outside."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
