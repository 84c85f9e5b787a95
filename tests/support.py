"""What tests share: a tiny model, data folders, the command, and a collector in a process of its own."""

from __future__ import annotations

import contextlib
import datetime as dt
import io
import logging
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
from tests.processes import end, start

from roofleet_agent.workload import ModelRequest, Workload
from roofleet_proto.codec import encode_rows
from roofleet_proto.records import Batch
from roofleet_proto.tables import TABLES

TINY_GPT2 = {
    "model_type": "gpt2",
    "n_layer": 2,
    "n_embd": 32,
    "n_head": 2,
    "vocab_size": 101,
    "n_positions": 64,
    "architectures": ["GPT2LMHeadModel"],
}
TINY_BERT = {
    "model_type": "bert",
    "num_hidden_layers": 2,
    "hidden_size": 32,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "vocab_size": 101,
    "max_position_embeddings": 64,
    "architectures": ["BertModel"],
}
TINY_LLAMA = {
    "model_type": "llama",
    "num_hidden_layers": 2,
    "hidden_size": 32,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 48,
    "vocab_size": 101,
    "max_position_embeddings": 64,
    "architectures": ["LlamaForCausalLM"],
}
TINY_WORKLOAD = Workload(prompt_tokens=8, new_tokens=4, iterations=2, warmup=1)


def request(config: dict[str, Any], name: str = "tiny", task: Any = None) -> ModelRequest:
    """A request for a model of that configuration with random weights."""
    return ModelRequest(name, "catalog", "random", task, config)


@dataclass
class ListSink:
    """A sink that keeps rows in lists, by table."""

    tables: dict[str, list[pa.Table]] = field(default_factory=dict)

    def write(self, table: str, rows: pa.Table) -> None:
        """See Sink.write."""
        self.tables.setdefault(table, []).append(rows)

    def rows(self, table: str) -> list[dict[str, Any]]:
        """All rows written to a table."""
        return pa.concat_tables(self.tables[table]).to_pylist() if table in self.tables else []


def spans(count: int, run_id: str = "run", first: int = 0) -> pa.Table:
    """Rows of `spans` told apart by `start_ns`."""
    rows = [
        {
            "run_id": run_id,
            "phase": "decode",
            "iteration": 0,
            "step_index": 0,
            "path": f"h.{index % 12}",
            "start_ns": first + index,
            "duration_ns": 10,
            "self_ns": 5,
        }
        for index in range(count)
    ]
    return pa.Table.from_pylist(rows, schema=TABLES["spans"].schema)


def batch(rows: pa.Table, sequence: int, table: str = "spans", agent: str = "agent", epoch: int = 1) -> Batch:
    """Rows as a batch."""
    return Batch(agent, epoch, sequence, table, encode_rows(rows))


# -- data folders


def used(folder: Path) -> Path:
    """A data folder as it is after some use: it has a store without rows, and roofs that are remembered.

    To lay the tables and views of a new store takes a third of a second, to measure roofs takes some. Tests
    that are of neither begin with both.
    """
    return roofed(laid(folder))


def laid(folder: Path) -> Path:
    """A data folder with a store, without rows if it had none: as the first who opens it makes it."""
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "roofleet.duckdb").exists():
        (folder / "roofleet.duckdb").write_bytes(_store())
    return folder


@contextlib.contextmanager
def filled_copy(folder: Path, place: Path) -> Iterator[Any]:
    """A store that begins with what the one in a folder holds. To work its figures out once for many tests is
    worth a copy."""
    from roofleet_collector.store import DuckDBStore

    store = DuckDBStore(Path(shutil.copytree(folder, place)))
    yield store
    store.close()


