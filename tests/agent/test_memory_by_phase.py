"""Memory of a phase: what it holds at its peak, where that is, and what the allocator says of it."""

from __future__ import annotations

import itertools

import pytest
import torch
from tests.support import TINY_GPT2, TINY_LLAMA, ListSink, request
from torch import nn

from roofleet_agent import profiling
from roofleet_agent.devices.cpu import CpuDevice
from roofleet_agent.engines.base import Step
from roofleet_agent.measuring.allocator import run_before_watched, watch
from roofleet_agent.measuring.step_memory import memory_of
from roofleet_agent.registry import find_engine
from roofleet_agent.workload import Workload

WORKLOAD = Workload(batch_size=2, prompt_tokens=8, new_tokens=4, iterations=1, warmup=0)
CPU = torch.device("cpu")


class _TwoLayers:
    """A model with no cache whose memory can be counted by hand."""

    def __init__(self) -> None:
        self.module: nn.Module = nn.Sequential(nn.Linear(100, 1000), nn.Linear(1000, 10)).requires_grad_(
            False
        )
        self.x = torch.zeros(4, 100)

    def cache(self) -> list[torch.Tensor]:
        """None."""
        return []

    def call(self) -> None:
        """One forward."""
        self.module(self.x)


def test_the_peak_is_where_it_is_said_to_be() -> None:
    """[4, 100] -> [4, 1000] -> [4, 10]: 16,000 bytes are alive when the second layer adds 160 to them."""
    model = _TwoLayers()
    memory = memory_of(model, [Step("forward", 0, 1, 0, model.call)]).phases["forward"]
    assert memory.weight_bytes == 4 * (100 * 1000 + 1000 + 1000 * 10 + 10)
    assert (memory.kv_bytes, memory.activation_bytes) == (0, 4 * 1000 * 4 + 4 * 10 * 4)
    assert (memory.peak_path, memory.peak_op) == ("1", "aten.linear")
    assert memory.peak_bytes == memory.weight_bytes + 16_160


@pytest.mark.parametrize("config", [TINY_GPT2, TINY_LLAMA], ids=["gpt2", "llama"])
def test_meta_and_the_device_agree_on_every_byte(config: dict[str, object]) -> None:
    """Each phase's weights, cache, activations and the place of the peak are the same on meta."""
    found = []
    for device in ("cpu", "meta"):
        session = find_engine(request(config)).load(request(config), torch.device(device), "fp32", WORKLOAD)
        found.append(memory_of(session, session.iteration()).phases)
    assert found[0] == found[1]


def test_the_cache_at_the_peak_is_the_cache_of_that_step() -> None:
    """2 sequences x 2 layers x (keys + values) x 2 heads x 8 x 4 bytes a token; at the peak of the last
    decode step the cache of 10 tokens gives way to that of 11, layer by layer."""
    session = find_engine(request(TINY_LLAMA)).load(request(TINY_LLAMA), CPU, "fp32", WORKLOAD)
    phases = memory_of(session, session.iteration()).phases
    a_token = 2 * 2 * 2 * 2 * 8 * 4
    assert phases["prefill"].kv_bytes <= 8 * a_token
    assert phases["decode"].peak_step_index == 2
    assert 10 * a_token < phases["decode"].kv_bytes <= 11 * a_token + 11 * a_token // 4


def test_a_step_by_itself_counts_the_cache_it_finds() -> None:
    """A decode step asked for alone has the prompt's cache alive from its beginning."""
    session = find_engine(request(TINY_LLAMA)).load(request(TINY_LLAMA), CPU, "fp32", WORKLOAD)
    step = session.single("decode")
    memory = memory_of(session, [step]).phases["decode"]
    assert memory.start_bytes >= step.cache_tokens * 2 * 2 * 2 * 2 * 8 * 4


def test_the_allocator_tells_what_a_kernel_took_beside_its_tensors() -> None:
    """Attention on the CPU takes room for its partial sums; a plain copy takes the copy and no more."""
    q = torch.randn(1, 2, 128, 64)
    with torch.inference_mode():
        attention = watch(CPU, lambda: nn.functional.scaled_dot_product_attention(q, q, q), 1000)
        copied = watch(CPU, lambda: q.clone(), 1000)
    assert copied.peak_bytes == 1000 + q.numel() * 4
    assert attention.peak_bytes is not None
    assert attention.peak_bytes > 1000 + q.numel() * 4


def test_what_the_step_before_gave_out_is_seen_to_end() -> None:
    """Two caches of 4,000 bytes grow by copying themselves: at most three are there at once, not four."""
    held = [torch.zeros(1000), torch.zeros(1000)]

    def grow() -> None:
        for place in (0, 1):
            held[place] = held[place].neg()

    run_before_watched(CPU, grow)
    assert watch(CPU, grow, 8000).peak_bytes == 8000 + 4000


def test_a_run_tells_its_memory_by_phase() -> None:
    """Peak is the sum of its kinds, workspace what the allocator gave out beyond it, and the run's peak the
    highest of the phases."""
    sink = ListSink()
    profiling.profile(request(TINY_GPT2), CpuDevice(), "fp32", WORKLOAD, sink)
    rows = sink.rows("phase_memory")
    assert {row["phase"] for row in rows} == {"prefill", "decode"}
    layers = {row["path"] for row in sink.rows("layers")}
    for row in rows:
        assert row["peak_bytes"] == row["weight_bytes"] + row["kv_bytes"] + row["activation_bytes"]
        assert row["workspace_bytes"] == max(row["allocator_peak_bytes"] - row["peak_bytes"], 0)
        assert row["peak_path"] in layers
        assert row["peak_op"].startswith("aten.")
        assert row["workspace_bytes"] < 64  # numbers that constants become; the cache that gave way is none
    assert sink.rows("runs")[-1]["peak_memory_bytes"] == max(row["peak_bytes"] for row in rows)


def test_steps_run_on_in_their_order() -> None:
    """The memory pass takes any steps, such as the first of an iteration alone."""
    session = find_engine(request(TINY_GPT2)).load(request(TINY_GPT2), CPU, "fp32", WORKLOAD)
    assert set(memory_of(session, itertools.islice(session.iteration(), 1)).phases) == {"prefill"}
