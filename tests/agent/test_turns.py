"""Layers timed in turns: who is timed when, what the timer costs, and that groups add up to the whole."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.agent.test_measuring import TickingClock
from torch import nn

from roofleet_agent.measuring.calibration import TimerCost, calibrate
from roofleet_agent.measuring.clocks import HostClock
from roofleet_agent.measuring.layer_timer import LayerTimer
from roofleet_agent.measuring.turns import Turns


class _Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.Sequential(nn.Linear(2, 2), nn.Identity())
        self.mlp = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.mlp(self.attention(x))
        return result


class _Stack(nn.Module):
    """Blocks in a ModuleList, which is never called, and one layer that two of them share."""

    def __init__(self, blocks: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(_Block() for _ in range(blocks))
        shared = nn.Identity()
        for block in self.blocks:
            block.attention.append(shared)
        self.head = nn.Linear(2, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            x = block(x)
        result: torch.Tensor = self.head(x)
        return result


def observed(blocks: int) -> tuple[nn.Module, LayerTimer]:
    """A model, and a timer that has seen who calls whom."""
    model = _Stack(blocks)
    timer = LayerTimer(model, TickingClock())
    with timer.timing():
        timer.begin()
        model(torch.zeros(1, 2))
    timer.intervals()
    return model, timer


@given(blocks=st.integers(1, 5), count=st.integers(1, 12))
def test_every_layer_has_its_own_time_told_in_exactly_one_group(blocks: int, count: int) -> None:
    """Over all groups each layer that runs is complete once; no group times nothing."""
    model, timer = observed(blocks)
    groups = timer.groups(count)
    paths = [path for path, _ in model.named_modules()]
    told: list[str] = []
    for group in groups:
        assert group.complete <= group.timed
        with timer.timing(group):
            timer.begin()
            model(torch.zeros(1, 2))
        intervals = timer.intervals()
        complete = {i.path for i in intervals if i.self_ns is not None}
        assert complete == {paths[index] for index in group.complete} & {i.path for i in intervals}
        told += complete
    # a shared layer has the path of the first place it sits at; a ModuleList is never called
    assert sorted(told) == sorted(path for path in paths if path != "blocks")


@given(blocks=st.integers(1, 4), count=st.integers(2, 8))
def test_a_layer_is_complete_only_with_everything_it_calls_timed(blocks: int, count: int) -> None:
    """Own time is interval less what is inside: with a child untimed it would be too long."""
    model, timer = observed(blocks)
    children: dict[str, set[str]] = {
        path: {f"{path}.{name}" if path else name for name, _ in module.named_children()}
        for path, module in model.named_modules()
    }
    children[""] = {f"blocks.{i}" for i in range(blocks)} | {"head"}
    paths = [path for path, _ in model.named_modules()]
    for group in timer.groups(count):
        timed = {paths[index] for index in group.timed}
        for index in group.complete:
            assert children[paths[index]] & set(paths) <= timed


def test_inner_calls_are_counted_where_they_were_timed() -> None:
    """A block of two layers has two timed calls directly inside, whatever is inside those."""
    model, timer = observed(2)
    with timer.timing():
        timer.begin()
        model(torch.zeros(1, 2))
    found = {i.path: i.inner_calls for i in timer.intervals()}
    assert found["blocks.0"] == 2
    assert found["blocks.0.mlp"] == 3
    assert found["blocks.0.mlp.0"] == 0
    assert found[""] == 3


def test_layers_inside_compiled_ones_are_not_hooked() -> None:
    """Of an opaque layer only the layer itself is timed."""
    model = _Stack(2)
    timer = LayerTimer(model, TickingClock(), opaque=["blocks.0", "blocks.1"])
    with timer.timing():
        timer.begin()
        model(torch.zeros(1, 2))
    assert {i.path for i in timer.intervals()} == {"", "blocks.0", "blocks.1", "head"}


@pytest.mark.parametrize(
    ("duration_ns", "steps", "groups"),
    [
        (100_000_000, 100, 1),  # 16 calls x 2 x 1,000 ns = 32 us of 100 ms: 0.03 %
        (1_600_000, 100, 2),  # 32 us of 1.6 ms: 2 %
        (1_600_000, 5, 1),  # too few steps to take turns
    ],
)
def test_the_split_follows_from_what_timing_costs(duration_ns: int, steps: int, groups: int) -> None:
    """As many groups as keep the overhead at a hundredth, if each can still be timed three times."""
    _, timer = observed(2)
    turns = Turns(timer, TimerCost(inside_ns=400, outside_ns=600))
    turns.saw("decode", duration_ns, calls=16)
    turns.settle({"decode": steps})
    seen = {turns.group("decode").number for _ in range(12)}
    assert len(seen) == groups


def test_before_the_warm_up_ends_every_layer_is_timed() -> None:
    """A phase nothing is known of is timed whole."""
    _, timer = observed(1)
    turns = Turns(timer, None)
    assert len(turns.group("prefill").timed) == len(list(_Stack(1).modules()))


def test_the_timers_cost_is_calibrated_on_this_machine() -> None:
    """A timed call costs something inside and outside, and less than a tenth of a millisecond."""
    cost = calibrate(HostClock())
    assert cost is not None
    assert cost.inside_ns > 0
    assert cost.outside_ns > 0
    assert cost.total_ns < 100_000


def test_events_of_an_accelerator_are_not_calibrated() -> None:
    """Where the clock is not the host's there is nothing to take off."""
    assert calibrate(TickingClock()) is None
