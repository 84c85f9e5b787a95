"""Times every op of a step, in a pass of its own: how long each kind of op takes in each layer."""

from __future__ import annotations

import contextlib
import statistics
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from roofleet_agent.engines.base import Step
from roofleet_agent.names import op_name
from roofleet_agent.storage import plain_tensors
from roofleet_agent.tracing.operands import is_bookkeeping, tensors_in
from roofleet_agent.tracing.tracer import follow_layers

STEPS = 3
"""Steps of each phase that are timed so; figures are their medians."""
_MARK = "roofleet"


@dataclass(frozen=True)
class OpTime:
    """Calls of an op in one layer in one step and the host's time inside them; on an accelerator also the
    time and number of the kernels they launched (None on a CPU)."""

    path: str
    op: str
    calls: int
    duration_ns: int
    busy_ns: int | None = None
    kernels: int | None = None

    def with_more(self, other: OpTime) -> OpTime:
        """Both together, under this one's layer."""

        def both(a: int | None, b: int | None) -> int | None:
            return None if a is None or b is None else a + b

        return OpTime(
            self.path,
            self.op,
            self.calls + other.calls,
            self.duration_ns + other.duration_ns,
            both(self.busy_ns, other.busy_ns),
            both(self.kernels, other.kernels),
        )


class _OpTimer(TorchDispatchMode):
    """Notes layer, name and time of every op that is no view; marks them for torch's profiler if asked."""

    supports_higher_order_operators = True

    def __init__(self, stack: list[str], marked: bool) -> None:
        super().__init__()
        self._stack = stack
        self._marked = marked
        self.seen: list[tuple[str, str, int]] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        path, name = self._stack[-1], op_name(func)
        mark: Any = contextlib.nullcontext()
        if self._marked:
            mark = torch.profiler.record_function(f"{_MARK}|{path}|{name}")
        with mark:
            begin = time.perf_counter_ns()
            result = func(*args, **(kwargs or {}))
            duration = time.perf_counter_ns() - begin
        if _computes(func, args, kwargs or {}, result):
            self.seen.append((path, name, duration))
        return result


def _computes(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], result: Any) -> bool:
    """Whether an op is one that the trace counts: no bookkeeping, no question, and more than another view of
    what it was given, as dropout is outside of training."""
    schema = getattr(func, "_schema", None)
    if is_bookkeeping(func):
        return False
    if schema is None or schema.is_mutable:
        return True
    given = set(_storages(result))
    if not given:
        return bool(func.namespace != "aten")
    return not given <= set(_storages((args, kwargs)))


def _storages(tree: Any) -> Iterator[int]:
    for tensor in tensors_in(tree):
        for plain in plain_tensors(tensor):
            yield plain.untyped_storage()._cdata


def time_ops(model: nn.Module, device: torch.device, steps: Iterable[Step]) -> dict[str, list[OpTime]]:
    """Runs the steps, each before the next is asked for, and gives the median step's op times by phase."""
    found: dict[str, list[dict[tuple[str, str], OpTime]]] = defaultdict(list)
    for step in steps:
        if len(found[step.phase]) >= STEPS:
            step.call()
            continue
        found[step.phase].append(_one_step(model, device, step))
    return {phase: list(_middle(times)) for phase, times in found.items()}


def _one_step(model: nn.Module, device: torch.device, step: Step) -> dict[tuple[str, str], OpTime]:
    stack = [""]
    timer = _OpTimer(stack, marked=device.type != "cpu")
    profiler: Any = contextlib.nullcontext()
    if device.type != "cpu":
        profiler = torch.profiler.profile()
    with profiler, torch.inference_mode(), torch.compiler.set_stance("force_eager"):
        with follow_layers(model, stack), timer:
            step.call()
        if device.type != "cpu":
            torch.accelerator.synchronize(device)
    calls: dict[tuple[str, str], int] = defaultdict(int)
    durations: dict[tuple[str, str], int] = defaultdict(int)
    for path, op, duration in timer.seen:
        calls[path, op] += 1
        durations[path, op] += duration
    busy = None if device.type == "cpu" else busy_of(profiler.events())
    return {
        key: OpTime(
            *key, calls[key], durations[key], *((None, None) if busy is None else busy.get(key, (0, 0)))
        )
        for key in calls
    }


def busy_of(events: Iterable[Any]) -> dict[tuple[str, str], tuple[int, int]]:
    """Kernel time in ns and number of kernels by layer and op, from the profiler's events.

    An op's mark is an event of the host that has the launches of its kernels among its descendants; the
    device shows an event of the same name, which is not one.
    """
    found: dict[tuple[str, str], tuple[int, int]] = {}
    for event in events:
        if not event.name.startswith(f"{_MARK}|") or event.device_type.name != "CPU":
            continue
        _, path, op = event.name.split("|")
        kernels = [kernel for part in _descendants(event) for kernel in part.kernels]
        before = found.get((path, op), (0, 0))
        # the profiler tells microseconds
        busy = round(sum(kernel.duration for kernel in kernels) * 1e3)
        found[path, op] = (before[0] + busy, before[1] + len(kernels))
    return found


def _descendants(event: Any) -> Iterator[Any]:
    yield event
    for child in event.cpu_children:
        yield from _descendants(child)


def _middle(steps: list[dict[tuple[str, str], OpTime]]) -> Iterator[OpTime]:
    for key in dict.fromkeys(key for step in steps for key in step):
        times = [step[key] for step in steps if key in step]
        busy = [t.busy_ns for t in times if t.busy_ns is not None]
        yield OpTime(
            *key,
            times[-1].calls,
            round(statistics.median(t.duration_ns for t in times)),
            round(statistics.median(busy)) if busy else None,
            times[-1].kernels,
        )
