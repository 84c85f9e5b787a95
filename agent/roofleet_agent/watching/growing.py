"""What a decode step costs at any length, from two lengths: all that depends on the cache grows in a line."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any

from roofleet_agent.measuring.step_memory import MemoryFound
from roofleet_agent.tracing import TraceResult


def trace_at(first: TraceResult, later: TraceResult, share: float) -> TraceResult | None:
    """What a step executes at a length that lies `share` of the way from the first to the later, or beyond if
    it is above 1. None if the two executed different ops: then nothing grows in a line."""
    try:
        found: TraceResult = _between(first, later, share)
    except _Different:
        return None
    return found


def memory_at(first: MemoryFound, later: MemoryFound, share: float) -> MemoryFound:
    """The same of memory; where the peak is at another place, that of the later."""
    try:
        found: MemoryFound = _between(first, later, share)
    except _Different:
        return later
    return found


class _Different(Exception):
    """Two things that are not the same but for their numbers."""


def _between(a: Any, b: Any, share: float) -> Any:
    """The same thing with every whole number at its place on the line from one to the other."""
    if type(a) is not type(b):
        raise _Different
    if isinstance(a, bool) or a is None:
        return a
    if isinstance(a, int):
        return round(a + (b - a) * share)
    if isinstance(a, float):
        return a if a == b else a + (b - a) * share
    if is_dataclass(a) and not isinstance(a, type):
        values = {f.name: _between(getattr(a, f.name), getattr(b, f.name), share) for f in fields(a)}
        return replace(a, **values)
    if isinstance(a, Mapping):
        if a.keys() != b.keys():
            raise _Different
        return {name: _between(value, b[name], share) for name, value in a.items()}
    if isinstance(a, (list, tuple)):
        if len(a) != len(b):
            raise _Different
        return type(a)(_between(x, y, share) for x, y in zip(a, b, strict=True))
    if a != b:
        raise _Different
    return a
