"""Times of ops: the ops of the trace, in their layers, and an accelerator's kernels found under them."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import torch
from tests.support import TINY_GPT2, TINY_LLAMA, TINY_WORKLOAD, ListSink, request

from roofleet_agent import profiling
from roofleet_agent.devices.cpu import CpuDevice
from roofleet_agent.measuring.op_times import busy_of, time_ops
from roofleet_agent.registry import find_engine


def test_the_ops_timed_are_the_ops_traced() -> None:
    """Layers, names and numbers of calls are those of the stored ops that are no views: outside of training
    a dropout is none of them."""
    sink = ListSink()
    profiling.profile(request(TINY_GPT2), CpuDevice(), "fp32", TINY_WORKLOAD, sink)
    for phase in ("prefill", "decode"):
        traced: dict[tuple[str, str], int] = {}
        for op in sink.rows("ops"):
            if op["phase"] == phase and not op["is_view"]:
                key = (op["path"], op["op"])
                traced[key] = traced.get(key, 0) + 1
        timed = {(t["path"], t["op"]): t for t in sink.rows("op_times") if t["phase"] == phase}
        assert traced == {key: time["calls"] for key, time in timed.items()}
        heavy = [key for key in traced if key[1] in ("aten.linear", "aten.scaled_dot_product_attention")]
        assert heavy
        for key in heavy:
            assert timed[key]["duration_ns"] > 0
            assert timed[key]["busy_ns"] is None


@dataclass
class Event:
    """What an event of torch's profiler has that is read."""

    name: str
    kernels: list[Any] = field(default_factory=list)
    cpu_children: list[Event] = field(default_factory=list)
    where: str = "CPU"

    @property
    def device_type(self) -> Any:
        """Host or device."""
        return SimpleNamespace(name=self.where)


def test_kernels_belong_to_the_op_that_launched_them() -> None:
    """Two kernels under one op's mark, of 3 and 4 us, and one of another call of it: 12 us, 3 kernels."""
    kernel = SimpleNamespace
    launch = Event("cudaLaunchKernel", [kernel(duration=3.0)])
    inner = Event("aten::addmm", [kernel(duration=4.0)], [launch])
    events = [
        Event("roofleet|h.0|aten.linear", [], [inner]),
        inner,
        launch,
        Event("roofleet|h.0|aten.linear", [kernel(duration=5.0)]),
        Event("roofleet|h.1|aten.add"),
        Event("roofleet|h.0|aten.linear", where="CUDA"),
    ]
    assert busy_of(events) == {("h.0", "aten.linear"): (12_000, 3), ("h.1", "aten.add"): (0, 0)}


def outputs(session: Any) -> list[torch.Tensor]:
    """What each step of an iteration gives out."""
    given = []
    for step in session.iteration():
        step.call()
        given.append(session.output)
    return given


def test_timing_ops_changes_nothing_that_is_computed() -> None:
    """The token after the prompt is the same before, under and after the pass."""
    session = find_engine(request(TINY_LLAMA)).load(
        request(TINY_LLAMA), torch.device("cpu"), "fp32", TINY_WORKLOAD
    )
    before = outputs(session)
    time_ops(session.module, torch.device("cpu"), session.iteration())
    after = outputs(session)
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
