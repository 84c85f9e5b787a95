"""What each phase of an iteration holds at its peak: the tracker led through the steps of a session."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import nn

from roofleet_agent.engines.base import Session, Step
from roofleet_agent.measuring.memory import LayerMemory, MemoryTracker, over_calls
from roofleet_agent.storage import state_tensors, stored_bytes


@dataclass(frozen=True)
class PhaseMemory:
    """What a phase holds at its peak, in bytes, and when and where that was.

    `start_bytes` were alive beside the weights when the step with the peak began.
    """

    phase: str
    weight_bytes: int
    kv_bytes: int
    activation_bytes: int
    start_bytes: int
    peak_step_index: int
    peak_path: str | None
    peak_op: str | None

    @property
    def peak_bytes(self) -> int:
        """All of it."""
        return self.weight_bytes + self.kv_bytes + self.activation_bytes


class HasMemory(Protocol):
    """A model and its key-value cache, as a Session has them."""

    module: nn.Module

    def cache(self) -> Iterable[torch.Tensor]:
        """See Session.cache."""
        ...


@dataclass(frozen=True)
class MemoryFound:
    """What the memory pass found: one entry a phase, and the layers of its step with the highest peak."""

    phases: dict[str, PhaseMemory]
    layers: dict[str, list[LayerMemory]]


def memory_of(session: HasMemory, steps: Iterable[Step]) -> MemoryFound:
    """Runs the steps under a memory tracker; each must be called before the next is asked for.

    Works on `meta` as on a device: the figures are those of tensors, which are the same everywhere.
    """
    module = session.module
    weights = stored_bytes(module)
    tracker = MemoryTracker(state_tensors(module))
    found = MemoryFound({}, {})
    # a mode that looks on keeps code from being compiled, and some, flex attention's, insists on it
    uncompiled = torch.compiler.set_stance("force_eager")
    with torch.inference_mode(), uncompiled, tracker, tracker.following(module):
        for step in steps:
            tracker.begin_step(session.cache())
            before = tracker.live_bytes
            step.call()
            tracker.mark_cache(session.cache())
            peak = tracker.peak()
            known = found.phases.get(step.phase)
            if known is None or known.peak_bytes < weights + peak.bytes:
                found.phases[step.phase] = PhaseMemory(
                    step.phase,
                    weights,
                    peak.kv_bytes,
                    peak.bytes - peak.kv_bytes,
                    before,
                    step.step_index,
                    peak.path,
                    peak.op,
                )
                found.layers[step.phase] = over_calls(tracker.layers)
    return found


def peak_of_first_step(session: Session) -> int:
    """The most cache and activation bytes alive in the first step of an iteration."""
    found = memory_of(session, itertools.islice(session.iteration(), 1))
    return max(f.peak_bytes - f.weight_bytes for f in found.phases.values())
