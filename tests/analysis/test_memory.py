"""The largest size that fits: found by few figures, and proven by two of them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roofleet_analysis.memory import largest


def line(batch: int) -> int:
    """Weights of 1,000 bytes and 30 a sequence."""
    return 1000 + 30 * batch


def test_a_line_is_found_in_four_figures() -> None:
    """(1600 - 1000) / 30 = 20 sequences fit: asked are the first, a guess, 20 and 21."""
    found = largest(line, 1600, 1, 10_000)
    assert found.answer == 20
    assert not found.at_most
    assert {20, 21} <= set(found.needed)
    assert len(found.needed) <= 4


def test_a_square_is_found_in_few_figures() -> None:
    """7 n^2 + 100 n + 5 000 <= 10^9: n = (-100 + sqrt(100^2 + 28 (10^9 - 5 000))) / 14 = 11 945.1."""
    found = largest(lambda n: 7 * n * n + 100 * n + 5000, 10**9, 128, 131_072)
    assert found.answer == 11_945
    assert len(found.needed) <= 6


def test_nothing_fits_where_one_does_not() -> None:
    """1 000 + 30 is more than 1 029: the answer is 0, and 1 was asked for."""
    found = largest(line, 1029, 8, 100)
    assert found.answer == 0
    assert found.needed[1] == 1030


def test_the_limit_is_said() -> None:
    """Where the largest size allowed fits, nothing beyond it is asked for."""
    found = largest(line, 10**9, 4, 50)
    assert (found.answer, found.at_most, max(found.needed)) == (50, True, 50)


@pytest.mark.parametrize("capacity", [2_000, 5_999, 6_000, 1_000_000])
def test_a_kink_does_not_mislead(capacity: int) -> None:
    """Where another op makes the peak, or a window is full, the answer is still proven."""

    def kinked(n: int) -> int:
        return max(1000 + 10 * n, 50 * n - 3000, 400 * min(n, 16))

    found = largest(kinked, capacity, 3, 10**6)
    assert kinked(found.answer) <= capacity < kinked(found.answer + 1)


@given(
    st.lists(st.integers(0, 10**6), min_size=1, max_size=40),
    st.integers(0, 10**7),
    st.integers(1, 60),
    st.integers(1, 60),
)
def test_the_answer_fits_and_the_next_does_not(
    rises: list[int], capacity: int, first: int, most: int
) -> None:
    """For any function that never falls: the answer is the largest, and every figure was asked for once."""

    def needs(n: int) -> int:
        asked.append(n)
        return sum(rises[: min(n, len(rises))])

    asked: list[int] = []
    found = largest(needs, capacity, first, most)
    assert sorted(found.needed) == sorted(asked)
    fitting: Callable[[int], bool] = lambda n: sum(rises[: min(n, len(rises))]) <= capacity  # noqa: E731
    assert found.answer == max((n for n in range(1, most + 1) if fitting(n)), default=0)
    assert found.at_most == (found.answer == most)
    assert found.answer == 0 or found.answer in found.needed
    assert found.at_most or found.answer + 1 in found.needed


@given(st.integers(0, 10**12), st.integers(1, 10**9), st.integers(1, 10**12), st.integers(1, 4096))
def test_a_search_is_short(weights: int, each: int, capacity: int, first: int) -> None:
    """For the straight lines that batches make six figures are enough, whatever their slope."""
    found = largest(lambda n: weights + each * n, capacity, first, 2**25)
    assert len(found.needed) <= 6
