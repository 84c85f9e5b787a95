"""Times every layer of a model by hooks that only note an instant; the rest is worked out after the step."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import nn
from torch.utils.hooks import RemovableHandle

from roofleet_agent.measuring.clocks import Clock

_LEAVE = -1


@dataclass(frozen=True, slots=True)
class Interval:
    """One call of one layer in ns: since the step began, in all, and less the layers inside."""

    path: str
    start_ns: int
    duration_ns: int
    self_ns: int


class LayerTimer:
    """Notes when layers begin and end while it is attached."""

    def __init__(self, model: nn.Module, clock: Clock) -> None:
        self._model = model
        self._clock = clock
        self._paths: list[str] = []
        self._layers: list[int] = []
        self._marks: list[Any] = []

    @contextmanager
    def attached(self) -> Iterator[None]:
        """Hooks every layer; when it ends every hook is off again, also after an error."""
        handles: list[RemovableHandle] = []
        leave = self._leave()
        self._paths.clear()
        try:
            for index, (path, module) in enumerate(self._model.named_modules()):
                self._paths.append(path)
                handles.append(module.register_forward_pre_hook(self._enter(index)))
                handles.append(module.register_forward_hook(leave))
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _enter(self, index: int) -> Callable[..., None]:
        note, append, mark = self._layers.append, self._marks.append, self._clock.mark

        def enter(module: nn.Module, args: Any) -> None:
            note(index)
            append(mark())  # last, so that the hook's own time is the parent's

        return enter

    def _leave(self) -> Callable[..., None]:
        note, append, mark = self._layers.append, self._marks.append, self._clock.mark

        def leave(module: nn.Module, args: Any, output: Any) -> None:
            append(mark())  # first, for the same reason
            note(_LEAVE)

        return leave

    def begin(self) -> None:
        """Forgets the last step and marks the start of the next."""
        self._layers.clear()
        self._marks.clear()
        self._layers.append(_LEAVE)
        self._marks.append(self._clock.mark())

    def intervals(self) -> list[Interval]:
        """The calls of the step that has just ended, in the order they ended.

        Call it after the clock was synchronised.
        """
        times = self._clock.resolve(self._marks)
        done: list[Interval] = []
        open_layers: list[list[int]] = []  # layer, start, time of the layers inside
        for layer, at in zip(self._layers[1:], times[1:], strict=True):
            if layer != _LEAVE:
                open_layers.append([layer, at, 0])
                continue
            index, start, inside = open_layers.pop()
            duration = at - start
            if open_layers:
                open_layers[-1][2] += duration
            done.append(Interval(self._paths[index], start, duration, max(duration - inside, 0)))
        return done
