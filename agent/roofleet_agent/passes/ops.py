"""The ops pass: how long each kind of op takes in each layer, and whether the outputs are finite."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Iterator
from dataclasses import asdict, replace
from typing import Any

from roofleet_agent.engines.base import Step
from roofleet_agent.measuring.finite import all_finite, is_finite
from roofleet_agent.measuring.op_times import STEPS, OpTime, time_ops
from roofleet_agent.passes.base import Found, Subject, of_run
from roofleet_agent.passes.tracing import visible
from roofleet_agent.workload import phases_of


def ops(subject: Subject) -> Iterator[Found]:
    """A few steps under a mode that times every op."""
    subject.progress("ops", 0.96)
    session = subject.session
    finite: list[bool | None] = []
    times = time_ops(session.module, subject.torch_device, _steps(subject, finite))
    yield of_run(outputs_finite=all_finite(finite))
    for phase, found in times.items():
        yield Found("op_times", op_time_rows(phase, found, session.opaque))


def op_time_rows(phase: str, times: Iterable[OpTime], opaque: Collection[str] = ()) -> list[dict[str, Any]]:
    """The rows of `op_times` for one phase, those inside an opaque layer told as its own."""
    found: dict[tuple[str, str], OpTime] = {}
    for time in times:
        key = (visible(time.path, opaque), time.op)
        known = found.get(key)
        found[key] = replace(time, path=key[0]) if known is None else known.with_more(time)
    return [{"phase": phase, **asdict(time)} for time in found.values()]


def _steps(subject: Subject, finite: list[bool | None]) -> Iterator[Step]:
    """An iteration, and its first step twice more for a median; what each gives out is looked at."""
    session = subject.session
    first = phases_of(session.task, session.new_tokens)[0]
    more = (session.single(first) for _ in range(STEPS - 1))
    for step in itertools.chain(session.iteration(), more):
        yield step
        finite.append(is_finite(session.output))
