"""One thread that does something when time is up: interrupts queries that run or wait too long."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable

AGAIN_S = 0.25
"""An interrupt that comes before the engine has begun is lost, so an alarm repeats until it is called off."""


class Watchdog:
    """Alarms for many threads. An action must be quick and must not raise."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._alarms: dict[int, tuple[float, Callable[[], None]]] = {}
        self._numbers = itertools.count()
        self._wakes_at = float("inf")
        self._thread: threading.Thread | None = None

    def arm(self, seconds: float, action: Callable[[], None]) -> int:
        """Calls `action` in `seconds`, and again and again until `disarm` gets the number returned here."""
        due = time.monotonic() + seconds
        number = next(self._numbers)
        with self._changed:
            self._alarms[number] = (due, action)
            if self._thread is None:
                self._thread = threading.Thread(target=self._serve, name="roofleet-watchdog", daemon=True)
                self._thread.start()
            elif due < self._wakes_at:
                self._changed.notify()
        return number

    def disarm(self, number: int) -> None:
        """Calls an alarm off; its action may still be running on the watchdog's thread."""
        with self._changed:
            self._alarms.pop(number, None)

    def close(self) -> None:
        """Calls every alarm off and ends the thread; arming again starts a new one."""
        with self._changed:
            thread, self._thread = self._thread, None
            self._alarms.clear()
            self._changed.notify()
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def _serve(self) -> None:
        me = threading.current_thread()
        while True:
            with self._changed:
                if self._thread is not me:
                    return
                now = time.monotonic()
                due = [(number, action) for number, (when, action) in self._alarms.items() if when <= now]
                for number, action in due:
                    self._alarms[number] = (now + AGAIN_S, action)
                if not due:
                    self._wakes_at = min((when for when, _ in self._alarms.values()), default=float("inf"))
                    idle = self._wakes_at == float("inf")
                    self._changed.wait(None if idle else self._wakes_at - now)
                    self._wakes_at = float("-inf")  # awake: whoever arms now will be seen on the next turn
            for _, action in due:
                action()
