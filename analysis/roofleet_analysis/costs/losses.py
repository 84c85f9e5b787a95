"""Formulas of loss functions: what they do to each element of the prediction, and the sum over all."""

from __future__ import annotations

from roofleet_analysis.costs.elementwise import SOFTMAX
from roofleet_analysis.costs.registry import FORMULAS, Op, Work, formula

# operations for each element of the prediction
_PER_ELEMENT: dict[int, tuple[str, ...]] = {
    3: ("mse_loss", "l1_loss", "hinge_embedding_loss", "margin_ranking_loss"),  # difference, power, sum
    4: ("kl_div", "poisson_nll_loss", "soft_margin_loss", "multi_margin_loss"),
    5: ("huber_loss", "smooth_l1_loss", "multilabel_margin_loss", "multilabel_margin_loss_forward"),
    # two logarithms, two products and a difference, a sum; from logits two more to have them in range
    7: ("binary_cross_entropy",),
    9: ("binary_cross_entropy_with_logits",),
    # of both distances: difference, square, sum; the root and the margin are one a row
    6: ("triplet_margin_loss", "cosine_embedding_loss", "cosine_similarity"),
}


def _per_element(operations: int) -> None:
    def rule(op: Op) -> Work:
        return Work(other_flops=operations * op.inputs[0].elements)

    for name in _PER_ELEMENT[operations]:
        FORMULAS[f"aten.{name}"] = rule


for _operations in _PER_ELEMENT:
    _per_element(_operations)


@formula("aten.nll_loss", "aten.nll_loss2d", "aten.nll_loss_nd", "aten.nll_loss_forward",
         "aten.nll_loss2d_forward")  # fmt: skip
def nll_loss(op: Op) -> Work:
    # log p: [b, classes, *], targets: [b, *]: one of each row is picked and added
    log_p, targets = op.inputs[:2]
    picked = targets.elements * (log_p.bytes // log_p.elements)
    return Work(other_flops=targets.elements, read={0: picked})


@formula("aten.cross_entropy_loss")
def cross_entropy(op: Op) -> Work:
    # logits: [b, classes, *], targets of the same shape or one a row: softmax, its logarithm in place of the
    # quotient, and a product and a sum an element of the targets
    logits, targets = op.inputs[:2]
    return Work(other_flops=SOFTMAX * logits.elements + 2 * targets.elements)


@formula("aten.ctc_loss", "aten._ctc_loss", "aten._cudnn_ctc_loss")
def ctc_loss(op: Op) -> Work:
    # log p: [t, b, classes], targets: [b, s]: for every moment 2 s + 1 states, each of three before it
    log_p, targets = op.inputs[:2]
    t, b = log_p.shape[:2]
    states = 2 * (targets.shape[-1] if len(targets.shape) > 1 else targets.elements // b) + 1
    return Work(other_flops=7 * t * b * states)  # three exponentials, two sums, a logarithm and a sum


@formula("aten.pairwise_distance", "aten.dist")
def distance(op: Op) -> Work:
    # a, b: [..., m]: difference, power, sum
    return Work(other_flops=3 * op.inputs[0].elements)
