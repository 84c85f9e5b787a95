"""Limits for each caller: calls a second and streams at once, so that one at its limit slows no other."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from roofleet_collector.errors import TooMuch
from roofleet_collector.limits import Callers

CALLERS = 4096
"""Callers that are remembered; the one that was away longest is forgotten first."""


@dataclass
class _Caller:
    credit: float
    at: float
    open: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)


class Limits:
    """Counts what each caller has begun; safe to use from any thread."""

    def __init__(
        self,
        calls_per_s: float = Callers.calls_per_s,
        burst: float = Callers.burst,
        streams: int = Callers.streams,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._calls_per_s, self._burst, self._streams, self._clock = calls_per_s, burst, streams, clock
        self._callers: OrderedDict[str, _Caller] = OrderedDict()
        self._lock = threading.Lock()

    def begin(self, name: str) -> None:
        """Counts a call; TooMuch if the caller begins them faster than allowed."""
        caller = self._caller(name)
        with caller.lock:
            now = self._clock()
            caller.credit = min(self._burst, caller.credit + (now - caller.at) * self._calls_per_s)
            caller.at = now
            if caller.credit < 1:
                raise TooMuch(f"more than {self._calls_per_s:g} calls a second; wait a second")
            caller.credit -= 1

    def open(self, name: str) -> None:
        """Counts a stream or a query that goes on until `close`; TooMuch if there are too many."""
        caller = self._caller(name)
        with caller.lock:
            if caller.open >= self._streams:
                raise TooMuch(f"{caller.open} streams are open at once, which is the most; close one")
            caller.open += 1

    def close(self, name: str) -> None:
        """One of them has ended."""
        caller = self._caller(name)
        with caller.lock:
            caller.open = max(0, caller.open - 1)

    @contextmanager
    def opened(self, name: str) -> Iterator[None]:
        """`open` until the block ends."""
        self.open(name)
        try:
            yield
        finally:
            self.close(name)

    def _caller(self, name: str) -> _Caller:
        with self._lock:
            caller = self._callers.get(name)
            if caller is None:
                caller = self._callers[name] = _Caller(self._burst, self._clock())
                for other, state in list(self._callers.items())[:16]:
                    if len(self._callers) > CALLERS and not state.open and other != name:
                        del self._callers[other]
            self._callers.move_to_end(name)
            return caller
