"""What no implementation can do without, searched for a model whose bound asks for more than that.

The needed work here is counted from the configuration alone, pair by pair and form by form, by nothing that
the product itself uses.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from tests.families import FAMILIES, Shape
from tests.support import request

from roofleet.analyzing.analysis import phase_cost
from roofleet.naming.models import resolve
from roofleet_agent.errors import ModelRefused, WorkloadRefused
from roofleet_agent.passes.tracing import trace_phases
from roofleet_agent.registry import find_engine
from roofleet_agent.variants import parse
from roofleet_agent.workload import ModelRequest, Workload, middle_cache_tokens
from roofleet_analysis.catalogs.hardware import find_hardware
from roofleet_analysis.catalogs.models import ModelEntry, models
from roofleet_analysis.costs import Cost
from roofleet_analysis.roofline import lower_bound

VOCABULARY = 101
OTHERWISE = ("deepseek_v3", "mamba", "t5")
"""Architectures that need less than masks alone tell, or mask nothing: the search above has their figures."""
EACH = {m.model_type: m for m in reversed(models()) if m.task == "generate" and m.model_type not in OTHERWISE}
"""The first published decoder of each architecture of the others."""
UNMASKED = ("t5", "bert", "distilbert", "mobilebert", "roberta")
"""Families that mask nothing of what they run: T5's decoder has one token, which sees all before it."""


def costs_of(model: ModelRequest, workload: Workload, dtype: str = "fp32") -> dict[str, Cost]:
    """What one step of each phase costs, every op known."""
    traced = trace_phases(find_engine(model), model, dtype, workload)
    found = {phase: phase_cost(result) for phase, result in traced.phases.items()}
    traced.session.close()
    unknown = {phase: names for phase, (_, names) in found.items() if names}
    assert not unknown
    return {phase: cost for phase, (cost, _) in found.items()}


# ---------------------------------------------------------------------- by hand, from the configuration


