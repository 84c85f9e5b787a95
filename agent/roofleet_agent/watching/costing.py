"""What the calls of each phase cost: their samples played, decode drawn on to the middle of its steps."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from torch import nn

from roofleet_agent.measuring.finite import all_finite
from roofleet_agent.measuring.step_memory import MemoryFound
from roofleet_agent.variants import Note
from roofleet_agent.watching.copying import Unplayable
from roofleet_agent.watching.growing import memory_at, trace_at
from roofleet_agent.watching.phases import Phase
from roofleet_agent.watching.playing import Played, play

log = logging.getLogger(__name__)


@dataclass
class Costs:
    """What was played, by phase; `cached` are the cached tokens that decode's ops stand for."""

    played: dict[str, Played] = field(default_factory=dict)
    cached: int | None = None
    notes: list[Note] = field(default_factory=list)

    @property
    def finite(self) -> bool | None:
        """Whether everything given out was finite."""
        return all_finite(played.finite for played in self.played.values())


def costs_of(model: nn.Module, phases: Iterable[Phase]) -> Costs:
    """Plays what was kept of each phase; what cannot be played is a note."""
    found = Costs()
    for phase in phases:
        try:
            _add(found, model, phase)
        except Unplayable as why:
            _unknown(found, phase, str(why))
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # whatever the user's model does when it is called once more
            log.debug("a call of %s could not be played", phase.name, exc_info=error)
            _unknown(found, phase, f"{type(error).__name__}: {str(error).partition(chr(10))[0]}")
    return found


def _unknown(found: Costs, phase: Phase, why: str) -> None:
    found.notes.append(Note("", why, f"the ops and memory of {phase.name} are not known"))


def _add(found: Costs, model: nn.Module, phase: Phase) -> None:
    if phase.first is None:
        raise Unplayable(phase.unplayable or "no call of it ended")
    played = play(model, phase.first, phase.name)
    if phase.name == "decode":
        played = _in_the_middle(found, model, phase, played)
    found.played[phase.name] = played
    if played.without_hooks:
        layers = ", ".join(path or "the model itself" for path in played.without_hooks[:3])
        reason = f"hooks of your own are not called again (on {layers})"
        found.notes.append(Note("", reason, f"what they compute in {phase.name} is not counted"))


def _in_the_middle(found: Costs, model: nn.Module, phase: Phase, first: Played) -> Played:
    """Decode as its middle step executes it, and the memory of its longest."""
    assert phase.first is not None
    found.cached = phase.first.cached
    wanted = phase.middle_cached if phase.steps else phase.first.cached
    if phase.later is None or wanted == phase.first.cached:
        return first
    later, distance = play(model, phase.later, phase.name), phase.later.cached - phase.first.cached
    traced = trace_at(first.traced, later.traced, (wanted - phase.first.cached) / distance)
    if traced is None:  # it executes other ops as it grows: what was seen stands, the longer one
        found.cached = phase.later.cached
        return later
    found.cached = wanted
    lengths = [step.step.cache_tokens for step in phase.steps]
    memory = memory_at(first.memory, later.memory, (max(lengths) - phase.first.cached) / distance)
    return replace(first, traced=traced, memory=_at_step(memory, lengths.index(max(lengths))))


def _at_step(memory: MemoryFound, index: int) -> MemoryFound:
    phases = {name: replace(phase, peak_step_index=index) for name, phase in memory.phases.items()}
    return MemoryFound(phases, memory.layers)
