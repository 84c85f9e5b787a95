"""Loops over tokens on `meta`, cut short: a few rounds run, and who records hears what they stand for."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from types import FunctionType, MethodType
from typing import Any, Protocol

import torch
from torch import nn

from roofleet_agent.tracing.folding import LEAST_ROUNDS

SHORTEST = 64
"""Loops of fewer rounds run as they are: in longer ones what rounds keep outweighs what one needs."""

_SCANS = ("mamba_selective_scan",)
"""Functions of transformers that go through a sequence token by token where there is no kernel for it."""


class Listener(Protocol):
    """Somebody who records what runs."""

    def standing_for_others(self) -> None:
        """The round that begins stands for those that are left out after it."""
        ...

    def skipped(self, rounds: int) -> None:
        """So many rounds like the one before are left out here."""
        ...

    def stacked(self, like: torch.Tensor, count: int, call: Callable[[], Any], attributes: Any) -> Any:
        """`call` stands for stacking so many tensors like that one."""
        ...


listeners: list[Listener] = []
"""Those who record now."""


def cut_scans_short(model: nn.Module) -> None:
    """Gives the scanning layers of a model on `meta` a forward whose loops are cut short.

    The code is the layer's own, and so are all its ops but those of the rounds left out: only `range` and
    `torch.stack` mean something else to the function that scans. No class and no module is changed.
    """
    made: dict[Any, Any] = {}  # layers of one class share what they do
    for module in model.modules():
        forward: Any = inspect.unwrap(type(module).forward)
        for name in _SCANS:
            if isinstance(forward, FunctionType) and name in forward.__code__.co_names:
                if forward not in made:
                    scan = _short(inspect.unwrap(forward.__globals__[name]))
                    made[forward] = _with_globals(forward, {name: scan})
                module.forward = MethodType(made[forward], module)


def _short(scan: Any) -> Callable[..., Any]:
    def short(*args: Any, **kwargs: Any) -> Any:
        known = inspect.signature(scan).parameters
        loop = _Loop()
        function = _with_globals(scan, {"range": loop.range, "torch": loop})
        return function(*args, **{name: value for name, value in kwargs.items() if name in known})

    return short


class _Loop:
    """Stands for `torch` in one call of a scan: it is torch, but for the stacking of what the rounds gave."""

    def __init__(self) -> None:
        self._left_out = 0
        self._kept: torch.Tensor | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)

    def range(self, rounds: int) -> Iterator[int]:
        """The first rounds and the last. The very first may be unlike the others, as where a state begins in
        another dtype than sums are kept in, and so may the very last: those between still make a loop."""
        if rounds < SHORTEST:
            yield from range(rounds)
            return
        half = LEAST_ROUNDS // 2 + 1
        yield from range(half - 1)
        for listener in listeners:
            listener.standing_for_others()
        yield half - 1
        self._left_out = rounds - 2 * half
        for listener in listeners:
            listener.skipped(self._left_out)
        yield from range(rounds - half, rounds)

    def stack(self, tensors: Sequence[torch.Tensor], dim: int = 0) -> torch.Tensor:
        """The stack of all rounds; what those left out would keep is kept until the scan is done."""
        if not self._left_out:
            return torch.stack(list(tensors), dim=dim)
        like, count = tensors[0], len(tensors) + self._left_out

        def stack() -> torch.Tensor:
            shape = list(like.shape)
            shape.insert(dim % (like.dim() + 1), count)
            self._kept = like.new_empty(self._left_out, *like.shape)
            return like.new_empty(shape)

        call: Callable[[], torch.Tensor] = stack
        for listener in listeners:
            call = _told(listener, like, count, call, {"dim": dim})
        return call()


def _told(
    listener: Listener, like: torch.Tensor, count: int, call: Callable[[], Any], attributes: Any
) -> Callable[[], Any]:
    return lambda: listener.stacked(like, count, call, attributes)


def _with_globals(function: Any, changed: dict[str, Any]) -> Any:
    """The same function, to which some global names mean something else."""
    made = FunctionType(
        function.__code__,
        {**function.__globals__, **changed},
        function.__name__,
        function.__defaults__,
        function.__closure__,
    )
    made.__kwdefaults__ = function.__kwdefaults__
    return made
