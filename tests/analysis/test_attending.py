"""What an attention layer's structure makes of its work: pairs in sight, and the cache they reach."""

from __future__ import annotations

from dataclasses import asdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roofleet_analysis.costs import Cost, Op, Tensor, cost_of
from roofleet_analysis.costs.attending import Attending

SIZES = st.integers(1, 20)


def tensor(*shape: int, role: str = "activation") -> Tensor:
    elements = 1
    for size in shape:
        elements *= size
    return Tensor(shape, "fp32", role, 4 * elements)


@given(SIZES, st.integers(0, 20), st.none() | st.tuples(st.sampled_from(["window", "chunk"]), SIZES))
def test_pairs_in_sight_are_those_counted_one_by_one(
    queries: int, cached: int, limit: tuple[str, int] | None
) -> None:
    """Causal, in a sliding window or in chunks: a query sees what came before, as far as its limit goes."""
    step = Attending(queries, cached + queries, cached, True, **dict([limit] if limit else []))

    def sees(query: int, key: int) -> bool:
        near = limit is None or (
            query - key < limit[1] if limit[0] == "window" else query // limit[1] == key // limit[1]
        )
        return key <= query and near

    new = range(cached, cached + queries)
    assert step.seen() == sum(sees(query, key) for query in new for key in range(query + 1))
    reached = {key for query in new for key in range(cached) if sees(query, key)}
    assert step.cache_reached() == len(reached)


def test_a_cache_that_keeps_a_window_shows_no_more_than_it_keeps() -> None:
    """After 100 tokens a window of 6 has kept 5: one new token is held against 6 keys and sees them all."""
    step = Attending(1, 6, 100, True, window=6)
    assert (step.seen(), step.cache_reached(), step.cache_left()) == (6, 5, 1)


def test_a_cache_that_was_there_from_the_start_is_needed_as_far_as_it_is_filled() -> None:
    """Of 64 places 10 are filled: the next token sees those and itself, whatever the kernel goes through."""
    step = Attending(1, 64, 10, True)
    assert (step.seen(), step.cache_reached()) == (11, 10)


def test_a_million_queries_are_counted_at_once() -> None:
    """Sizes come from elsewhere and may be anything: no loop goes through them."""
    assert Attending(2**40, 2**40, 0, True).seen() == 2**40 * (2**40 + 1) // 2
    assert Attending(2**40, 2**40, 0, True, chunk=4).seen() == 2**38 * 10


@pytest.mark.parametrize(
    "attends",
    [
        {"queries": 0, "keys": 4, "cached": 0, "causal": True},
        {"queries": 4, "keys": "4", "cached": 0, "causal": True},
        {"queries": 4, "keys": 4, "cached": 0, "causal": True, "window": 2, "chunk": 2},
        {"queries": 4.5, "keys": 4, "cached": 0, "causal": True, "work": "pairs"},
        {"nonsense": 1},
        "text",
    ],
)
def test_a_structure_that_makes_no_sense_makes_an_op_unknown(attends: object) -> None:
    """What an agent says is not believed blindly: the op has no cost, and nothing is raised."""
    op = Op("aten.bmm", (tensor(2, 4, 8), tensor(2, 8, 4)), (tensor(2, 4, 4),), False, {"attends": attends})
    assert cost_of(op) is None


def test_a_mask_of_unknown_structure_leaves_one_key_a_query() -> None:
    """With a tensor for a mask 4 queries against 6 keys are counted dense, and needed is a sixth of it."""
    q, kv, mask = tensor(1, 2, 4, 8), tensor(1, 2, 6, 8), tensor(1, 1, 4, 6)
    found = cost_of(Op("aten.scaled_dot_product_attention", (q, kv, kv, mask), (q,)))
    assert found is not None
    assert (found.matmul_flops, found.needed_flops) == (2 * 2 * 4 * 6 * 16, 2 * 2 * 4 * 16)


def test_latents_that_are_expanded_again_are_needed_once() -> None:
    """9 latents of a cache and a new one are multiplied by a weight: work for the new one is needed, and the
    weight all the same."""
    attends = {"queries": 1, "keys": 10, "cached": 9, "causal": True, "work": "positions"}
    latents, weight = tensor(1, 1, 10, 16, role="kv"), tensor(64, 16, role="weight")
    op = Op("aten.linear", (latents, weight), (tensor(1, 1, 10, 64),), False, {"attends": attends})
    found = cost_of(op)
    assert found is not None
    assert (found.matmul_flops, found.needed_flops) == (2 * 10 * 16 * 64, 2 * 16 * 64)
    assert found.weight_bytes == 4 * 16 * 64


def test_padding_of_a_convolution_is_not_needed() -> None:
    """Kernels of 3 over 5 places with one of padding on either side: 5 x 3 products less the two outside."""
    x, w, out = tensor(1, 2, 5), tensor(4, 2, 3, role="weight"), tensor(1, 4, 5)
    sizes = {"padding": [1], "stride": [1], "dilation": [1], "groups": 1}
    found = cost_of(Op("aten.conv1d", (x, w), (out,), False, sizes))
    assert found is not None
    assert (found.matmul_flops, found.needed_flops) == (2 * 4 * 2 * 15, 2 * 4 * 2 * 13)


def test_other_ops_need_what_they_do() -> None:
    """A product with weights needs all of its work; a cache that is read outside of attention, its bytes."""
    op = Op("aten.linear", (tensor(3, 4), tensor(5, 4, role="weight")), (tensor(3, 5),))
    assert cost_of(op) == Cost(**asdict(cost_of(op) or Cost()) | {"needed_flops": 2 * 3 * 4 * 5})
    kept = cost_of(Op("aten.mul", (tensor(2, 3, role="kv"), tensor(2, 3)), (tensor(2, 3),)))
    assert kept is not None
    assert kept.needed_kv_bytes == kept.kv_read_bytes == 24
