"""The allocator's own account of a step: the most it gave out, workspace inside kernels included."""

from __future__ import annotations

import os
import resource
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class AllocatorPeak:
    """The most given out at once and the most reserved from the device, in bytes; None where not told."""

    peak_bytes: int | None
    reserved_bytes: int | None


def watch(device: torch.device, call: Callable[[], Any], before_bytes: int) -> AllocatorPeak:
    """Runs a step and asks the allocator what it gave out meanwhile; `before_bytes` were in use before.

    Accelerators keep the figures themselves. On the CPU they are summed from the allocations that torch's
    profiler reports, which slows the step: nothing is to be timed here.
    """
    return (
        _on_cpu(call, before_bytes) if device.type == "cpu" else _on_accelerator(device, call, before_bytes)
    )


def run_before_watched(device: torch.device, call: Callable[[], Any]) -> None:
    """Runs the step before the one that is watched. torch's profiler tells of a block's end only if it saw it
    given out: a cache that grows by copying itself would seem to be kept beside its copy."""
    if device.type != "cpu":
        call()
        return
    with _recorded():
        call()


def _on_cpu(call: Callable[[], Any], before_bytes: int) -> AllocatorPeak:
    with _recorded() as recorded:
        call()
    results: Any = recorded.kineto_results
    level = most = 0
    for event in results.events():
        if event.name() == "[memory]":
            level += event.nbytes()
            most = max(most, level)
    return AllocatorPeak(before_bytes + most, None)


def _on_accelerator(device: torch.device, call: Callable[[], Any], before_bytes: int) -> AllocatorPeak:
    try:
        torch.accelerator.synchronize(device)
        torch.accelerator.reset_peak_memory_stats(device)
        held = torch.accelerator.memory_allocated(device)
        call()
        torch.accelerator.synchronize(device)
        most = torch.accelerator.max_memory_allocated(device)
        reserved = torch.accelerator.max_memory_reserved(device)
    except (RuntimeError, NotImplementedError, AttributeError) as error:
        if is_out_of_memory(error):
            raise
        call()
        return AllocatorPeak(None, None)
    # models that take turns are in the same process: what the others hold is not this one's
    return AllocatorPeak(int(most) - int(held) + before_bytes, int(reserved))


@contextmanager
def _recorded() -> Iterator[Any]:
    from torch.autograd.profiler import profile

    with _native_messages_aside(), profile(profile_memory=True) as recorded:
        yield recorded


@contextmanager
def _native_messages_aside() -> Iterator[None]:
    """Keeps what torch's profiler writes to the terminal for its own developers off it."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def allocator_peak_bytes(device: torch.device) -> int | None:
    """The most an accelerator's allocator gave out; None on the CPU and where the backend does not tell."""
    if device.type == "cpu":
        return None
    try:
        return int(torch.accelerator.max_memory_allocated(device))
    except (RuntimeError, NotImplementedError, AttributeError):
        return None


def process_peak_bytes() -> int:
    """The most memory this process ever held."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def release(device: torch.device) -> None:
    """Gives back what an accelerator's allocator keeps for later, and lets it begin a new peak."""
    if device.type == "cpu":
        return
    with suppress(RuntimeError, NotImplementedError, AttributeError):
        torch.accelerator.empty_cache()
        torch.accelerator.reset_peak_memory_stats(device)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocator failed: accelerators have an error for it, the CPU's says so in its text."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and "allocate memory" in str(error)
