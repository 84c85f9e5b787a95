"""torch and transformers in a process that only traces: with less to load, and less to do beside it."""

from __future__ import annotations

import gc
import importlib.util
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

_NOT_FOR_SHAPES = ("accelerate", "torchao", "trio", "pandas", "sklearn", "scipy")
"""What transformers and what it needs import if it is there, and then use for weights, networks and data."""


def _as_it_is(function: Any = None, *_: Any, **__: Any) -> Any:
    """A decorator that changes nothing, with arguments of its own or without."""
    return function if function is not None else _as_it_is


_MARKS = dict.fromkeys(
    ("disable", "allow_in_graph", "assume_constant_result", "mark_static_address"), _as_it_is
)
"""Decorators that tell torch's compiler what to leave alone."""
_ENOUGH: dict[str, dict[str, Any]] = {
    "torch._dynamo": {**_MARKS, "set_stance": lambda *_, **__: nullcontext()},
    "torch.fx.experimental.symbolic_shapes": {
        **dict.fromkeys(
            ("expect_true", "guard_or_false", "guard_or_true", "guard_size_oblivious", "guard_bool"), bool
        ),
        "guarding_hint_or_throw": lambda hint: hint,
        "has_guarding_hint": lambda size: True,
        "sym_and": lambda *those: all(those),
        "sym_or": lambda *those: any(those),
        "sym_eq": lambda one, other: one == other,
        "statically_known_true": bool,
        "is_nested_int": lambda size: False,
    },
    "sympy": {"Basic": type("NoSymbol", (), {})},
}
"""Modules that cost much to import, those first that import others, and what of them is enough where nothing
is compiled and no shape is a symbol."""
_ALONE = ("torch._dynamo._trace_wrapped_higher_order_op",)
"""What lies inside of them, is imported by every model, and needs nothing else of them."""


@contextmanager
def tracing_alone() -> Iterator[None]:
    """Imports torch and transformers as one needs them who loads no weights and compiles nothing.

    For a process that only traces, while it lasts: transformers remembers what it was told is not there.
    Torch's compiler, its algebra of shapes, its tensors spread over devices, and packages for weights and
    networks take longer to import than a model of a hundred layers takes to trace. Where one of the two is
    imported already nothing is changed. Raises ImportError without them.
    """
    if "torch" in sys.modules or "transformers" in sys.modules:
        yield
        return
    with ExitStack() as lasting:
        with ExitStack() as importing:
            importing.enter_context(_few_collections())
            for name in _NOT_FOR_SHAPES:
                importing.enter_context(_absent(name))
            import torch

            importing.enter_context(_with_others(torch.distributed, {"is_available": lambda: False}))
            lasting.enter_context(_stood_in_for())
            import transformers.modeling_layers  # noqa: F401  # and with it what every model imports
        yield


class _StandIn(ModuleType):
    """Has what is enough of a module; asked for more, it makes place for the module and what this imports."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(_itself(self.__name__), name)


def _itself(name: str) -> ModuleType:
    """The module that was stood in for."""
    names = list(_ENOUGH)
    _make_place(names[names.index(name) :])
    return importlib.import_module(name)


def _make_place(names: Iterable[str]) -> None:
    for name in names:
        if isinstance(sys.modules.get(name), _StandIn):
            del sys.modules[name]


class _Inside(MetaPathFinder):
    """Lets a package that is stood in for be imported before what lies inside of it."""

    def find_spec(self, name: str, path: Any, target: Any = None) -> ModuleSpec | None:
        package = name.rpartition(".")[0]
        if name in _ALONE or not isinstance(sys.modules.get(package), _StandIn):
            return None
        _itself(package)
        there = sys.modules.get(name)
        return None if there is None else ModuleSpec(name, _Loaded(there))


class _Loaded(Loader):
    """Gives a module that is loaded already."""

    def __init__(self, module: ModuleType) -> None:
        self._module = module

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return self._module

    def exec_module(self, module: ModuleType) -> None:
        return None


@contextmanager
def _stood_in_for() -> Iterator[None]:
    """The costly modules that are not imported yet are stood in for."""
    for name, enough in _ENOUGH.items():
        spec = importlib.util.find_spec(name)
        if name not in sys.modules and spec is not None:
            stand_in = _StandIn(name)
            stand_in.__path__ = spec.submodule_search_locations or []
            vars(stand_in).update(enough)
            sys.modules[name] = stand_in
    inside = _Inside()
    sys.meta_path.insert(0, inside)
    try:
        yield
    finally:
        sys.meta_path.remove(inside)
        _make_place(_ENOUGH)


@contextmanager
def _with_others(owner: Any, others: Mapping[str, Any]) -> Iterator[None]:
    own = {name: getattr(owner, name) for name in others}
    vars(owner).update(others)
    try:
        yield
    finally:
        vars(owner).update(own)


@contextmanager
def _absent(package: str) -> Iterator[None]:
    """A package that is not imported yet cannot be while it lasts."""
    if package in sys.modules:
        yield
        return
    sys.modules[package] = None  # type: ignore[assignment]  # Python's own way to say so
    try:
        yield
    finally:
        with suppress(KeyError):
            del sys.modules[package]


@contextmanager
def _few_collections() -> Iterator[None]:
    """Python's garbage collector looks less often at what there is while it lasts.

    The modules of torch and transformers are hundreds of thousands of objects that stay: looking through them
    again and again, as they come, is a fifth of the time that their import takes.
    """
    before = gc.get_threshold()
    gc.set_threshold(200_000, 50, 100)
    try:
        yield
    finally:
        gc.set_threshold(*before)
