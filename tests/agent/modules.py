"""Factories that tests name as `tests.agent.modules:factory`."""

from __future__ import annotations

import torch
from torch import nn


def with_inputs() -> tuple[nn.Module, torch.Tensor]:
    """A module and its inputs: batch 3 of 5 vectors."""
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)), torch.zeros(3, 5, 4)


def images() -> tuple[nn.Module, torch.Tensor]:
    """A convolutional network and two images of three channels."""
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 36, 2)), torch.zeros(2, 3, 8, 8)


def encoder() -> tuple[nn.Module, torch.Tensor]:
    """Two encoder layers, which torch runs fused, and a head."""
    layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True)
    return nn.Sequential(
        nn.TransformerEncoder(layer, 2, enable_nested_tensor=False), nn.Linear(16, 3)
    ), torch.ones(2, 10, 16)


def no_module() -> int:
    """No module."""
    return 3


def a_vector_and_a_number() -> tuple[int, torch.Tensor]:
    """No module, though two things."""
    return 3, torch.ones(2)


def wants_a_size(size: int) -> nn.Module:
    """Asks for an argument, which nobody gives."""
    return nn.Linear(size, size)


MODEL = nn.Linear(2, 2)


def always_the_same() -> nn.Module:
    """One module for every call."""
    return MODEL


def images_of_no_size() -> nn.Module:
    """Takes images of any size."""
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))


class _TakesPairs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Bilinear(4, 4, 2)

    def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.layer(a, b)
        return result


def pairs() -> nn.Module:
    """What it takes cannot be guessed, though it has a linear layer inside."""
    return nn.Sequential(_TakesPairs(), nn.Linear(2, 2))


def no_inputs_to_guess() -> nn.Module:
    """Nothing tells what goes in."""
    return nn.ReLU()


class _Breaks(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not x.is_meta:
            raise RuntimeError("broken on purpose")
        result: torch.Tensor = self.layer(x)
        return result


def breaks_on_real_data() -> nn.Module:
    """Can be traced and not run."""
    return _Breaks()


class _LooksAtData(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.layer(x) if x.sum().item() >= 0 else x
        return result


def looks_at_data() -> tuple[nn.Module, torch.Tensor]:
    """Decides on the values it gets, which `meta` does not have."""
    return _LooksAtData(), torch.ones(1, 2, 4)


class _NeedsTooMuch(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not x.is_meta:
            torch.empty(2**50)
        result: torch.Tensor = self.layer(x)
        return result


def needs_too_much() -> nn.Module:
    """Asks for a pebibyte when it runs on a device."""
    return _NeedsTooMuch()
