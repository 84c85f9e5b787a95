"""One job in a process of its own, as an agent starts it: `python -m roofleet.running.job FD`.

Its order comes by standard input, see roofleet_agent.jobs.process; FD is where it reports. It writes its rows
into the agent's spool. It ends itself when the agent is gone, or its lease has ended.
"""

from __future__ import annotations

import base64
import contextlib
import ctypes
import dataclasses
import json
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from roofleet.commands.signals import terminating_interrupts
from roofleet.errors import FAILED, INTERRUPTED, UserError, line_of, status_of
from roofleet_agent.errors import JobRefused
from roofleet_agent.jobs.clock import now_s
from roofleet_proto.jobs import JobRequest, parse_request

if TYPE_CHECKING:
    import pyarrow as pa

    from roofleet_agent.devices.base import Device
    from roofleet_agent.sending.spool import Spool
    from roofleet_agent.workload import ModelRequest
    from roofleet_proto.records import RunChange

COMMAND = (sys.executable, "-m", "roofleet.running.job")
"""What an agent starts."""
_SET_DEATH_SIGNAL = 1
_SHOWN_S = 0.1


class Reports:
    """What the agent hears, a line of JSON each."""

    def __init__(self, pipe: IO[str]) -> None:
        self._pipe = pipe
        self._lock = threading.Lock()
        self._shown = ("", 0.0)

    def say(self, **report: Any) -> None:
        """Reports; an agent that is gone is told nothing."""
        with self._lock, contextlib.suppress(OSError):
            self._pipe.write(json.dumps(report) + "\n")
            self._pipe.flush()

    def show(self, what: str, fraction: float) -> None:
        """Hears what is being done and how far it is; tells it not too often."""
        said, at = self._shown
        if what != said or time.monotonic() - at > _SHOWN_S:
            self._shown = (what, time.monotonic())
            self.say(stage=what, fraction=fraction)

    def ran(self, rows: pa.Table) -> None:
        """Hears the row of the run, which the agent ends if this process cannot."""
        from roofleet_proto.codec import encode_rows

        self.say(run=base64.b64encode(encode_rows(rows)).decode())


class AgentsSpool:
    """The destination of rows that the agent sends."""

    collector: str | None = None
    warning = ""

    def deliver(self, spool: Spool) -> None:
        """See Destination.deliver: the agent does."""

    def query(self, sql: str, parameters: Sequence[object] = ()) -> pa.Table:
        """See Destination.query."""
        raise UserError("a job asks nothing of what is stored")

    def sql_address(self) -> None:
        """See Destination.sql_address."""

    def change_run(self, change: RunChange) -> bool:
        """See Destination.change_run."""
        return False

    def delete_runs(self, run_ids: Sequence[str]) -> list[str]:
        """See Destination.delete_runs."""
        return []

    def close(self) -> None:
        """See Destination.close."""


def main() -> None:
    """Does what it is ordered."""
    _end_with_parent()
    os.set_inheritable(int(sys.argv[1]), False)
    reports = Reports(os.fdopen(int(sys.argv[1]), "w"))
    with terminating_interrupts():
        try:
            orders = _standard_input()
            order = json.loads(orders.readline())
            holding = _Holding(orders, order["until"])
            threading.Thread(target=holding.listen, daemon=True).start()
            threading.Thread(target=holding.watch, daemon=True).start()
            run(order, reports)
        except KeyboardInterrupt:
            reports.say(ended="cancelled")
            status = INTERRUPTED
        except BaseException as error:
            if status_of(error) is None:
                traceback.print_exc()
            ended = "refused" if isinstance(error, JobRefused) else "failed"
            reports.say(ended=ended, error=(line_of(error) or type(error).__name__)[:4000])
            status = FAILED
        else:
            reports.say(ended="done")
            status = 0
    sys.stdout.flush()
    os._exit(status)  # torch takes a second to take itself down


class _Holding:
    """Ends this process when its agent is gone, or its lease has ended: no other may find it at work."""

    def __init__(self, orders: IO[bytes], until: float) -> None:
        self._orders, self._until = orders, until

    def listen(self) -> None:
        """Hears until when the lease holds."""
        for line in self._orders:
            with contextlib.suppress(ValueError, KeyError, TypeError):
                self._until = float(json.loads(line)["until"])
        _end("its agent is gone")

    def watch(self) -> None:
        """Looks whether it still holds."""
        while (left := self._until - now_s()) > 0:
            time.sleep(min(left, 0.2))
        _end("its lease has ended")


