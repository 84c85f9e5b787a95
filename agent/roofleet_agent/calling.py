"""Puts something around each call of a module, where no hook is needed for it.

A hook is seen by others: it is copied and pickled with the module, makes compiled code compile anew and
switches torch's fused layers off. torch asks each module for one thing before it calls it, the call that
`Module.compile` leaves there; torch's compiler looks past it, and copying and pickling leave it out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

Call = Callable[..., Any]
"""A module's call as whoever uses it sees it, hooks included."""
_NAME = "_compiled_call_impl"


class Around:
    """Stands for a module's call; a copy of it, wherever a module's attributes are copied, is none."""

    __slots__ = ("call",)

    def __init__(self, call: Call) -> None:
        self.call = call

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.call(*args, **kwargs)

    def __deepcopy__(self, memo: Any) -> None:
        return None

    def __reduce__(self) -> tuple[Any, ...]:
        return type(None), ()


@contextmanager
def around(modules: Iterable[tuple[nn.Module, Callable[[Call], Call]]]) -> Iterator[None]:
    """Calls of each module go through what its function makes of the call, until the block ends.

    Each function is given what the module does when it is called, and gives back what is to be called in its
    place. A module may come twice; the later is the outer. Modules that run where Python does not call them,
    inside compiled or scripted code, are not seen.
    """
    put: list[tuple[nn.Module, Around, Any]] = []
    try:
        for module, make in modules:
            held = vars(module)
            before = held.get(_NAME, put)  # anything that it cannot be
            there = getattr(module, _NAME, None)
            call = Around(make(there if there is not None else module._call_impl))
            held[_NAME] = call
            put.append((module, call, before))
        yield
    finally:
        for module, call, before in reversed(put):
            held = vars(module)
            if held.get(_NAME) is not call:  # compiled, or given another call, meanwhile: that stays
                continue
            if before is put:
                del held[_NAME]
            else:
                held[_NAME] = before
