"""Statements that run apart: planned, and in part run, by a process that can be ended.

The planner and some functions take any time and any memory, in calls that nothing can stop. So every
statement is planned first by a process that has the tables without their rows; if that takes too long or too
much, the process is killed and nobody else has noticed. A statement whose functions are not known to be
harmless runs there as well, on a copy of the columns that it names.
"""

from __future__ import annotations

import json
import os
import pickle
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, Self

import pyarrow as pa

from roofleet_collector.errors import CallerLeft, LimitReached, SqlError, StoreClosed
from roofleet_collector.limits import MEBIBYTE, Engine
from roofleet_collector.store import apart_worker as worker
from roofleet_collector.store.engine import Parameters
from roofleet_collector.store.limits import machine_memory_bytes
from roofleet_collector.store.statements import Select

LOOK_S = 0.05
"""How often it is looked whether the caller still waits."""

START = f"import sys; from {worker.__name__} import main; main(int(sys.argv[1]), int(sys.argv[2]))"

PROCESSES = 2
"""How many statements are planned at once, and how many run apart; others wait for their turn."""


@dataclass(frozen=True)
class Copy:
    """A table or a view that a statement reads: its kind and name, and a stream of its rows."""

    kind: str
    name: str
    rows: Any


class Apart:
    """The processes. Each statement has one to itself, and one that was killed is replaced.

    `memory_bytes` is what a process may take, by default an eighth of the machine's memory, 2 GiB at most;
    `plan_s` how long planning may take.
    """

    def __init__(self, memory_bytes: int | None = None, plan_s: float = Engine.plan_s) -> None:
        self._plan_s = plan_s
        usual = min(max(machine_memory_bytes() // 8, 512 * MEBIBYTE), 2048 * MEBIBYTE)
        self.memory_bytes = usual if memory_bytes is None else memory_bytes
        # apart from one another, since a result that is read slowly keeps its process
        self._planners, self._runners = _Processes(self.memory_bytes), _Processes(self.memory_bytes)

    def plan(self, select: Select, values: Parameters, stopping: Callable[[], bool]) -> None:
        """Plans a statement, so that it is known to be harmless to plan. What is wrong with it is not told.

        Raises LimitReached if it takes too long or too much memory, CallerLeft if `stopping` says so.
        """
        with suppress(SqlError):  # told by the engine that has the rows
            self._planned(worker.PLAN, select, values, stopping)

    def shape(self, select: Select, parameters: Parameters | None, stopping: Callable[[], bool]) -> pa.Schema:
        """The schema of a statement's rows, see `shape.shape`. Raises what `plan` does, and SqlError."""
        _, data = self._planned(worker.SHAPE, select, parameters, stopping)
        return pa.ipc.read_schema(pa.py_buffer(data))

    def _planned(
        self, kind: str, select: Select, parameters: Parameters | None, stopping: Callable[[], bool]
    ) -> tuple[bytes, bytes]:
        process = self._planners.take(stopping)
        try:
            process.ask(kind, select, parameters, stopping)
            until = time.monotonic() + self._plan_s
            return process.answer(lambda: stopping() or time.monotonic() > until)
        except CallerLeft:
            if stopping():
                raise
            raise LimitReached(
                f"the statement takes more than {self._plan_s:g} s to plan, so it was not run: see that its "
                "queries, names, columns or constants do not multiply"
            ) from None
        finally:
            self._planners.give_back(process)

    def run(
        self, select: Select, values: Parameters, copies: Iterable[Copy], stopping: Callable[[], bool]
    ) -> Stream:
        """Runs a statement on copies of what it reads.

        Raises SqlError with the engine's message, LimitReached if the process runs out of memory or the
        copies are too large, CallerLeft if `stopping` says so.
        """
        process = self._runners.take(stopping)
        try:
            process.ask(worker.RUN, select, values, stopping)
            left = self.memory_bytes // 4
            for copy in copies:
                left = process.send(copy, left, stopping)
            process.send_bytes(b"")
            return Stream(process, stopping, lambda: self._runners.give_back(process))
        except BaseException:
            if process.busy:
                process.kill()  # it waits for the rest
            self._runners.give_back(process)
            raise

    def close(self) -> None:
        """Kills the processes."""
        self._planners.close()
        self._runners.close()


class Stream:
    """Reads like the engine's own stream: `schema`, and batches one after the other."""

    def __init__(self, process: _Process, stopping: Callable[[], bool], done: Callable[[], None]) -> None:
        self._process, self._stopping, self._done = process, stopping, done
        _, data = process.answer(stopping)
        self.schema: pa.Schema = pa.ipc.read_schema(pa.py_buffer(data))

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> pa.RecordBatch:
        try:
            kind, data = self._process.answer(self._stopping)
        except BaseException:
            self.close()
            raise
        if kind == worker.END:
            self.close()
            raise StopIteration
        return pa.ipc.read_record_batch(pa.py_buffer(data), self.schema)

    def close(self) -> None:
        """Lets the process go; one that is not at the end of its rows is killed."""
        done, self._done = self._done, lambda: None
        if self._process.busy:
            self._process.kill()
        done()


class _Processes:
    """Some processes, each for one statement at a time, started when they are needed."""

    def __init__(self, memory_bytes: int) -> None:
        self._memory_bytes = memory_bytes
        self._free = threading.Condition()
        self._places = PROCESSES
        self._idle: deque[_Process] = deque()
        self._busy: set[_Process] = set()
        self._closed = False

    def close(self) -> None:
        """Kills them all."""
        with self._free:
            self._closed = True
            for process in self._idle:
                process.dispose()
            self._idle.clear()
            for process in self._busy:
                process.kill()
            self._free.notify_all()

    def take(self, stopping: Callable[[], bool]) -> _Process:
        with self._free:
            while self._places == 0 and not self._closed:
                if stopping():
                    raise CallerLeft("nobody waits for the statement any more")
                self._free.wait(LOOK_S)
            if self._closed:
                raise StoreClosed("the store is closed")
            while self._idle and not self._idle[0].alive:
                self._idle.popleft().dispose()
            process = self._idle.popleft() if self._idle else _Process(self._memory_bytes)
            self._places -= 1
            self._busy.add(process)
            return process

    def give_back(self, process: _Process) -> None:
        with self._free:
            self._places += 1
            self._busy.discard(process)
            if process.usable and not self._closed:
                self._idle.append(process)
            else:
                process.kill()
                if (
                    not self._closed
                ):  # another one now, so that the next statement does not wait for its start
                    self._idle.append(_Process(self._memory_bytes))
            self._free.notify()


class _Process:
    def __init__(self, memory_bytes: int) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            self._popen = subprocess.Popen(
                [sys.executable, "-c", START, str(theirs.fileno()), str(memory_bytes)],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            )
        self._link = Connection(ours.detach())
        self.usable, self.busy = True, True  # until it is ready

    @property
    def alive(self) -> bool:
        return self._popen.poll() is None

    def ask(
        self, kind: str, select: Select, parameters: Parameters | None, stopping: Callable[[], bool]
    ) -> None:
        if self.busy:
            self.answer(stopping)
        self.busy = True
        self.send_bytes(pickle.dumps((kind, select, parameters)))

    def send(self, copy: Copy, most: int, stopping: Callable[[], bool]) -> int:
        """Sends rows of at most so many bytes; how many are left of them."""
        self.send_bytes(json.dumps([copy.kind, copy.name]).encode())
        self.send_bytes(copy.rows.schema.serialize().to_pybytes())
        for batch in copy.rows:
            if stopping():
                raise CallerLeft("nobody waits for the statement any more")
            most -= batch.nbytes
            if most < 0:
                raise LimitReached(
                    "the statement has a function that runs apart, on a copy of what it reads, and "
                    f"{copy.name} is too large for that: name fewer columns, or leave the function out"
                )
            self.send_bytes(batch.serialize().to_pybytes())
        self.send_bytes(b"")
        return most

    def answer(self, stopping: Callable[[], bool]) -> tuple[bytes, bytes]:
        """The next message; kills the process and raises CallerLeft if `stopping` says so."""
        try:
            while not self._link.poll(LOOK_S):
                if stopping():
                    self.kill()
                    raise CallerLeft("nobody waits for the statement any more")
            data = self._link.recv_bytes()
        except (EOFError, OSError):
            self._died()
        kind, rest = data[:1], data[1:]
        if kind in (worker.READY, worker.END, worker.FAILED, worker.SHAPED):
            self.busy = False
        if kind == worker.FAILED:
            raise SqlError(rest.decode(errors="replace"))
        if kind == worker.TOO_MUCH:
            self._died()
        return kind, rest

    def kill(self) -> None:
        """Ends the process, whatever it does; from any thread."""
        self.usable = False
        self._popen.kill()
        self._popen.wait()

    def dispose(self) -> None:
        """Ends the process and closes its socket; only for whoever has the process, or who else would read
        from a number that is another file's by then."""
        self.kill()
        self._link.close()

    def send_bytes(self, data: bytes) -> None:
        try:
            self._link.send_bytes(data)
        except OSError:
            self._died()

    def _died(self) -> Any:
        self.kill()
        raise LimitReached(
            "the statement takes more memory than is allowed, and was ended: ask for less at once"
        ) from None
