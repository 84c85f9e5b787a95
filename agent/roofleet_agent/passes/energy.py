"""The energy pass: whole iterations with nothing attached, between two readings of the device's counter."""

from __future__ import annotations

import time
from collections.abc import Iterator

from roofleet_agent.measuring.clocks import clock_for
from roofleet_agent.passes.base import Found, Subject, of_run
from roofleet_agent.pausing import collector_paused

LEAST_S = 1.0
"""Counters move in steps of up to a tenth of a second."""
MOST_ITERATIONS = 64


def energy(subject: Subject) -> Iterator[Found]:
    """Joules over so many whole iterations; nothing where the device has no counter or it did not move."""
    before = subject.device.energy_j()
    if before is None:
        return
    subject.progress("energy", 0.86)
    clock = clock_for(subject.torch_device)
    began = time.perf_counter()
    iterations = 0
    with collector_paused():
        while iterations < MOST_ITERATIONS and (time.perf_counter() - began < LEAST_S or iterations < 2):
            for step in subject.session.iteration():
                step.call()
            clock.synchronize()
            iterations += 1
    after = subject.device.energy_j()
    if after is not None and after > before:
        yield of_run(energy_j=after - before, energy_iterations=iterations)
