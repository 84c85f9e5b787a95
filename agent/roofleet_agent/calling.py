"""Puts something around each call of a module, where no hook is needed for it.

A hook is seen by others: it is copied and pickled with the module, makes compiled code compile anew and
switches torch's fused layers off. torch asks each module for one thing before it calls it, the call that
`Module.compile` leaves there; torch's compiler looks past it, and copying and pickling leave it out.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

Call = Callable[..., Any]
"""A module's call as whoever uses it sees it, hooks included."""
_NAME = "_compiled_call_impl"


_NOT_THERE: Any = object()


class Around:
    """Stands for a module's call; a copy of it, wherever a module's attributes are copied, is none."""

    __slots__ = ("before", "call", "inner", "is_over")

    def __init__(self, call: Call, inner: Call, before: Any) -> None:
        """`call` goes through `inner` at its time; `before` is what lay in the module's attributes."""
        self.call, self.inner, self.before = call, inner, before
        self.is_over = False
        _hide_from_the_compiler(call, type(self).__call__, uncompiled)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.call(*args, **kwargs)

    def __deepcopy__(self, memo: Any) -> None:
        return None

    def __reduce__(self) -> tuple[Any, ...]:
        return type(None), ()


def _hide_from_the_compiler(*functions: Any) -> None:
    """What is called from compiled code is compiled too, functions of ours as well, unless it is told not to.
    Where the compiler is not loaded nothing is compiled."""
    compiler = sys.modules.get("torch._dynamo.eval_frame")
    for function in functions:
        code = getattr(function, "__code__", None)
        if compiler is not None and code is not None:
            compiler.skip_code(code)


def uncompiled(function: Call, *args: Any, **kwargs: Any) -> Any:
    """Calls a function that torch's compiler must not look into, wherever it is called from."""
    compiler = torch._C._dynamo.eval_frame
    before = compiler.set_eval_frame(None)
    try:
        return function(*args, **kwargs)
    finally:
        compiler.set_eval_frame(before)


def is_compiled(module: nn.Module) -> bool:
    """Whether `Module.compile` has left a compiled call there, whatever was put around it."""
    call = vars(module).get(_NAME)
    while isinstance(call, Around):
        call = call.inner
    return call is not None and call != module._call_impl


@contextmanager
def around(modules: Iterable[tuple[nn.Module, Callable[[Call], Call]]]) -> Iterator[None]:
    """Calls of each module go through what its function makes of the call, until the block ends.

    Each function is given what the module does when it is called, and gives back what is to be called in its
    place. A module may come twice; the later is the outer. Modules that run where Python does not call them,
    inside compiled or scripted code, are not seen.
    """
    put: list[tuple[nn.Module, Around]] = []
    try:
        for module, make in modules:
            there = getattr(module, _NAME, None)
            inner = there if there is not None else module._call_impl
            call = Around(make(inner), inner, vars(module).get(_NAME, _NOT_THERE))
            vars(module)[_NAME] = call
            put.append((module, call))
        yield
    finally:
        for module, call in reversed(put):
            call.is_over, call.call = True, call.inner
            _take_off(module)


def _take_off(module: nn.Module) -> None:
    """Takes off what is over. What lies around it, such as that of another thread, takes it along when it
    ends; a call that was compiled meanwhile stays."""
    held = vars(module)
    while isinstance(top := held.get(_NAME), Around) and top.is_over:
        if top.before is _NOT_THERE:
            del held[_NAME]
        else:
            held[_NAME] = top.before
