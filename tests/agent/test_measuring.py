"""Layer times, memory and roofs, on models small enough to know the answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch
from torch import nn

from roofleet_agent.measuring.layer_timer import LayerTimer
from roofleet_agent.measuring.memory import MemoryTracker, over_calls
from roofleet_agent.roofs.measured import LEAST_MEMORY_BYTES, measure_roofs


class TickingClock:
    """A clock that moves on by one unit at every mark, so that times can be counted by hand."""

    def __init__(self) -> None:
        self.now = 0
        self.mark: Callable[[], int] = self._tick

    def _tick(self) -> int:
        self.now += 1
        return self.now

    def synchronize(self) -> None:
        """Nothing to wait for."""

    def resolve(self, marks: Sequence[int]) -> list[int]:
        """See Clock.resolve."""
        return [mark - marks[0] for mark in marks]


def test_layer_times_nest() -> None:
    """Of a model with two layers the begin and end of each is one tick: 1, 2 to 3, 4 to 5, 6."""
    model = nn.Sequential(nn.Identity(), nn.Identity())
    timer = LayerTimer(model, TickingClock())
    with timer.timing():
        timer.begin()
        model(torch.zeros(1))
    found = {i.path: (i.start_ns, i.duration_ns, i.self_ns) for i in timer.intervals()}
    assert found == {"0": (2, 1, 1), "1": (4, 1, 1), "": (1, 5, 3)}


def test_self_times_add_up_to_the_whole() -> None:
    """Whatever the nesting, the self times of all layers are the time of the model."""
    model = nn.Sequential(nn.Sequential(nn.Linear(2, 2), nn.ReLU()), nn.Sequential(nn.Linear(2, 2)))
    timer = LayerTimer(model, TickingClock())
    with timer.timing():
        timer.begin()
        model(torch.zeros(1, 2))
    intervals = timer.intervals()
    whole = next(i for i in intervals if i.path == "")
    assert sum(i.self_ns for i in intervals) == whole.duration_ns


def test_a_layer_called_twice_has_two_intervals() -> None:
    """A shared layer is told once for every call."""
    shared = nn.Identity()

    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = shared

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.layer(self.layer(x))

    model = Twice()
    timer = LayerTimer(model, TickingClock())
    with timer.timing():
        timer.begin()
        model(torch.zeros(1))
    assert [i.path for i in timer.intervals()] == ["layer", "layer", ""]


def test_timing_leaves_no_hook_behind() -> None:
    """When timing ends every hook is off, also after an error."""
    model = nn.Sequential(nn.Linear(2, 2))
    timer = LayerTimer(model, TickingClock())
    with timer.timing():
        timer.begin()
        with pytest.raises(RuntimeError):
            model(torch.zeros(1, 3))
    assert all(not m._forward_hooks and not m._forward_pre_hooks for m in model.modules())


class _Recovers(nn.Module):
    """Tries one layer and goes on with another."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(2, 2), nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        try:
            result: torch.Tensor = self.first(x)
        except RuntimeError:
            result = self.second(x)
        return result


def test_an_error_that_a_model_catches_shifts_no_times() -> None:
    """The layer that failed has ended, and what comes after has its own times."""
    model = _Recovers()
    timer = LayerTimer(model, TickingClock())
    with timer.timing():
        timer.begin()
        model(torch.zeros(1, 3))
    found = {i.path: (i.start_ns, i.duration_ns) for i in timer.intervals()}
    assert found == {"first": (2, 1), "second": (4, 1), "": (1, 5)}


def test_memory_of_a_layer_called_twice_is_that_of_both_calls() -> None:
    """1,000 floats and then 10: at most 4,000 bytes were alive, and 4,040 were made."""
    layer = nn.Linear(1, 1, bias=False).requires_grad_(False)
    model = nn.Sequential(layer)
    tracker = MemoryTracker(model.parameters())
    with torch.inference_mode(), tracker, tracker.following(model):
        for rows in (1000, 10):
            model(torch.zeros(rows, 1))
    found = {entry.path: entry for entry in over_calls(tracker.layers)}
    assert found["0"].allocated_bytes == 4000 + 40
    assert found["0"].peak_bytes == 8000  # the input is made in here too


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_live_bytes_rise_and_fall_with_the_tensors(device: str) -> None:
    """1,000 floats made, 2,000 more, the first let go: 4,000 bytes, 12,000 at most, 8,000 in the end."""
    tracker = MemoryTracker([])
    with torch.inference_mode(), tracker:
        a = torch.zeros(1000, device=device)
        assert tracker.live_bytes == 4000
        b = torch.zeros(2000, device=device)
        del a
        view = b.view(2, 1000)
        assert tracker.live_bytes == 8000
        assert view.numel() == 2000
    assert tracker.peak_bytes == 12_000


def test_weights_are_not_counted_as_live() -> None:
    """What was marked beforehand stays out of the figures, however often it is used."""
    weight = torch.zeros(1000)
    tracker = MemoryTracker([weight])
    with tracker:
        kept = weight.view(10, 100)
        made = weight + 1
    assert tracker.live_bytes == made.numel() * 4 == kept.numel() * 4


def test_a_layer_finds_leaves_and_peaks() -> None:
    """x [10, 100] -> [10, 200]: enters with nothing, leaves 8,000 bytes, and its child made them all."""
    model = nn.Sequential(nn.Linear(100, 200))
    x = torch.zeros(10, 100)
    tracker = MemoryTracker([*model.parameters(), x])
    with torch.inference_mode(), tracker, tracker.following(model):
        out = model(x)
    layers = {layer.path: layer for layer in tracker.layers}
    assert out.shape == (10, 200)
    assert (layers["0"].enter_bytes, layers["0"].exit_bytes) == (0, 8000)
    assert (layers[""].peak_bytes, layers[""].allocated_bytes) == (8000, 8000)


def test_the_cpu_has_roofs_with_their_source() -> None:
    """Bandwidths of memory and caches and compute roofs are measured, in base units, and say how."""
    roofs = measure_roofs(torch.device("cpu"), budget_s=0.01)
    memory = [r for r in roofs if r.kind == "memory"]
    compute = {r.dtype: r for r in roofs if r.kind == "compute"}
    assert [r.memory_level for r in memory] == ["dram", "cache"]
    assert memory[0].size_bytes >= LEAST_MEMORY_BYTES > memory[1].size_bytes
    assert all(r.bytes_per_s is not None and r.bytes_per_s > 1e8 for r in memory)
    assert all(r.spread >= 0 for r in roofs)
    assert "fp32" in compute
    assert compute["fp32"].flops_per_s is not None
    assert compute["fp32"].flops_per_s > 1e8
    assert all("threads" in roof.source for roof in roofs)