def roofed(folder: Path) -> Path:
    """A data folder with roofs of this machine's CPU, so that none are measured: they are made up."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "roofs.json").write_text(_roofs())
    return folder


@cache
def _store() -> bytes:
    """The file of a store without rows."""
    from roofleet_collector.store import DuckDBStore

    with tempfile.TemporaryDirectory() as folder:
        store = DuckDBStore(Path(folder))
        store.close()
        return store.path.read_bytes()


@cache
def _roofs() -> str:
    """The file of roofs that were measured while the machine was quiet."""
    import pytest

    from roofleet_agent.devices.cpu import CpuDevice
    from roofleet_agent.roofs import remembered
    from roofleet_agent.roofs.measured import MeasuredRoof

    now = dt.datetime.now(dt.UTC)
    roofs = [
        *(
            MeasuredRoof("compute", dtype, None, 1e12, None, "made up", now, 2**20, 0.0)
            for dtype in ("fp32", "bf16", "fp16", "int8")
        ),
        *(
            MeasuredRoof("memory", None, level, None, per_s, "made up", now, size, 0.0)
            for level, per_s, size in (("dram", 1e11, 2**28), ("cache", 1e12, 2**19))
        ),
    ]
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr("roofleet_agent.roofs.measured.measure_roofs", lambda *_, **__: roofs)
        patch.setattr(remembered.Conditions, "row", lambda _: {"other_load": 0.0})
        remembered.measured_roofs(CpuDevice(), Path(folder))
        return (Path(folder) / remembered.FILE_NAME).read_text()


# -- the command


class _Told(io.TextIOWrapper):
    """A stream of text that raises a signal in this process when certain words are written, once."""

    def __init__(self, words: str, number: signal.Signals) -> None:
        super().__init__(io.BytesIO(), "utf-8", write_through=True)
        self._waiting: tuple[str, signal.Signals] | None = (words, number)

    def write(self, text: str) -> int:
        written = super().write(text)
        if self._waiting and self._waiting[0] in self.buffer.getvalue().decode():  # type: ignore[attr-defined]
            number, self._waiting = self._waiting[1], None
            if signal.getsignal(number) is signal.SIG_DFL:
                raise SystemExit(-number)  # as a process would end, and not with the one of the tests
            signal.raise_signal(number)
        return written


def roofleet(
    *arguments: str,
    data: Path,
    timeout: float = 120,
    stop: tuple[str, signal.Signals] | None = None,
    **env: str,
) -> subprocess.CompletedProcess[str]:
    """Runs the `roofleet` command with a data folder of its own, in this process, which has imported torch.

    Exit status, output and errors are those of a process. Where a process is the point (signals, encodings,
    what is imported, two of them at once) take `roofleet_process`, which is called alike. `stop` is words on
    the standard error output, and the signal that comes when they are there.
    """
    from roofleet.main import run

    out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True) for _ in range(2))
    if stop is not None:
        err = _Told(*stop)
    root = logging.getLogger()
    handlers, level, root.handlers = root.handlers, root.level, []
    uncaught = threading.excepthook
    environment, argv, streams = dict(os.environ), sys.argv, (sys.stdin, sys.stdout, sys.stderr)
    os.environ.update({"ROOFLEET_DATA": str(data), "HF_HUB_OFFLINE": "1"} | env)
    sys.argv = ["roofleet", *arguments]
    sys.stdin, sys.stdout, sys.stderr = io.StringIO(), out, err
    status: Any = 0
    try:
        run()
    except SystemExit as left:
        status = left.code
    except Exception:
        traceback.print_exc()
        status = 1
    finally:
        sys.stdin, sys.stdout, sys.stderr = streams
        sys.argv = argv
        os.environ.clear()
        os.environ.update(environment)
        root.handlers = handlers
        root.setLevel(level)
        logging.captureWarnings(False)
        threading.excepthook = uncaught
    said, complained = (stream.buffer.getvalue().decode() for stream in (out, err))  # type: ignore[attr-defined]
    return subprocess.CompletedProcess(arguments, status or 0, said, complained)


def roofleet_process(
    *arguments: str, data: Path, timeout: float = 600, **env: str
) -> subprocess.CompletedProcess[str]:
    """Runs the `roofleet` command in a process of its own, which is killed if it does not end in time."""
    process = start_roofleet(*arguments, data=data, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **env)
    try:
        out, err = process.communicate(timeout=timeout)
    finally:
        end(process)
    return subprocess.CompletedProcess(arguments, process.returncode, out, err)


def start_roofleet(
    *arguments: str, data: Path, stdout: Any = None, stderr: Any = None, **env: str
) -> subprocess.Popen[str]:
    """Starts the `roofleet` command; the caller ends it with `tests.processes.end`, whatever happens."""
    place = {"ROOFLEET_DATA": str(data), "HF_HUB_OFFLINE": "1"}
    return start("-m", "roofleet", *arguments, stdout=stdout, stderr=stderr, env=os.environ | place | env)


# -- a collector in a process of its own


@dataclass
class CollectorProcess:
    """A running `roofleet collector`."""

    process: subprocess.Popen[str]
    grpc: str
    sql: str
    data: Path

    def kill(self) -> None:
        """SIGKILL: it has no moment to finish anything."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(60)

    def terminate(self) -> int:
        """SIGTERM; returns the exit status."""
        self.process.terminate()
        try:
            return self.process.wait(120)
        finally:
            end(self.process)


def start_collector(
    data: Path,
    grpc: str = "127.0.0.1:0",
    sql: str = "127.0.0.1:0",
    *more: str,
    faults: tuple[str, str] | None = None,
) -> CollectorProcess:
    """Starts a collector and waits until it serves.

    With `faults` it is killed at that step, when it comes to it so many times: see tests/faults.py.
    """
    laid(data)
    command = ("-m", "roofleet") if faults is None else ("-m", "tests.faults", *faults, "roofleet")
    process = start(
        *(*command, "collector", "--data", str(data), "--grpc", grpc, "--sql", sql, *more),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert process.stdout is not None
    line = process.stdout.readline()
    found = re.search(r"gRPC on (\S+), Flight SQL on (\S+),", line)
    if not found:
        rest = process.stdout.read()
        end(process)
        raise AssertionError(line + rest)
    return CollectorProcess(process, found[1], found[2], data)


@contextlib.contextmanager
def collector(data: Path, *more: str) -> Iterator[CollectorProcess]:
    """A collector, with more options if there are, that is stopped in the end."""
    running = start_collector(data, "127.0.0.1:0", "127.0.0.1:0", *more)
    try:
        yield running
    finally:
        if running.process.poll() is None:
            running.terminate()
        end(running.process)


def free_port() -> int:
    """A port that nobody listened on a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def eventually(condition: Any, timeout_s: float = 120.0) -> None:
    """Waits until a condition holds, as long as it takes on a busy machine; fails if it never does."""
    give_up = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < give_up, "it did not come true in time"
        time.sleep(0.05)


def arrow_stream(*batches: pa.RecordBatch, compression: str | None = None) -> bytes:
    """Batches as one Arrow IPC stream."""
    sink = pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(compression=compression)
    with pa.ipc.new_stream(sink, batches[0].schema, options=options) as writer:
        for batch in batches:
            writer.write_batch(batch)
    return bytes(sink.getvalue())


def bent(data: bytes, old: int, new: int) -> bytes:
    """The bytes with the last number `old` changed: offsets that pyarrow would not make wrong itself."""
    place = data.rindex(struct.pack("<i", old))
    return data[:place] + struct.pack("<i", new) + data[place + 4 :]
