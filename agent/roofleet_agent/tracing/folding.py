"""Loops in a trace, folded: the ops of one round stand for all rounds.

A recurrence without a kernel of its own, such as the scan of Mamba in plain torch, runs the same dozen ops
for every token of a sequence: 39,000 ops for 128 tokens of mamba-130m. Rounds that follow one another in one
layer with the same operators, shapes, dtypes and roles are kept once, and the attribute `repeat` of each op
says how often it ran. A cost is that of a round times the rounds, so sums stay exact; where a loop slices,
only the first round's offsets are kept. What the rounds gave, a list of like tensors, becomes one operand
with as many rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from roofleet_agent.tracing.records import TracedOp, TracedTensor

LEAST_ROUNDS = 4
"""Fewer are not worth folding, and are no loop more often than not."""

LONGEST_ROUND = 32


_LISTS = frozenset({"aten.stack", "aten.cat"})


@dataclass(frozen=True)
class Skipped:
    """Rounds that did not run, after the one of the ops from `begin` to `end`, which stands for them."""

    begin: int
    end: int
    rounds: int


def fold(ops: Sequence[TracedOp], skipped: Iterable[Skipped] = ()) -> list[TracedOp]:
    """The same ops with every loop folded; ops that are in none are the ones given.

    Rounds that were skipped belong to the loop found around them; where none is found, as in a round longer
    than any that is looked for, they belong to the round before.
    """
    left = list(skipped)
    kinds: dict[object, int] = {}
    signs = [kinds.setdefault(_sign(op), len(kinds)) for op in ops]
    folded: list[TracedOp] = []
    at = 0
    while at < len(ops):
        length, rounds = _loop(signs, at)
        after = at + length * rounds
        cut = next((s for s in left if at <= s.begin < after < s.end), None)
        if cut is not None:  # a loop that does not reach the rounds left out, nor past the one before them
            length, rounds = (cut.end - at, 1) if cut.begin == at else (1, 1)
            after = at + length
        here = [s for s in left if at < s.end <= after]
        left = [s for s in left if s not in here]
        times = rounds + sum(s.rounds for s in here)
        for op in ops[at : at + length]:
            folded.append(
                _shortened(op) if times == 1 else replace(op, attributes={**op.attributes, "repeat": times})
            )
        at = after
    return folded


def _shortened(op: TracedOp) -> TracedOp:
    """The op with lists of like operands as one each."""
    if op.op not in _LISTS:
        return op
    inputs: list[TracedTensor] = []
    for tensor, run in groupby(op.inputs):
        like = list(run)
        if len(like) < LEAST_ROUNDS:
            inputs += like
        else:
            inputs.append(rows_of(tensor, len(like)))
    return replace(op, inputs=tuple(inputs))


def rows_of(tensor: TracedTensor, count: int) -> TracedTensor:
    """So many like operands as one: [count, *shape]."""
    return replace(tensor, shape=(count, *tensor.shape), bytes=count * tensor.bytes)


def _sign(op: TracedOp) -> object:
    return op.path, op.op, op.inputs, op.outputs, op.is_view


def _loop(signs: Sequence[int], at: int) -> tuple[int, int]:
    """The length of a round that begins here and how many there are; (1, 1) if none does.

    A round has at least two ops: the same op a few times running is what a model may well do without a loop.
    """
    for length in range(2, LONGEST_ROUND + 1):
        if at + length >= len(signs) or signs[at] != signs[at + length]:
            continue
        rounds = 1
        first = signs[at : at + length]
        while signs[at + rounds * length : at + (rounds + 1) * length] == first:
            rounds += 1
        if rounds >= LEAST_ROUNDS and len(set(first)) > 1:
            return length, rounds
    return 1, 1
