"""The calls of a model as the user's code makes them: which there were, and how long each took.

Calls are timed with layers and bare in turns. Nothing here may fail in the user's code: what goes wrong ends
the watching, with a word to the log and to the run, and the call goes on.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from roofleet_agent.calling import Call, around, uncompiled
from roofleet_agent.engines.base import Step
from roofleet_agent.measuring.clocks import Clock
from roofleet_agent.measuring.layer_timer import LayerTimer
from roofleet_agent.measuring.steps import Kind, TimedStep
from roofleet_agent.tracing.operands import tensors_in
from roofleet_agent.watching.arguments import (
    batch_and_tokens,
    cached_tokens,
    first_tensor,
    logits_of,
    phase_of,
)
from roofleet_agent.watching.copying import Unplayable
from roofleet_agent.watching.entries import entries_of, opaque_layers
from roofleet_agent.watching.phases import Phase
from roofleet_agent.watching.playing import Sample

log = logging.getLogger(__name__)

MOST_CALLS = 400
"""Calls of each phase that are timed; an evaluation over a whole dataset goes on untimed after them."""
_LATER = (1, 8, 32, 128)
"""Decode calls of which the inputs are kept beside those of the first, each in the place of the one before:
two lengths tell what grows with the cache."""


@dataclass(eq=False)
class _UnderWay:
    """A call under way; `begin_ns` is by `time.perf_counter_ns`."""

    phase: Phase
    entry: str
    cached: int
    counts: bool = True
    timed: bool = False
    beside: bool = False
    is_first: bool = False
    begin_ns: int = 0


class Calls:
    """Watches the calls of one model between `start` and `stop`."""

    def __init__(self, model: nn.Module, clock: Clock) -> None:
        self.model = model
        self.phases: dict[str, Phase] = {}
        self.generations = 0
        self.orphans: dict[str, int] = {}
        """Calls of the model's children that came from outside, by path, until the model's own first."""
        self.failure: str | None = None
        self._clock = clock
        self._began_ns = time.perf_counter_ns()
        self._timer, self._opaque = LayerTimer(model, clock), frozenset[str]()
        self._look_at_layers()
        self._entries, self._scouts, self._timing = ExitStack(), ExitStack(), ExitStack()
        self._lock = threading.Lock()
        self._local = threading.local()
        self._under_way: set[_UnderWay] = set()
        self._who_is_timed: _UnderWay | None = None
        self._open = False

    @property
    def opaque(self) -> frozenset[str]:
        """Paths of layers that are one thing to the timer."""
        return self._opaque

    def start(self) -> None:
        """Watches the calls from now on."""
        entries = list(entries_of(self.model))
        inner, innermost = entries[-1]
        scouts = [(f"{inner}.{name}" if inner else name, child) for name, child in innermost.named_children()]
        self._scouts.enter_context(around((child, self._scout(path)) for path, child in scouts))
        self._entries.enter_context(around((module, self._entry(path)) for path, module in entries))
        self._open = True

    def stop(self) -> int:
        """Watches no longer, and gives the number of calls that are still under way."""
        with self._lock:
            self._open = False
            self._timing.close()
            self._entries.close()
            self._scouts.close()
            return len(self._under_way)

    # -- around the user's calls

    def _entry(self, path: str) -> Callable[[Call], Call]:
        def entry(call: Call) -> Call:
            def watched(*args: Any, **kwargs: Any) -> Any:
                if not self._open or getattr(self._local, "inside", False):
                    return call(*args, **kwargs)
                self._local.inside = True
                try:
                    begun = uncompiled(self._begin, path, args, kwargs)
                    try:
                        output = call(*args, **kwargs)
                    except BaseException:
                        uncompiled(self._end, begun, None, failed=True)
                        raise
                    uncompiled(self._end, begun, output, failed=False)
                    return output
                finally:
                    self._local.inside = False

            return watched

        return entry

    def _scout(self, path: str) -> Callable[[Call], Call]:
        def scout(call: Call) -> Call:
            def counted(*args: Any, **kwargs: Any) -> Any:
                if not getattr(self._local, "inside", False):
                    self.orphans[path] = self.orphans.get(path, 0) + 1
                return call(*args, **kwargs)

            return counted

        return scout

    def _begin(self, path: str, args: Any, kwargs: Any) -> _UnderWay | None:
        try:
            if torch._C._get_tracing_state() is not None or _is_captured():
                return None
            begun = self._noted(path, args, kwargs)
            if begun.counts:
                self._clock.synchronize()
            if begun.timed:
                self._timing.enter_context(self._timer.timing(without=path))
                self._timer.begin()
            begun.begin_ns = time.perf_counter_ns()
            if begun.timed:
                self._timer.enter(path)
        except Exception as error:
            self._give_up(error)
            return None
        return begun

    def _end(self, begun: _UnderWay | None, output: Any, *, failed: bool) -> None:
        if begun is None:
            return
        with self._lock:
            self._under_way.discard(begun)
        if self.failure is not None:
            return
        try:
            if begun.timed:
                self._timer.leave()
            if begun.counts and not failed:
                self._clock.synchronize()
            duration = time.perf_counter_ns() - begun.begin_ns
            intervals = self._timer.intervals() if begun.timed and not failed else []
            with self._lock:
                if begun.timed:
                    self._timing.close()
                    self._who_is_timed = None
                if failed:
                    self._failed(begun)
                elif begun.counts and self._open:
                    self._succeeded(begun, output, duration, intervals)
        except Exception as error:
            self._give_up(error)

    # -- what is noted of them

    def _noted(self, path: str, args: Any, kwargs: Any) -> _UnderWay:
        name, cache = phase_of(kwargs)
        first = first_tensor(args, kwargs)
        shape = () if first is None else tuple(first.shape)
        with self._lock:
            self._scouts.close()
            known = self.phases.setdefault(name, Phase(name))
            begun = _UnderWay(known, path, cached_tokens(cache))
            self._under_way.add(begun)
            if len(self._under_way) > 1:
                for call in self._under_way:
                    call.beside = True
            self.generations += name != "decode"
            if known.shape is None:
                known.shape, known.entry, begun.is_first = shape, path, True
                known.batch, known.tokens = batch_and_tokens(self.model, args, kwargs)
            number, known.begun = known.begun, known.begun + 1
            if (shape, path) != (known.shape, known.entry):
                known.unlike += 1
                begun.counts = False
                return begun
            if len(known.alone) + len(known.beside) >= MOST_CALLS:
                begun.counts = False
                return begun
            begun.timed = self._who_is_timed is None and known.is_timed_next
            if begun.timed:
                self._who_is_timed = begun
        self._keep_sample(begun, number, args, kwargs)
        return begun

    def _keep_sample(self, begun: _UnderWay, number: int, args: Any, kwargs: Any) -> None:
        known = begun.phase
        is_later = known.name == "decode" and number in _LATER and known.first is not None
        if not begun.is_first and not is_later:
            return
        try:
            sample = Sample(self.model, begun.entry, args, kwargs, begun.cached)
        except Unplayable as why:
            known.unplayable = str(why)
        except Exception as error:  # such as a device without room
            known.unplayable = f"its inputs could not be copied ({type(error).__name__})"
        else:
            if begun.is_first:
                known.first = sample
            elif known.first is not None and sample.cached > known.first.cached:
                known.later = sample

    def _failed(self, begun: _UnderWay) -> None:
        """A call that raised does not count; if it was the first, the next that succeeds is."""
        known = begun.phase
        if begun.is_first and not known.steps:
            known.shape = known.first = known.unplayable = None

    def _succeeded(self, begun: _UnderWay, output: Any, duration: int, intervals: list[Any]) -> None:
        known = begun.phase
        if begun.is_first:
            known.logits = logits_of(output, known.tokens)
            known.trains = self.model.training and any(t.requires_grad for t in tensors_in(output))
            if intervals:
                self._look_at_layers()  # some are made at the first call
        told = known.beside if begun.beside else known.alone
        # A timed call and the bare one after it are a pair, told under one number.
        kind: Kind = "timed" if begun.timed else "bare"
        number = known.of_kind(kind)
        step = Step(known.name, 0, known.tokens, begun.cached, _nothing)
        start = begun.begin_ns - self._began_ns
        group = 0 if begun.timed else None
        told.append(TimedStep(step, kind, number, False, start, duration, intervals, group))

    def _look_at_layers(self) -> None:
        self._opaque = opaque_layers(self.model)
        self._timer = LayerTimer(self.model, self._clock, self._opaque)

    def _give_up(self, error: Exception) -> None:
        """Ends the watching for good; the user's calls go on as if there was none."""
        if self.failure is not None:
            return
        self.failure = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
        log.warning("%s is not watched any longer: %s", type(self.model).__name__, self.failure)
        log.debug("the watching failed", exc_info=error)
        self.stop()


def _is_captured() -> bool:
    return torch.cuda.is_initialized() and torch.cuda.is_current_stream_capturing()


def _nothing() -> None:
    return None
