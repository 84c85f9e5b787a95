"""A thread that goes on: when its work ends by an error it is said, and begun again."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from roofleet_agent.sending.pauses import Pauses

log = logging.getLogger(__name__)


class Kept:
    """Runs `work` on a thread of its own until it returns; `start_again_if_ended` is asked now and then."""

    def __init__(self, name: str, work: Callable[[], None]) -> None:
        self._name, self._work = name, work
        self._thread: threading.Thread | None = None
        self._failed = False
        self._pauses = Pauses()
        self._again_at = 0.0

    def start(self) -> None:
        """Begins."""
        self._failed = False
        self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
        self._thread.start()

    def start_again_if_ended(self) -> None:
        """Begins again after an error, each time after a longer pause."""
        if self._failed and time.monotonic() >= self._again_at:
            self.start()

    def join(self, timeout_s: float) -> None:
        """Waits for its end, at most so long."""
        if self._thread is not None:
            self._thread.join(timeout_s)

    def _run(self) -> None:
        try:
            self._work()
        except Exception:
            log.exception("%s ended and is begun again", self._name)
            self._again_at = time.monotonic() + self._pauses.next_s()
            self._failed = True
