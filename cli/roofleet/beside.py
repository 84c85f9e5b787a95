"""Text written to a stream beside the work, so that a reader who stalls holds nobody up."""

from __future__ import annotations

import atexit
import contextlib
import os
import queue
import stat
import threading
from typing import TextIO

MOST = 10_000
"""Pieces that wait to be written; more are left out, and counted."""
END_S = 1.0
"""How long the end of a process waits for what is still to be written."""


class Beside:
    """A stream that never blocks; a thread writes to the one behind it."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._waiting: queue.Queue[str | None] = queue.Queue(MOST)
        self._left_out = 0
        self._thread = threading.Thread(target=self._run, name="roofleet-log", daemon=True)
        self._thread.start()
        atexit.register(self.close)

    def write(self, text: str) -> None:
        """Text to be written when it is its turn."""
        try:
            self._waiting.put_nowait(text)
        except queue.Full:
            self._left_out += 1

    def flush(self) -> None:
        """Nothing: each piece is flushed when it is written."""

    def close(self) -> None:
        """Writes what waits, for a moment."""
        with contextlib.suppress(queue.Full):
            self._waiting.put_nowait(None)
            self._thread.join(END_S)

    def _run(self) -> None:
        while (text := self._waiting.get()) is not None:
            left_out, self._left_out = self._left_out, 0
            if left_out:
                text += f"{left_out} lines were left out, since nobody read them\n"
            with contextlib.suppress(OSError, ValueError):  # nobody is there to read, or it is closed
                self._stream.write(text)
                self._stream.flush()


def may_stall(stream: TextIO) -> bool:
    """Whether somebody reads it who may stop: a pipe, a socket or a terminal, and not a file."""
    try:
        mode = os.fstat(stream.fileno()).st_mode
    except (OSError, ValueError):  # nothing behind it
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or stat.S_ISCHR(mode)
