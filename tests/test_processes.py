"""The suite leaves no process behind: what a test starts is ended, and the test that forgot it fails."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
from tests.processes import own_session, running, start
from tests.support import eventually

FORGETFUL = """
import subprocess, sys
SLEEP = [sys.executable, "-c", "import time; time.sleep(600)"]

def test_of_a_child():
    child = subprocess.Popen(SLEEP)
    print("pid", child.pid, flush=True)

def test_of_a_grandchild():
    code = "import subprocess, sys; print('pid', subprocess.Popen(sys.argv[1:]).pid, flush=True)"
    subprocess.run([sys.executable, "-c", code, *SLEEP], check=True)

def test_that_is_tidy():
    subprocess.run([sys.executable, "-c", ""], check=True)

def test_that_takes_signals():
    import signal
    signal.signal(signal.SIGINT, signal.SIG_IGN)

def test_after_it():
    import signal
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
"""


def test_a_test_that_leaves_a_process_fails_and_the_process_is_gone(tmp_path: Path) -> None:
    """A child, and what a child left behind, are named, killed and counted as an error; a tidy test passes.
    Ctrl-C works inside although the shell that started it had it ignored, and is given back after a test."""
    file = tmp_path / "test_forgetful.py"
    file.write_text(FORGETFUL)
    plugins = ("-p", "tests.processes", "-p", "no:cacheprovider", "-p", "no:dash")
    inner = [sys.executable, "-m", "pytest", "-q", "-s", *plugins]
    ignoring = ["sh", "-c", 'trap "" INT; exec "$@"', "sh"]  # as `pytest &` does in a script
    done = subprocess.run(
        [*ignoring, *inner, f"--rootdir={tmp_path}", str(file)],
        capture_output=True,
        text=True,
        check=False,
        env=own_session(),
    )
    assert "5 passed, 2 errors" in done.stdout.replace(", 1 warning", ""), done.stdout + done.stderr
    assert done.stdout.splitlines().count("left running:") == 2
    pids = [
        int(line.split()[-1]) for line in done.stdout.splitlines() if "pid " in line and "left" not in line
    ]
    assert len(pids) == 2
    assert not any(psutil.pid_exists(pid) for pid in pids)


def test_what_a_test_starts_ends_with_it(tmp_path: Path) -> None:
    """A block that fails ends its process; a process whose starter is killed is ended by the kernel."""
    forever = ("-c", "import time; time.sleep(600)")
    try:
        with running(*forever) as process:
            raise RuntimeError("a test that fails")
    except RuntimeError:
        assert process.poll() == -signal.SIGKILL
    code = (
        "from tests.processes import start; import time\n"
        f"print(start(*{forever!r}).pid, flush=True); time.sleep(600)"
    )
    starter = start("-c", code, stdout=subprocess.PIPE)
    assert starter.stdout is not None
    inner = psutil.Process(int(starter.stdout.readline()))
    eventually(lambda: "setpriv" not in inner.name())  # before that the kernel has not been asked yet
    starter.kill()
    starter.wait()
    starter.stdout.close()
    if sys.platform == "linux":
        eventually(lambda: not inner.is_running() or inner.status() == psutil.STATUS_ZOMBIE)
    else:
        os.kill(inner.pid, signal.SIGKILL)
