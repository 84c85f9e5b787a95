"""The largest size that fits: a search over exact figures that proves its answer.

What a step holds is, between the points where another op makes the peak, a polynomial of low degree in the
batch (1) and the tokens (2). So a few exact figures give a good guess. No guess is believed: the answer and
the size after it have both been asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction

_GUESSES = 8
"""Sizes that are guessed from the polynomial before halving begins to take turns with it."""


@dataclass
class Search:
    """Sizes that were asked for and what each needs, in bytes; `answer` is the largest that fits.

    `answer` is 0 where not even 1 fits. With `at_most` no larger size was allowed, so that none was tried.
    """

    answer: int = 0
    at_most: bool = False
    needed: dict[int, int] = field(default_factory=dict)


def largest(needs: Callable[[int], int], capacity: int, first: int, most: int) -> Search:
    """The largest size from 1 to `most` that needs at most `capacity` bytes.

    `needs` gives exact bytes and never falls as the size grows; `first` is the size to begin with. Both the
    answer and the next size have been asked for when it returns, save a next size beyond `most`.
    """
    found = Search()
    fits, fails = 0, most + 1
    guess = first
    while fails - fits > 1:
        guess = min(max(guess, fits + 1), fails - 1)
        found.needed[guess] = needs(guess)
        if found.needed[guess] <= capacity:
            fits = guess
        else:
            fails = guess
        tried = len(found.needed)
        if tried > _GUESSES and tried % 2 and fails <= most:
            guess = (fits + fails) // 2
        else:
            guess = _guess(found.needed, capacity, fits, fails)
    found.answer, found.at_most = fits, fits == most
    return found


def _guess(needed: Mapping[int, int], capacity: int, fits: int, fails: int) -> int:
    """The largest size between that fits by the polynomial through the three figures nearest to capacity;
    with one figure alone, in proportion to it."""
    near = sorted(needed, key=lambda size: abs(needed[size] - capacity))[:3]
    if len(near) == 1:
        (size,) = near
        return size * capacity // max(needed[size], 1)
    low, high = fits, fails
    while high - low > 1:
        middle = (low + high) // 2
        if _through(near, needed, middle) <= capacity:
            low = middle
        else:
            high = middle
    return low


def _through(sizes: list[int], needed: Mapping[int, int], at: int) -> Fraction:
    """Lagrange's polynomial through these figures."""
    total = Fraction(0)
    for one in sizes:
        term = Fraction(needed[one])
        for other in sizes:
            if other != one:
                term *= Fraction(at - other, one - other)
        total += term
    return total
