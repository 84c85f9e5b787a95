"""The outputs pass: what the last iteration generated, where the user asked to keep it."""

from __future__ import annotations

from collections.abc import Iterator

from roofleet_agent.passes.base import Found, Subject


def outputs(subject: Subject) -> Iterator[Found]:
    """The rows of `outputs`."""
    if subject.workload.keep_outputs:
        yield Found("outputs", subject.session.generated())
