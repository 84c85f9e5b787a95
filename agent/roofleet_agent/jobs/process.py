"""A model's process as its agent sees it: started fresh, watched, and ended by SIGTERM, then SIGKILL.

The order goes in by its standard input, as a line of JSON, and after it the moments until which its lease
holds. It reports on a pipe of its own, a line of JSON each; what it prints is its log. When the agent is gone
its standard input ends, and so does it.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil

from roofleet_agent.jobs.clock import now_s
from roofleet_proto.jobs import LOG_TAIL_BYTES

GRACE_S = 10.0
"""How long a process has after SIGTERM, to store what its run had to say."""
MOST_LINE_BYTES = 4 * 1024 * 1024
_OOM_KILLS = Path("/proc/vmstat")


class ModelProcess:
    """One process; `ending` is why the agent ends it, empty while it does not."""

    def __init__(
        self,
        command: Sequence[str],
        order: Mapping[str, Any],
        heard: Callable[[dict[str, Any]], None],
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """`heard` is called with each report, on a thread of the process."""
        self.ending = ""
        self.peak_bytes = 0
        self._heard = heard
        self._killed_before = _oom_kills()
        self._tail = b""
        self._lock = threading.Lock()
        self._kill_at: float | None = None
        read_end, write_end = os.pipe()
        try:
            self._process = subprocess.Popen(
                [*command, str(write_end)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                pass_fds=[write_end],
                env={**os.environ, **(environment or {})},
                start_new_session=True,  # it is ended with all that it has started
            )
        except BaseException:
            os.close(read_end)
            raise
        finally:
            os.close(write_end)
        self.pid = self._process.pid
        self._threads = [
            threading.Thread(
                target=self._read_reports, args=[read_end], name="roofleet-reports", daemon=True
            ),
            threading.Thread(target=self._read_log, name="roofleet-log", daemon=True),
        ]
        for thread in self._threads:
            thread.start()
        self._say(order)
        assert self._process.stdin is not None
        os.set_blocking(self._process.stdin.fileno(), False)

    def hold_until(self, moment_s: float) -> None:
        """Tells it until when its lease holds, by the clock of leases."""
        self._say({"until": moment_s})

    def end(self, why: str, grace_s: float = GRACE_S) -> None:
        """Asks it to end, and sees to it after so long; the first reason stays."""
        with self._lock:
            if not self.ending:
                self.ending = why
                self._signal(signal.SIGTERM)
            kill_at = now_s() + grace_s
            self._kill_at = kill_at if self._kill_at is None else min(self._kill_at, kill_at)

    def has_ended(self) -> bool:
        """Whether it is gone, with all that it has started; kills it where its time after SIGTERM is up."""
        if self._process.poll() is not None:
            return True
        if self._kill_at is not None and now_s() >= self._kill_at:
            self._signal(signal.SIGKILL)
        return False

    def memory_bytes(self) -> int:
        """Memory that it and what it has started hold now."""
        total = 0
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(self.pid)
            for each in [process, *process.children(recursive=True)]:
                with contextlib.suppress(psutil.Error):
                    total += int(each.memory_info().rss)
        self.peak_bytes = max(self.peak_bytes, total)
        return total

    def log_tail(self) -> str:
        """The last of what it printed."""
        with self._lock:
            return self._tail.decode(errors="replace").replace("\x00", "")

    def close(self) -> None:
        """Ends what is left of it and lets go of its pipes."""
        self._signal(signal.SIGKILL)
        self._process.wait()
        for thread in self._threads:
            thread.join(timeout=2)
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()

    def end_in_words(self) -> str:
        """How it ended, for one that did not say so itself."""
        status = self._process.returncode
        if status is None:
            return "it has not ended"
        if status >= 0:
            said = self.log_tail().strip().splitlines()
            last = f": {said[-1][:500]}" if said else ""
            return f"the model process ended with status {status}{last}"
        number = -status
        if number == signal.SIGKILL:
            before, now = self._killed_before, _oom_kills()
            if before is not None and now is not None and now > before:
                return (
                    "the system ran out of memory and ended the model process, which had come to "
                    f"{self.peak_bytes / 2**30:.1f} GiB"
                )
            return "the model process was ended from outside by SIGKILL"
        name = signal.Signals(number).name if number in set(signal.Signals) else f"signal {number}"
        return f"the model process was ended by {name} ({(signal.strsignal(number) or 'unknown').lower()})"

    def _signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)

    def _say(self, message: Mapping[str, Any]) -> None:
        pipe = self._process.stdin
        if pipe is not None:
            with contextlib.suppress(OSError, ValueError):  # it has ended, or does not listen
                pipe.write(json.dumps(message).encode() + b"\n")
                pipe.flush()

    def _read_reports(self, read_end: int) -> None:
        with open(read_end, "rb") as pipe:
            while line := pipe.readline(MOST_LINE_BYTES):
                with contextlib.suppress(ValueError):
                    report = json.loads(line)
                    if isinstance(report, dict):
                        self._heard(report)

    def _read_log(self) -> None:
        pipe = self._process.stdout
        assert pipe is not None
        while part := os.read(pipe.fileno(), 65_536):
            with self._lock:
                self._tail = (self._tail + part)[-LOG_TAIL_BYTES:]


def _oom_kills() -> int | None:
    """How often the kernel has ended a process for want of memory; None where it does not tell."""
    try:
        for line in _OOM_KILLS.read_text().splitlines():
            if line.startswith("oom_kill "):
                return int(line.split()[1])
    except OSError:
        pass
    return None
