"""A run from request to rows: traced on `meta`, checked for room, loaded, and looked at by one pass after the
other. Which passes a run has is said here."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch

from roofleet_agent.devices.base import Device
from roofleet_agent.engines.base import DTYPE_BYTES, TORCH_DTYPES, Engine
from roofleet_agent.engines.checkpoints import load_tokenizer
from roofleet_agent.errors import OutOfMemory, WorkloadRefused
from roofleet_agent.inventory import device_id
from roofleet_agent.measuring.allocator import (
    allocator_peak_bytes,
    is_out_of_memory,
    process_peak_bytes,
    release,
)
from roofleet_agent.measuring.step_memory import peak_of_first_step
from roofleet_agent.passes.base import Found, Pass, Progress, Subject, of_run
from roofleet_agent.passes.describing import asked, described, model_of
from roofleet_agent.passes.energy import energy
from roofleet_agent.passes.memory import memory
from roofleet_agent.passes.ops import ops
from roofleet_agent.passes.outputs import outputs
from roofleet_agent.passes.quality import quality
from roofleet_agent.passes.record import Record
from roofleet_agent.passes.timing import Timing, in_turns, timing
from roofleet_agent.passes.tracing import (
    StatedCost,
    Traced,
    kv_bytes_per_token,
    no_stated_cost,
    trace_phases,
    traced_rows,
)
from roofleet_agent.registry import find_engine
from roofleet_agent.rows import Sink
from roofleet_agent.variants.applying import compiling
from roofleet_agent.workload import ModelRequest, Workload

AFTER_TIMING: tuple[Pass, ...] = (energy, outputs, memory, ops, quality)
"""Passes that slow what they count, or run it otherwise than it was timed."""
PASSES: tuple[Pass, ...] = (timing, *AFTER_TIMING)
"""What a run on a device looks at, in this order."""


def silent(what: str, fraction: float) -> None:
    """Progress that nobody hears."""


@dataclass(frozen=True)
class Plan:
    """What a run is to be of, and what else its row says: the job or sweep it belongs to, for example."""

    request: ModelRequest
    device: Device
    dtype: str
    workload: Workload
    columns: dict[str, str | None]


def profile(
    request: ModelRequest,
    device: Device,
    dtype: str,
    workload: Workload,
    sink: Sink,
    *,
    progress: Progress = silent,
    loaded: Callable[[], None] = lambda: None,
    stated_cost: StatedCost = no_stated_cost,
    **columns: str | None,
) -> str:
    """Runs a model on a device and writes every row of the run to the sink; returns the run's id.

    `loaded` is called when the model is there and its run, layers and ops are written: the last moment to
    send something before measuring. `stated_cost` knows the user's own cost formulas. `columns` go to the
    run's row, such as `sweep_id`.

    A run that fails is stored as failed with its reason, and the error raised on; OutOfMemory if the device
    had no room. KeyboardInterrupt stores it as cancelled.
    """
    plan = Plan(request, device, dtype, workload, columns)
    with _loading(plan, sink, progress, stated_cost) as (record, subject):
        loaded()
        for each in PASSES:
            record.take(each(subject))
    return record.run_id


def profile_in_turns(
    plans: Sequence[Plan],
    sink: Sink,
    *,
    progress: Progress = silent,
    loaded: Callable[[], None] = lambda: None,
    stated_cost: StatedCost = no_stated_cost,
) -> list[str]:
    """Runs several models that are loaded beside one another, their steps in turns, so that whatever the
    machine does meanwhile is done to all of them; returns the runs' ids in the order of the plans.

    The workload of the first says how many iterations there are. Errors are those of `profile`; one that
    fails ends all of them, and all are stored as cancelled with its reason: whether each can run by itself
    was not seen. WorkloadRefused, before anything is stored, if there is no room for all of them.
    """
    check_room_together(plans)
    with ExitStack() as stack:
        both = [
            stack.enter_context(_loading(plan, sink, progress, stated_cost, failing="cancelled"))
            for plan in plans
        ]
        group = both[0][0].run_id
        for record, _ in both:
            record.take([of_run(turns_id=group)])
        loaded()
        for number, found in in_turns([Timing(subject) for _, subject in both]):
            both[number][0].take([found])
        for record, subject in both:
            for each in AFTER_TIMING:
                record.take(each(subject))
    return [record.run_id for record, _ in both]


@contextmanager
def _loading(
    plan: Plan, sink: Sink, progress: Progress, stated_cost: StatedCost, failing: str = "failed"
) -> Iterator[tuple[Record, Subject]]:
    """A run with its model loaded: traced, described, and written with however it ends; `failing` is the
    status of one that ends by an error."""
    request, device, dtype, workload = plan.request, plan.device, plan.dtype, plan.workload
    engine = find_engine(request)
    columns = asked(request, engine, device, dtype, workload)
    record = Record(sink, device_id(device), **columns | plan.columns)
    expected: list[Found] = []
    with ExitStack() as stack, _ending(record, plan, expected, failing):
        check_dtype(device, dtype)
        if workload.quality_text is not None and request.weights == "pretrained":
            load_tokenizer(request)  # refused now rather than after everything is measured
        progress("tracing on meta", 0.0)
        traced = trace_phases(engine, request, dtype, workload)
        kv_bytes = kv_bytes_per_token(traced.session, dtype)
        check_room(traced, request, device, dtype, workload)
        expected += model_of(request, traced.session)
        traced.session.close()
        stack.enter_context(compiling(workload.variant))
        subject = _load(stack, plan, engine, record, progress)
        record.take(described(request, subject.session, workload))
        record.say()
        record.take(traced_rows(traced.phases, kv_bytes, stated_cost, subject.session.opaque))
        yield record, subject
        progress("done", 1.0)


def _load(stack: ExitStack, plan: Plan, engine: Engine, record: Record, progress: Progress) -> Subject:
    progress("loading the model", 0.05)
    place = torch.device(plan.device.torch_name)
    session = engine.load(plan.request, place, plan.dtype, plan.workload)

    def let_go() -> None:
        session.close()
        gc.collect()
        release(place)

    stack.callback(let_go)
    return Subject(
        plan.request, engine, session, plan.device, plan.dtype, plan.workload, record.began_ns, progress
    )


@contextmanager
def _ending(record: Record, plan: Plan, expected: list[Found], failing: str) -> Iterator[None]:
    """Writes how a run ended; if memory ran out before its model was there, with the model expected."""
    try:
        yield
    except KeyboardInterrupt:
        record.finish("cancelled", "interrupted")
        raise
    except Exception as error:
        if not is_out_of_memory(error):
            record.finish(failing, f"{type(error).__name__}: {error}")
            raise
        name, device = plan.request.name, plan.device
        peak = allocator_peak_bytes(torch.device(device.torch_name)) or process_peak_bytes()
        if "model_id" not in record.row:
            record.take(expected)
        record.take([of_run(peak_memory_bytes=peak, peak_memory_source="when memory ran out")])
        refused = OutOfMemory(
            f"{device.info.name} ran out of memory with {peak / 2**30:.1f} GiB in use: lower the batch or "
            f"the tokens, or ask `roofleet analyze {name}` what fits"
        )
        record.finish(failing, str(refused))
        raise refused from error
    else:
        record.finish("done")


def check_dtype(device: Device, dtype: str) -> None:
    """WorkloadRefused, with those that work, if the device cannot multiply matrices of that dtype."""

    def works(name: str) -> bool:
        try:
            a = torch.ones(8, 8, dtype=TORCH_DTYPES[name], device=device.torch_name)
            return bool((a @ a).isfinite().all())
        except (RuntimeError, NotImplementedError, TypeError):
            return False

    if not works(dtype):
        there = ", ".join(name for name in TORCH_DTYPES if works(name)) or "none"
        raise WorkloadRefused(f"{device.info.name} does not compute in {dtype}; it does in {there}")


def check_room_together(plans: Sequence[Plan]) -> None:
    """WorkloadRefused if the weights of several models cannot lie in the device's memory at once."""
    available = plans[0].device.info.memory_bytes
    weights = 0
    for plan in plans if available is not None else ():
        traced = trace_phases(find_engine(plan.request), plan.request, plan.dtype, plan.workload)
        traced.session.close()
        weights += traced.weight_bytes
    if available is not None and weights > available:
        raise WorkloadRefused(
            f"{len(plans)} models beside one another need {weights / 2**30:.1f} GiB for their weights "
            f"alone, and {plans[0].device.info.name} has {available / 2**30:.1f} GiB: profile each by itself"
        )


def check_room(traced: Traced, request: ModelRequest, device: Device, dtype: str, workload: Workload) -> None:
    """WorkloadRefused if weights, cache and activations cannot fit in the device's memory."""
    available = device.info.memory_bytes
    if available is None:
        return
    session, gib = traced.session, 2**30
    tokens = session.prompt_tokens + max(session.new_tokens - 1, 0)
    cache = session.cache_elements(tokens) * workload.batch_size * DTYPE_BYTES[dtype]
    beside = max(cache, peak_of_first_step(session)) if traced.weight_bytes <= available else cache
    if traced.weight_bytes + beside > available:
        raise WorkloadRefused(
            f"{request.name} needs {(traced.weight_bytes + beside) / gib:.1f} GiB in {dtype}: "
            f"{traced.weight_bytes / gib:.1f} for its weights and at least {beside / gib:.1f} for cache and "
            f"activations, and {device.info.name} has {available / gib:.1f} GiB. "
            f"`roofleet analyze {request.name}` says what fits"
        )
