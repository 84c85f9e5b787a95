"""The thread that keeps to the policy: in the background, in small steps, never for long at the writer."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import TypeVar

from roofleet_collector.errors import StoreClosed
from roofleet_collector.metrics import Metrics
from roofleet_collector.policy import Policy
from roofleet_collector.store import DuckDBStore

log = logging.getLogger(__name__)
Step = TypeVar("Step")

PERIOD_S = 60.0
"""How often it is looked whether something is to be done."""
REST = 4.0
"""Pause after each step, as many times what it took: four fifths of the writer are for what comes in."""
LONGEST_REST_S = 2.0


class Retaining:
    """Keeps to a policy until it is stopped. What fails is told, and tried again with the next pass."""

    def __init__(self, store: DuckDBStore, policy: Policy, metrics: Metrics | None = None) -> None:
        self._store, self._policy = store, policy
        self._metrics = metrics or Metrics()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._serve, name="roofleet-retention", daemon=True)

    def start(self) -> None:
        """Begins with a first pass."""
        self._thread.start()

    def stop(self) -> None:
        """Ends after the step that is under way."""
        self._stopping.set()
        self._thread.join()

    def _serve(self) -> None:
        while not self._stopping.is_set():
            try:
                self.look()
            except StoreClosed:
                return
            except Exception as error:  # such as a full disk: this thread must outlive it
                log.warning("what is older than it is kept for could not be dealt with: %s", error)
            self._stopping.wait(PERIOD_S)

    def look(self, now: datetime | None = None) -> None:
        """One pass: all that is to be done by now, and the space that it leaves given back."""
        began, before = time.monotonic(), self._store.size()
        rows: Counter[tuple[str, str]] = Counter()
        for done in self._gently(self._store.retain(self._policy, now or datetime.now(UTC))):
            rows[done.what, done.table] += done.rows
            self._metrics.retained(done.table, done.what, done.rows)
        for _ in self._gently(self._store.give_back()):
            pass
        after = self._store.size()
        self._metrics.sized(after.bytes, after.free_bytes)
        if rows.total() or after.bytes < before.bytes:
            did = [
                f"{count:,} rows of {table} {what}" for (what, table), count in sorted(rows.items()) if count
            ]
            if after.bytes < before.bytes:
                did.append(f"{(before.bytes - after.bytes) / 1e6:,.0f} MB given back")
            log.info("retention: %s, in %.1f s", ", ".join(did), time.monotonic() - began)

    def _gently(self, steps: Iterator[Step]) -> Iterator[Step]:
        """The steps, with a pause after each; ends early when it is to stop."""
        began = time.monotonic()
        for step in steps:
            yield step
            if self._stopping.wait(min((time.monotonic() - began) * REST, LONGEST_REST_S)):
                return
            began = time.monotonic()


@asynccontextmanager
async def retaining(store: DuckDBStore, policy: Policy, metrics: Metrics) -> AsyncIterator[None]:
    """Keeps to a policy while the block runs."""
    keeper = Retaining(store, policy, metrics)
    keeper.start()
    try:
        yield
    finally:
        await asyncio.to_thread(keeper.stop)
