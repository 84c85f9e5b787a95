"""The formula of einsum: two operands at a time, in the order torch takes them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from roofleet_analysis.costs.matmul import product
from roofleet_analysis.costs.registry import Op, Work, formula


@formula("aten.einsum")
def einsum(op: Op) -> Work:
    # "bsd,hd->bsh": letters of both sides that are not wanted later are the inner dimension, 2 operations a
    # multiply-add; letters of one side alone are added up before. Operands are taken from the left, or two by
    # two as `path` says, where what they give goes to the end.
    left, arrow, right = op.attributes["equation"].replace(" ", "").partition("->")
    terms = [_letters(term, len(t.shape)) for term, t in zip(left.split(","), op.inputs, strict=True)]
    sizes: dict[str, int] = {}
    for term, tensor in zip(terms, op.inputs, strict=True):
        for letter, size in zip(term, tensor.shape, strict=True):
            sizes[letter] = max(size, sizes.get(letter, 1))
    wanted = _letters(right, len(op.outputs[0].shape)) if arrow else _implied(terms)
    path = list(op.attributes.get("path", ()))
    total = Work()
    while len(terms) > 1:
        named = bool(path)
        i, j = sorted((path.pop(0), path.pop(0))) if named else (0, 1)
        b, a = terms.pop(j), terms.pop(i)
        later = {letter for term in [*terms, wanted] for letter in term}
        step, result = _pair(a, b, later, sizes)
        total = Work(total.matmul_flops + step.matmul_flops, total.other_flops + step.other_flops)
        terms.insert(len(terms) if named else 0, result)
    added = len(op.inputs) == 1 and set(terms[0]) != set(wanted)
    return Work(total.matmul_flops, total.other_flops + (op.inputs[0].elements if added else 0))


def _pair(
    a: Sequence[str], b: Sequence[str], later: set[str], sizes: Mapping[str, int]
) -> tuple[Work, list[str]]:
    """The work of one product, and the letters of what it gives."""
    summed = 0
    for own, other in ((a, b), (b, a)):
        if any(letter not in later and letter not in other for letter in own):
            summed += _size(own, sizes)
    result = [letter for letter in dict.fromkeys([*a, *b]) if letter in later]
    inner = {letter for letter in a if letter in b and letter not in later}
    return product(_size(result, sizes), _size(inner, sizes), 1, summed), result


def _letters(term: str, dimensions: int) -> list[str]:
    """One name a dimension; those of an ellipsis are counted from the last."""
    before, dots, after = term.partition("...")
    extra = dimensions - len(before) - len(after)
    if extra < 0 or (extra and not dots):
        raise ValueError(f"{term!r} has not {dimensions} dimensions")
    return [*before, *(f".{place}" for place in range(extra, 0, -1)), *after]


def _implied(terms: Iterable[Sequence[str]]) -> list[str]:
    """Without an arrow: the dimensions of ellipses, and the letters that occur once."""
    counts = Counter(letter for term in terms for letter in term)
    return [letter for letter in sorted(counts) if counts[letter] == 1 or letter.startswith(".")]


def _size(letters: Iterable[str], sizes: Mapping[str, int]) -> int:
    size = 1
    for letter in letters:
        size *= sizes[letter]
    return size
