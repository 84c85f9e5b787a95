"""What is known of one kind of call: which there were, what the first was like, and how long they took."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field

from roofleet_agent.measuring.steps import TimedStep
from roofleet_agent.watching.playing import Sample

_LEAST_ALONE = 4
"""Timed and bare calls there must be that ran by themselves, for those that did not to be left out."""


@dataclass
class Phase:
    """What is known of one kind of call: what the first was, samples to play, and times of those like it.

    `unplayable` is why there is no sample; `trains` whether a backward pass may follow; `beside` are steps
    that ran while others did in other threads.
    """

    name: str
    entry: str = ""
    shape: tuple[int, ...] | None = None
    batch: int = 1
    tokens: int = 0
    logits: str = "all"
    trains: bool = False
    first: Sample | None = None
    later: Sample | None = None
    unplayable: str | None = None
    begun: int = 0
    unlike: int = 0
    alone: list[TimedStep] = field(default_factory=list)
    beside: list[TimedStep] = field(default_factory=list)

    @property
    def steps(self) -> list[TimedStep]:
        """The steps to be told: those that ran by themselves, or where these are too few the others."""
        enough = min(_LEAST_ALONE, _of_both_kinds(self.beside))
        return self.alone if self.alone and _of_both_kinds(self.alone) >= enough else self.beside

    @property
    def middle_cached(self) -> int:
        """Cached tokens of the middle one of the steps."""
        return statistics.median_low([step.step.cache_tokens for step in self.steps])

    def of_kind(self, kind: str) -> int:
        """How many of its calls were timed so: `bare` or `timed`."""
        return sum(step.kind == kind for step in (*self.alone, *self.beside))

    @property
    def is_timed_next(self) -> bool:
        """Whether the next call is to be timed with its layers: calls take turns."""
        return self.of_kind("timed") <= self.of_kind("bare")


def _of_both_kinds(steps: list[TimedStep]) -> int:
    kinds = [step.kind for step in steps]
    return min(kinds.count("timed"), kinds.count("bare"))
