"""Times layers by noting an instant before and after each call; the rest is worked out after the step.

Where timing every layer at once would slow a step too much, the layers are timed in turns: a group of them
in each step. A layer's own time is its interval less those of the layers it calls, so a group is some callers
together with everything they call.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import nn

from roofleet_agent.calling import Call, around
from roofleet_agent.measuring.clocks import Clock

_LEAVE = -1
_CALLER = -1


@dataclass(frozen=True, slots=True)
class Interval:
    """One call of one layer in ns: since the step began, in all, and less the layers inside.

    `self_ns` is None where the layers inside were not timed in this step; `inner_calls` counts the timed ones
    directly inside.
    """

    path: str
    start_ns: int
    duration_ns: int
    self_ns: int | None
    inner_calls: int = 0


@dataclass(frozen=True)
class Group:
    """Layers, by number, that are timed in one step, and those of them whose own time is then known."""

    number: int
    timed: frozenset[int]
    complete: frozenset[int]


class LayerTimer:
    """Notes when layers begin and end inside `timing`; steps that time them all also see who calls whom."""

    def __init__(self, model: nn.Module, clock: Clock, opaque: Collection[str] = ()) -> None:
        """`opaque` names layers inside which nothing can be timed, such as compiled ones."""
        self._clock = clock
        self._paths: list[str] = []
        self._modules: list[nn.Module] = []
        for path, module in model.named_modules():
            self._paths.append(path)
            self._modules.append(module)
        inside = tuple("" if path == "" else f"{path}." for path in opaque)
        every = frozenset(
            index
            for index, path in enumerate(self._paths)
            if path in opaque or not path.startswith(inside) or not inside
        )
        self._whole = Group(0, every, every)
        self._current = self._whole
        self._calls: dict[int, set[int]] = {}
        self._layers: list[int] = []
        self._marks: list[Any] = []
        self._thread = 0

    def groups(self, count: int) -> list[Group]:
        """Splits the layers into at most so many groups of like size, by the calls seen so far."""
        callers = sorted(caller for caller in self._calls if caller != _CALLER)
        count = min(count, len(callers))
        if count <= 1:
            return [self._whole]
        made: list[Group] = []
        told: set[int] = set()  # each layer's own time is told in one group, though two may time it
        for number in range(count):
            mine = callers[number::count]
            inside = set().union(*(self._calls[caller] for caller in mine))
            if number == 0:  # what no layer of the model calls is timed with the first
                mine = [*mine, *self._calls.get(_CALLER, set())]
            complete = {*mine, *(layer for layer in inside if layer not in self._calls)} - told
            told |= complete
            made.append(Group(number, frozenset({*mine, *inside}), frozenset(complete)))
        return made

    @contextmanager
    def timing(self, group: Group | None = None, *, without: str | None = None) -> Iterator[None]:
        """Watches the layers of a group, or all; when it ends nothing is left on them, also after an error.

        `without` is the path of a layer that is not watched: who calls it says `enter` and `leave`.
        """
        self._current = group or self._whole
        layers = (index for index in sorted(self._current.timed) if self._paths[index] != without)
        try:
            with around((self._modules[index], self._noting(index)) for index in layers):
                yield
        finally:
            self._thread = 0

    def enter(self, path: str) -> None:
        """Notes that a layer begins."""
        self._layers.append(self._paths.index(path))
        self._marks.append(self._clock.mark())

    def leave(self) -> None:
        """Notes that it ends."""
        self._marks.append(self._clock.mark())
        self._layers.append(_LEAVE)

    def _noting(self, index: int) -> Callable[[Call], Call]:
        layers, marks, mark, whose = self._layers, self._marks, self._clock.mark, threading.get_ident

        def noting(call: Call) -> Call:
            def noted(*args: Any, **kwargs: Any) -> Any:
                if whose() != self._thread:  # the same layers at work for somebody else
                    return call(*args, **kwargs)
                layers.append(index)
                marks.append(mark())  # last, so that the noting's own time is the caller's
                try:
                    return call(*args, **kwargs)
                finally:
                    marks.append(mark())  # first, for the same reason
                    layers.append(_LEAVE)

            return noted

        return noting

    def begin(self) -> None:
        """Forgets the last step and marks the start of the next, which is this thread's."""
        self._thread = threading.get_ident()
        self._layers.clear()
        self._marks.clear()
        self._layers.append(_LEAVE)
        self._marks.append(self._clock.mark())

    @property
    def calls(self) -> int:
        """Calls of layers noted in the step."""
        return len(self._marks) // 2

    def intervals(self) -> list[Interval]:
        """The calls of the step that has just ended, in the order they ended.

        Call it after the clock was synchronised.
        """
        times = self._clock.resolve(self._marks)
        complete, whole = self._current.complete, self._current is self._whole
        done: list[Interval] = []
        opened: list[list[int]] = []  # layer, start, time of the layers inside, calls of them
        for layer, at in zip(self._layers[1:], times[1:], strict=True):
            if layer != _LEAVE:
                if whole:
                    self._calls.setdefault(opened[-1][0] if opened else _CALLER, set()).add(layer)
                opened.append([layer, at, 0, 0])
                continue
            index, start, inside, calls = opened.pop()
            duration = at - start
            if opened:
                opened[-1][2] += duration
                opened[-1][3] += 1
            own = max(duration - inside, 0) if index in complete else None
            done.append(Interval(self._paths[index], start, duration, own, calls))
        return done
