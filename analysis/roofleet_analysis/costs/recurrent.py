"""Formulas of recurrent layers: the matrices once for every position, and the gates."""

from __future__ import annotations

from roofleet_analysis.costs.registry import FORMULAS, Formula, Op, Work

# Of each: gates, and operations for each hidden unit and position without the biases.
# lstm: 4 sums of the two products, 4 functions, f * c + i * g (3), tanh(c), o * that
# gru: 2 sums and functions of gates, r * n (1), its sum and tanh, (1 - z) * n + z * h (4)
# rnn: a sum and a function
_KINDS = {"lstm": (4, 13), "gru": (3, 11), "rnn_tanh": (1, 2), "rnn_relu": (1, 2)}


def _layers(operations: int) -> Formula:
    def rule(op: Op) -> Work:
        # x: [t, b, i] or packed [rows, i], states [layers * directions, b, h], then for each layer and
        # direction w_ih: [gates * h, i], w_hh: [gates * h, h] and two biases [gates * h]
        x = op.inputs[0]
        rows = x.elements // x.shape[-1]
        weights = [t for t in op.inputs[1:] if len(t.shape) == 2]
        biases = [t for t in op.inputs[1:] if len(t.shape) == 1 and t.dtype != "int64"]
        states = [t for t in op.inputs[1:] if len(t.shape) == 3]
        units = states[-1].shape[0] * states[-1].shape[2]  # of an lstm the cells, which are not projected
        return Work(
            matmul_flops=2 * rows * sum(w.elements for w in weights),
            other_flops=rows * (operations * units + sum(b.elements for b in biases)),
        )

    return rule


def _cell(gates: int, operations: int, states: int) -> Formula:
    def rule(op: Op) -> Work:
        # x: [b, i], states [b, h], w_ih: [gates * h, i], w_hh: [gates * h, h], two biases [gates * h]
        batch = op.inputs[0].elements // op.inputs[0].shape[-1]
        w_ih, w_hh, *biases = op.inputs[1 + states :]
        return Work(
            matmul_flops=2 * batch * (w_ih.elements + w_hh.elements),
            other_flops=batch * (operations * w_ih.shape[0] // gates + sum(b.elements for b in biases)),
        )

    return rule


for _name, (_gates, _operations) in _KINDS.items():
    FORMULAS[f"aten.{_name}"] = _layers(_operations)
    FORMULAS[f"aten.{_name}_cell"] = _cell(_gates, _operations, 2 if _name == "lstm" else 1)
