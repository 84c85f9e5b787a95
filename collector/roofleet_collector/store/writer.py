"""The one thread that writes: a queue of work, committed in groups."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from itertools import groupby
from typing import Any, TypeVar

import duckdb

from roofleet_collector.store.engine import has_given_up, is_of_the_machine

Item = TypeVar("Item")
Result = TypeVar("Result")
GatheredRun = Callable[[duckdb.DuckDBPyConnection, Sequence[Item]], Sequence[Result]]

MAX_GROUP, MAX_GROUP_BYTES = 1024, 32 * 1024 * 1024
"""Most pieces of work in one transaction, and the bytes after which no more is taken into it. A commit costs
about as much as inserting 1,500 rows, so a busy collector shares it; an idle one commits each piece as it
comes."""


@dataclass
class _Work:
    run: Callable[..., Any]
    item: Any
    gathered: bool
    writes: bool
    bytes: int
    future: Future[Any]
    alone: bool = False


class Writer:
    """Runs pieces of work on one connection, in the order they came, each in a transaction.

    Several that wait are committed together; if one of them fails, all are rolled back and run again in two
    halves, so that only the one at fault fails. Where the machine is at fault (a full disk) all of them do.
    `committed` and `rolled_back` are called on the writer's thread after each transaction.
    """

    def __init__(
        self,
        connection: duckdb.DuckDBPyConnection,
        *,
        committed: Callable[[], None] = lambda: None,
        rolled_back: Callable[[], None] = lambda: None,
    ) -> None:
        self._connection = connection
        self._committed, self._rolled_back = committed, rolled_back
        self._queue: queue.Queue[_Work | None] = queue.Queue()
        self._closing = threading.Lock()
        self._closed = False
        self.trouble: str | None = None
        """Why the machine let the last transaction fail; None if it did not, or one that writes went well."""
        self.given_up: str | None = None
        """Why the engine takes no more work until the database is opened anew; None if it does."""
        self._thread = threading.Thread(target=self._serve, name="roofleet-writer", daemon=True)
        self._thread.start()

    def submit(
        self, run: Callable[[duckdb.DuckDBPyConnection], Result], *, writes: bool = False
    ) -> Future[Result]:
        """Queues work; the future resolves after its commit. RuntimeError once the writer is closed.

        `writes` says that it does so for certain: what may find nothing to change ends no trouble.
        """
        return self._submit(_Work(run, None, False, writes, 0, Future()))

    def submit_gathered(self, run: GatheredRun[Item, Result], item: Item, bytes: int) -> Future[Result]:
        """The same for work that is done together with what came right before and after it, if that is of the
        same `run`: it is called with all their items and gives a result for each."""
        return self._submit(_Work(run, item, True, bytes > 0, bytes, Future()))

    def submit_alone(self, run: Callable[[duckdb.DuckDBPyConnection], Result]) -> Future[Result]:
        """Queues work that is done between two transactions, in none, such as a checkpoint."""
        return self._submit(_Work(run, None, False, False, 0, Future(), alone=True))

    def _submit(self, work: _Work) -> Future[Any]:
        with self._closing:
            if self._closed:
                raise RuntimeError("the store is closed")
            self._queue.put(work)
        return work.future

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
            group, bytes, last = [first], first.bytes, False
            while len(group) < MAX_GROUP and bytes < MAX_GROUP_BYTES and not group[-1].alone:
                try:
                    following = self._queue.get_nowait()
                except queue.Empty:
                    break
                if following is None:
                    last = True
                    break
                group.append(following)
                bytes += following.bytes
            # Work whose caller has gone before it began is left out; from here on nobody can call it off.
            group = [work for work in group if work.future.set_running_or_notify_cancel()]
            alone = group.pop() if group and group[-1].alone else None
            self._commit(group)
            if alone is not None:
                self._do_alone(alone)
            del group, first, alone
            if last:
                return

    def _do_alone(self, work: _Work) -> None:
        try:
            result = work.run(self._connection)
        except BaseException as error:
            self._note(error)
            work.future.set_exception(error)
        else:
            work.future.set_result(result)

    def _commit(self, group: list[_Work]) -> None:
        if not group:
            return
        try:
            self._connection.execute("BEGIN")
            results = self._run(group)
            self._connection.execute("COMMIT")
        except BaseException as error:
            self._rollback()
            self._note(error)
            if is_of_the_machine(error) or len(group) == 1:
                for work in group:
                    work.future.set_exception(error)
                return
            half = len(group) // 2
            self._commit(group[:half])
            self._commit(group[half:])
        else:
            if any(work.writes for work in group):
                self.trouble = None
            self._committed()
            for work, result in zip(group, results, strict=True):
                work.future.set_result(result)

    def _note(self, error: BaseException) -> None:
        if is_of_the_machine(error):
            self.trouble = str(error)
        if has_given_up(error):
            self.given_up = str(error).partition("\n")[0]

    def _run(self, group: list[_Work]) -> list[Any]:
        results: list[Any] = []
        for (run, gathered), works in groupby(group, lambda work: (work.run, work.gathered)):
            if gathered:
                results += run(self._connection, [work.item for work in works])
            else:
                results += [run(self._connection) for _ in works]
        return results

    def _rollback(self) -> None:
        # a failed COMMIT has ended the transaction already, and a fault of the engine all of them
        with contextlib.suppress(duckdb.Error):
            self._connection.execute("ROLLBACK")
        self._rolled_back()
