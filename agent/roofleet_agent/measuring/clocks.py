"""Two ways to mark an instant: the host's clock, and events on an accelerator's stream."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch


class Clock(Protocol):
    """Marks instants cheaply and turns them into nanoseconds after the step."""

    mark: Callable[[], Any]

    def synchronize(self) -> None:
        """Waits until the device has done what it was given."""
        ...

    def resolve(self, marks: Sequence[Any]) -> list[int]:
        """Nanoseconds of each mark since the first; call it after `synchronize`."""
        ...


class HostClock:
    """For the CPU, where a layer is done when its call returns."""

    def __init__(self) -> None:
        self.mark: Callable[[], int] = time.perf_counter_ns

    def synchronize(self) -> None:
        """Nothing runs on behind a call."""

    def resolve(self, marks: Sequence[int]) -> list[int]:
        """See Clock.resolve."""
        return [mark - marks[0] for mark in marks]


class EventClock:
    """For accelerators: an event on the stream costs a launch, and no wait until the step is over."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.mark: Callable[[], Any] = self._record

    def _record(self) -> Any:
        event = torch.Event(device=self._device, enable_timing=True)
        event.record()
        return event

    def synchronize(self) -> None:
        """See Clock.synchronize."""
        torch.accelerator.synchronize(self._device)

    def resolve(self, marks: Sequence[Any]) -> list[int]:
        """See Clock.resolve. Events tell milliseconds, in steps of about half a microsecond."""
        first = marks[0]
        return [0] + [round(first.elapsed_time(mark) * 1e6) for mark in marks[1:]]


def clock_for(device: torch.device) -> Clock:
    """The clock layers on this device are timed with."""
    return HostClock() if device.type == "cpu" else EventClock(device)
