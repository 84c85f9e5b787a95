"""Loops in a trace, folded: the ops of one round stand for all rounds.

A recurrence without a kernel of its own, such as the scan of Mamba in plain torch, runs the same dozen ops
for every token of a sequence: 39,000 ops for 128 tokens of mamba-130m. Rounds that follow one another in one
layer with the same operators, shapes, dtypes and roles are kept once, and the attribute `repeat` of each op
says how often it ran. A cost is that of a round times the rounds, so sums stay exact; where a loop slices,
only the first round's offsets are kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from roofleet_agent.tracing.records import TracedOp

LEAST_ROUNDS = 4
"""Fewer are not worth folding, and are no loop more often than not."""

LONGEST_ROUND = 32


def fold(ops: Sequence[TracedOp]) -> list[TracedOp]:
    """The same ops with every loop folded; ops that are in none are the ones given."""
    kinds: dict[object, int] = {}
    signs = [kinds.setdefault(_sign(op), len(kinds)) for op in ops]
    folded: list[TracedOp] = []
    at = 0
    while at < len(ops):
        length, rounds = _loop(signs, at)
        if rounds == 1:
            folded.append(ops[at])
        else:
            for op in ops[at : at + length]:
                folded.append(replace(op, attributes={**op.attributes, "repeat": rounds}))
        at += length * rounds
    return folded


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
