"""Time to trace the full-size models of the catalogue, and of the families that are not in it, on `meta`."""

from __future__ import annotations

import time

from benchmarks.figure import Figure
from roofleet.naming.models import resolve
from roofleet_agent.passes.tracing import trace_phases
from roofleet_agent.registry import find_engine
from roofleet_agent.workload import Workload
from roofleet_analysis.catalogs.models import models

WORKLOAD = Workload(prompt_tokens=128, new_tokens=2)


def measure() -> list[Figure]:
    """Seconds from a configuration to the ops of every phase of a step, the model on `meta` included."""
    figures = []
    for entry in models():
        request = resolve(entry.name, "random")
        engine = find_engine(request)
        begin = time.perf_counter()
        traced = trace_phases(engine, request, "bf16", WORKLOAD)
        seconds = time.perf_counter() - begin
        ops = sum(len(phase.ops) for phase in traced.phases.values())
        traced.session.close()
        figures.append(Figure("trace", f"{entry.name}, {ops:,} ops", seconds, "s", goal=3))
    return figures