def in_sight(s: Shape, window: int | None = None, chunk: int | None = None) -> int:
    """Pairs of a new token and a position it may look at, counted one by one."""
    return sum(
        1
        for query in range(s.cached, s.cached + s.tokens)
        for key in range(query + 1)
        if (window is None or query - key < window) and (chunk is None or query // chunk == key // chunk)
    )


def windows(config: Mapping[str, Any]) -> list[int | None]:
    """The sliding window of each of a decoder's layers, by what its papers say."""
    kind, window = config["model_type"], config.get("sliding_window")
    every = config.get("sliding_window_pattern")
    layers = config.get("num_hidden_layers") or config.get("n_layer") or config.get("n_layers")
    if kind in ("gemma2", "gpt_oss"):
        return [window if layer % 2 == 0 else None for layer in range(layers)]
    if every:
        return [None if layer % every == every - 1 else window for layer in range(layers)]
    if kind == "gemma3_text":
        return [window if kind == "sliding_attention" else None for kind in config["layer_types"]]
    return [window if kind in ("mistral", "phi3") else None] * layers


def widths(config: Mapping[str, Any]) -> tuple[int, int]:
    """Heads, and the features of a head's keys and values together."""
    heads = config.get("num_attention_heads") or config.get("n_head")
    hidden = config.get("hidden_size") or config.get("n_embd")
    return heads, 2 * (config.get("head_dim") or hidden // heads)


def needed_flops(name: str, s: Shape) -> int:
    """The matrix work of a step that no implementation can do without."""
    config = FAMILIES[name].config
    dense = 2 * FAMILIES[name].products(s)
    if name == "mamba":
        convolved = s.tokens + 3 if s.cached == 0 else 2
        taps = sum(min(position + 1, 4) for position in range(s.tokens)) if s.cached == 0 else 4
        return dense - 2 * s.batch * 2 * 64 * (4 * convolved - taps)
    if name == "deepseek_v3":
        return deepseek(s, dense)
    if name in UNMASKED:
        return dense
    return dense - hidden_flops(config, s)


def hidden_flops(config: Mapping[str, Any], s: Shape) -> int:
    """Of dense attention what a decoder's masks hide."""
    heads, wide = widths(config)
    hidden = [s.tokens * seen(s, window) - in_sight(s, window) for window in windows(config)]
    return 2 * s.batch * heads * wide * sum(hidden)


def seen(s: Shape, window: int | None) -> int:
    """Keys that a dense product holds every query against: a window bounds what is kept from before."""
    return (s.cached if window is None else min(s.cached, window - 1)) + s.tokens


def deepseek(s: Shape, dense: int) -> int:
    """The least over keys and values made again, made once and kept, and never made: 4 heads, latents of 16,
    keys of 8 and 4 rotated features, values of 8, in 2 layers."""
    pairs, total = in_sight(s), s.cached + s.tokens
    expand = 16 * 4 * (8 + 8)
    around = dense // 2 - s.batch * 2 * (total * expand + 4 * s.tokens * total * (8 + 4 + 8))
    forms = (
        total * expand + 4 * pairs * (8 + 4 + 8),
        s.tokens * expand + 4 * pairs * (8 + 4 + 8),
        s.tokens * 4 * 16 * (8 + 8) + 4 * pairs * (16 + 4 + 16),
    )
    return 2 * (around + s.batch * 2 * min(forms))


def needed_cache(name: str, s: Shape) -> int | None:
    """Bytes in fp32: read what is in sight from before the step, written what a later one can see."""
    kv = FAMILIES[name].kv
    if kv is None:
        return None
    return sum(
        4 * s.batch * numbers * (
            (s.cached if window is None else min(s.cached, window - 1))
            + (s.tokens if window is None else min(s.tokens, window - 1))
        )
        for numbers, window in kv
    )  # fmt: skip


# ---------------------------------------------------------------------- the search


@pytest.mark.parametrize("name", FAMILIES)
@settings(max_examples=3, deadline=None, derandomize=True, phases=[Phase.generate])
@given(
    batch=st.integers(1, 3),
    prompt=st.integers(2, 24),
    new=st.integers(1, 9),
    attention=st.sampled_from([None, "eager", "sdpa", "flex"]),
    variant=st.sampled_from(["base", "static-cache"]),
)
def test_no_bound_asks_for_more_than_is_needed(
    name: str, batch: int, prompt: int, new: int, attention: str | None, variant: str
) -> None:
    """Any family, size, implementation of attention and kind of cache: needed work and cache are never above
    what the configuration needs, and for attention of the usual kinds exactly that."""
    workload = Workload(batch, prompt, new, attention=attention, variant=parse(variant))
    try:
        found = costs_of(request(FAMILIES[name].config), workload)
    except (WorkloadRefused, ModelRefused):  # not every family offers all of these
        return
    for phase, cost in found.items():
        cached = middle_cache_tokens(prompt, new) if phase == "decode" else 0
        step = Shape(batch, 1 if phase == "decode" else prompt, cached, prompt)
        needed, cache = needed_flops(name, step), needed_cache(name, step)
        assert cost.needed_flops <= needed <= cost.matmul_flops
        assert name == "mamba" or cost.needed_flops == needed
        if cache is not None:
            assert cost.needed_kv_bytes == cache <= cost.kv_read_bytes + cost.kv_write_bytes


def test_a_window_bounds_the_least_time() -> None:
    """Mistral-7B at 32,000 tokens on an H100: 6.98e9 multiply-adds a token in its matrices, and of attention
    those of the last 4,096 positions, take 516 ms at 989.4 TFLOP/s. Counted dense it would be 994."""
    h100 = find_hardware("h100-sxm")
    assert h100 is not None
    workload = Workload(prompt_tokens=32_000, new_tokens=1)
    cost = costs_of(resolve("Mistral-7B", None), workload, "bf16")["prefill"]
    matrices = 32 * (2 * 4096 * 4096 + 2 * 4096 * 1024 + 3 * 4096 * 14336)
    pairs = 32_000 * 4096 - 4096 * 4095 // 2
    assert cost.needed_flops == 2 * (32_000 * matrices + 32 * 32 * pairs * (128 + 128) + 4096 * 32_000)
    bound = lower_bound(cost, "bf16", h100)
    assert bound is not None
    assert bound.lower_bound_ns == pytest.approx(516.5e6, rel=1e-3)
    assert cost.matmul_flops / h100.compute_roof("bf16").flops_per_s == pytest.approx(0.994, rel=1e-3)  # type: ignore[union-attr]


def test_chunks_bound_what_is_needed() -> None:
    """Llama 4 sees the positions of its own chunk only, in the layers that have chunks."""
    chunked = {
        "model_type": "llama4_text", "vocab_size": VOCABULARY, "hidden_size": 32, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "intermediate_size": 48,
        "intermediate_size_mlp": 48, "num_local_experts": 2, "moe_layers": [], "attention_chunk_size": 4,
        "no_rope_layers": [1, 0], "max_position_embeddings": 64, "architectures": ["Llama4ForCausalLM"],
    }  # fmt: skip
    found = costs_of(request(chunked), Workload(2, 11, 6))
    for phase, step in (("prefill", Shape(2, 11, 0, 11)), ("decode", Shape(2, 1, 13, 11))):
        matrices = 2 * (2 * 32 * 32 + 2 * 32 * 16 + 3 * 32 * 48)
        pairs = in_sight(step, chunk=4) + in_sight(step)
        products = step.batch * (step.tokens * matrices + 4 * 16 * pairs + 32 * VOCABULARY)
        assert found[phase].needed_flops == 2 * products


@pytest.mark.slow
@pytest.mark.parametrize("entry", EACH.values(), ids=EACH)
def test_no_published_architecture_is_bound_by_more_than_it_needs(entry: ModelEntry) -> None:
    """At full size with 300 tokens, more than the shortest window: what the configuration's masks hide is not
    needed, and everything else is."""
    costs = costs_of(resolve(entry.name, None), Workload(prompt_tokens=300, new_tokens=4), "bf16")
    for phase, step in (("prefill", Shape(1, 300, 0, 300)), ("decode", Shape(1, 1, 301, 300))):
        hidden = hidden_flops(entry.config, step)
        assert costs[phase].needed_flops == costs[phase].matmul_flops - hidden, phase
        assert hidden > 0 or phase == "decode"
