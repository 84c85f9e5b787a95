"""The one thread that writes: a queue of work, committed in groups."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, TypeVar

import duckdb

Result = TypeVar("Result")
MAX_GROUP = 32
"""Most pieces of work in one transaction. A commit costs about as much as inserting 1,500 rows, so a busy
collector shares it; an idle one commits each piece as it comes."""


@dataclass
class _Work:
    run: Callable[[duckdb.DuckDBPyConnection], Any]
    future: Future[Any]


class Writer:
    """Runs pieces of work on one connection, in the order they came, each in a transaction.

    Several that wait are committed together; if one of them fails, all are rolled back and run again one by
    one, so that only the one at fault fails.
    """

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self._connection = connection
        self._queue: queue.Queue[_Work | None] = queue.Queue()
        self._closing = threading.Lock()
        self._closed = False
        self._thread = threading.Thread(target=self._serve, name="roofleet-writer", daemon=True)
        self._thread.start()

    def submit(self, run: Callable[[duckdb.DuckDBPyConnection], Result]) -> Future[Result]:
        """Queues work; the future resolves after its commit. RuntimeError once the writer is closed."""
        future: Future[Result] = Future()
        with self._closing:
            if self._closed:
                raise RuntimeError("the store is closed")
            self._queue.put(_Work(run, future))
        return future

    def close(self) -> None:
        """Finishes what is queued and ends the thread."""
        with self._closing:
            if self._closed:
                return
            self._closed = True
            self._queue.put(None)
        self._thread.join()

    def _serve(self) -> None:
        while True:
            first = self._queue.get()
            if first is None:
                return
            group, last = [first], False
            while len(group) < MAX_GROUP:
                try:
                    following = self._queue.get_nowait()
                except queue.Empty:
                    break
                if following is None:
                    last = True
                    break
                group.append(following)
            # Work whose caller has gone before it began is left out; from here on nobody can call it off.
            self._commit([work for work in group if work.future.set_running_or_notify_cancel()])
            if last:
                return

    def _commit(self, group: list[_Work]) -> None:
        if not group:
            return
        try:
            self._connection.execute("BEGIN")
            results = [work.run(self._connection) for work in group]
            self._connection.execute("COMMIT")
        except BaseException as error:
            self._rollback()
            if len(group) == 1:
                group[0].future.set_exception(error)
                return
            for work in group:
                self._commit([work])
        else:
            for work, result in zip(group, results, strict=True):
                work.future.set_result(result)

    def _rollback(self) -> None:
        try:
            self._connection.execute("ROLLBACK")
        except duckdb.TransactionException:
            return  # a failed COMMIT has ended the transaction already
