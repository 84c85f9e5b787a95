"""Who asks: somebody with a name, who may leave before the answer is there."""

from __future__ import annotations

import threading
import weakref

from roofleet_collector.errors import CallerLeft, CollectorError
from roofleet_collector.store.rows import Rows


class Caller:
    """A client during one call. Callers of one name share a limit; "" is the collector itself, without one.

    When the caller leaves, what runs for it is ended, and so is whatever would begin afterwards.
    """

    def __init__(self, name: str = "") -> None:
        self.name = name
        self._lock = threading.Lock()
        self._left: CollectorError | None = None
        self._rows: weakref.WeakSet[Rows] = weakref.WeakSet()

    def leave(self) -> None:
        """Ends what runs; from any thread, and harmless if called again."""
        with self._lock:
            self._left = self._left or CallerLeft("the client has gone, so its query was ended")
            running = list(self._rows)
        for rows in running:
            rows.end(self._left)

    def follow(self, rows: Rows) -> None:
        """Ends `rows` when the caller leaves, at once if it has left."""
        with self._lock:
            self._rows.add(rows)
            left = self._left
        if left is not None:
            rows.end(left)
