"""Modules with operators of their own, as users write them, with and without a cost formula."""

from __future__ import annotations

import torch
from torch import nn

import roofleet


@torch.library.custom_op("roofleet_tests::scan", mutates_args=())
def scan(x: torch.Tensor, decay: float) -> torch.Tensor:
    """A running sum that forgets: x [batch, tokens, features]."""
    out, state = torch.empty_like(x), torch.zeros_like(x[:, 0])
    for token in range(x.shape[1]):
        state = decay * state + x[:, token]
        out[:, token] = state
    return out


@scan.register_fake
def _(x: torch.Tensor, decay: float) -> torch.Tensor:
    return torch.empty_like(x)


@torch.library.custom_op("roofleet_tests::double_", mutates_args=("x",))
def double_(x: torch.Tensor) -> None:
    """Writes into its argument and answers nothing, as kernels do."""
    x.mul_(2)


@torch.library.triton_op("roofleet_tests::kernel", mutates_args=())
def kernel(x: torch.Tensor) -> torch.Tensor:
    """Where a Triton kernel would be launched."""
    return x.exp()


class Scanning(nn.Module):
    """A projection between operators that nobody knows."""

    def __init__(self) -> None:
        super().__init__()
        self.project = nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x: [batch, tokens, 8]."""
        x = self.project(scan(x, 0.5))
        double_(x)
        return kernel(x)


def without_formula() -> tuple[nn.Module, torch.Tensor]:
    """The factory of a model whose operators nobody knows."""
    return Scanning(), torch.ones(2, 5, 8)


def with_formula() -> tuple[nn.Module, torch.Tensor]:
    """The same, and its author says what the scan costs."""

    @roofleet.formula("roofleet_tests::scan")
    def scan_cost(op: roofleet.Op) -> roofleet.Work:
        # x: [b, t, f]: a product and a sum an element
        return roofleet.Work(other_flops=2 * op.inputs[0].elements)

    return without_formula()