def _end(why: str) -> None:
    os.write(2, f"ended: {why}\n".encode())
    with contextlib.suppress(OSError):
        os.killpg(os.getpgrp(), signal.SIGKILL)
    os._exit(FAILED)


def _standard_input() -> IO[bytes]:
    """Standard input for us alone: libraries, and what they start, find an empty one."""
    mine = os.dup(0)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    return os.fdopen(mine, "rb")


def _end_with_parent() -> None:
    """Has the kernel end this process with its agent, and first when memory runs out (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_SET_DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)
        with contextlib.suppress(OSError):
            Path("/proc/self/oom_score_adj").write_text("1000")


def run(order: Mapping[str, Any], reports: Reports) -> None:
    """Runs the model that is ordered and keeps its rows in the agent's spool."""
    reports.show("starting", 0.0)
    from roofleet.naming.hub import settle_hub
    from roofleet.running.runs import Runs, dtype_for
    from roofleet_agent.registry import find_device
    from roofleet_agent.variants import parse
    from roofleet_agent.workload import Workload

    asked = parse_request(order["request"])
    texts = asked.prompt is not None or asked.quality_text is not None
    request = model_of(asked, order["folder"], order["revisions"])
    workload = Workload(
        asked.batch_size,
        asked.prompt_tokens,
        asked.new_tokens,
        asked.iterations,
        asked.warmup,
        asked.logits,  # type: ignore[arg-type]
        prompt=asked.prompt,
        attention=asked.attention,
        variant=parse(asked.variant),
        keep_outputs=asked.keep_outputs,
        quality_text=asked.quality_text,
        budget_s=asked.budget_s,
    )
    settle_hub(request, offline=not order["revisions"], tokenizer=texts)
    device = find_device(order["device"])
    _bound_memory(device, order["memory_bytes"])
    runs = Runs(Path(order["data"]), AgentsSpool(), spool=Path(order["spool"]))
    try:
        runs.sink.said = reports.ran
        runs.label(asked.name, asked.tags)
        runs.profile(
            request,
            device,
            dtype_for(asked.dtype, device),
            workload,
            reports.show,
            run_id=order["run_id"],
            job_id=order["job_id"],
            sweep_id=asked.sweep_id,
        )
        runs.measure_roofs(device, reports.show)
    finally:
        runs.close()


def model_of(asked: JobRequest, folder: str | None, revisions: Mapping[str, str]) -> ModelRequest:
    """The model of a request whose name the agent's rules allow: never code, of the hub only what has a
    commit. JobRefused if it needs more."""
    from roofleet.naming.architecture import check_settings, with_settings
    from roofleet.naming.models import resolve
    from roofleet_analysis.sweeps import model_name

    request = resolve(folder or asked.model, asked.weights)  # type: ignore[arg-type]
    if request.origin != asked.origin:
        raise JobRefused(f"{asked.model!r} is no model of the {asked.origin}, but of the {request.origin}")
    needs_hub = request.origin == "hub" or (
        request.origin == "catalog"
        and (request.weights == "pretrained" or asked.prompt is not None or asked.quality_text is not None)
    )
    if needs_hub:
        name = request.checkpoint or request.name
        if name not in revisions:
            raise JobRefused(f"{name} is not among the hub.models of this agent, which have a commit each")
        request = dataclasses.replace(request, revision=revisions[name])
    if asked.settings:
        check_settings(request, asked.settings)
        request = with_settings(request, asked.settings, model_name(request.name, dict(asked.settings)))
    return request


def _bound_memory(device: Device, most_bytes: int | None) -> None:
    """Keeps the allocator of an accelerator within bounds; the memory of a CPU is the agent's to watch."""
    has = device.info.memory_bytes
    if most_bytes is None or has is None or device.info.kind == "cpu":
        return
    import torch

    module = getattr(torch, device.info.backend, None)
    bound = getattr(module, "set_per_process_memory_fraction", None)
    if bound is not None:
        bound(
            min(most_bytes / has, 1.0), *([torch.device(device.torch_name)] if module is torch.cuda else [])
        )


if __name__ == "__main__":
    main()
