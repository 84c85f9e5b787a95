"""Which layers are timed in which step, so that timing them slows no phase by more than a hundredth."""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping

from roofleet_agent.measuring.calibration import TimerCost
from roofleet_agent.measuring.layer_timer import Group, LayerTimer

MOST_OVERHEAD = 0.01
LEAST_STEPS = 3
"""Steps each layer is timed in at least: fewer groups are made where there are too few steps for that."""
_EXPECTED_NS = 10_000.0
"""Cost of a call on an accelerator, where it is not calibrated: two events created and recorded."""
_IN_A_MODEL = 2.0
"""Among a model's own code noting an instant finds cold caches, and costs more than in that loop."""


class Turns:
    """Splits the layers of a phase into groups when the warm-up has shown how long its steps take."""

    def __init__(self, timer: LayerTimer, cost: TimerCost | None) -> None:
        self.timer = timer
        self._cost_ns = cost.total_ns * _IN_A_MODEL if cost else _EXPECTED_NS
        self._seen: dict[str, list[tuple[int, int]]] = defaultdict(list)
        self._groups: dict[str, list[Group]] = {}
        self._taken: dict[str, Iterator[int]] = defaultdict(itertools.count)
        self._whole = timer.groups(1)[0]

    def saw(self, phase: str, duration_ns: int, calls: int) -> None:
        """A warm-up step of a phase took so long with so many calls of layers timed."""
        self._seen[phase].append((duration_ns, calls))

    def settle(self, steps: Mapping[str, int]) -> None:
        """Ends the warm-up; `steps` are the steps that will be timed in each phase."""
        for phase, seen in self._seen.items():
            duration, calls = min(seen)
            share = calls * self._cost_ns / max(duration, 1)
            wanted = math.ceil(share / MOST_OVERHEAD)
            self._groups[phase] = self.timer.groups(min(wanted, steps.get(phase, 0) // LEAST_STEPS))

    def group(self, phase: str) -> Group:
        """The layers to time in the next step of a phase: all until settled, then each group in its turn."""
        groups = self._groups.get(phase)
        return groups[next(self._taken[phase]) % len(groups)] if groups else self._whole
