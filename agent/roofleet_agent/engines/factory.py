"""Finds and calls the user's own factory of a module, and says in words what is wrong with it."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from roofleet_agent.engines.base import SEED
from roofleet_agent.errors import ModelNotFound, ModelRefused

_CONTRACT = "it must return a torch.nn.Module, or a module and its inputs"


def made_by(name: str) -> tuple[nn.Module, Any]:
    """The module of `package.module:factory` or `file.py:factory`, and its inputs or None.

    ModelNotFound if there is no such factory; ModelRefused if it cannot be called or gives something else.
    """
    place, _, factory = name.rpartition(":")
    code = _imported(place, name)
    function = getattr(code, factory, None)
    if function is None:
        raise ModelNotFound(f"{name!r} could not be found: {place} has no {factory!r}")
    _check_callable(function, name)
    torch.manual_seed(SEED)
    try:
        made = function()
    except Exception as error:
        raise ModelRefused(f"{name} raised {type(error).__name__}: {error}") from error
    module, inputs = made if isinstance(made, tuple) and len(made) == 2 else (made, None)
    if not isinstance(module, nn.Module):
        raise ModelRefused(f"{name} returned {_said(made)}; {_CONTRACT}")
    if any(p.is_meta for p in module.parameters()):
        raise ModelRefused(
            f"{name} returned a module whose weights are on `meta`, without values: a factory is called more "
            "than once, and makes a new module each time"
        )
    return module, inputs


def _imported(place: str, name: str) -> ModuleType:
    if "" not in sys.path:
        sys.path.insert(0, "")  # a console script does not look in the current folder by itself
    try:
        return _of_file(Path(place)) if place.endswith(".py") else importlib.import_module(place)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{place}.".startswith(f"{error.name}."):
            raise ModelRefused(f"{place} could not be imported: {error}") from error
        raise ModelNotFound(
            f"{name!r} could not be found: {error}. Give package.module:factory, importable from here, or "
            "path/to/file.py:factory"
        ) from error
    except Exception as error:
        raise ModelRefused(f"{place} could not be imported: {type(error).__name__}: {error}") from error


def _of_file(file: Path) -> ModuleType:
    """The code of a file, once for a process; what lies beside it can be imported by it."""
    known = f"roofleet_model:{file}"
    if known in sys.modules:
        return sys.modules[known]
    spec = importlib.util.spec_from_file_location(known, file)
    if spec is None or spec.loader is None or not file.is_file():
        raise ModelNotFound(f"there is no file {file}")
    if str(file.parent) not in sys.path:
        sys.path.insert(0, str(file.parent))
    code = importlib.util.module_from_spec(spec)
    sys.modules[known] = code
    try:
        spec.loader.exec_module(code)
    except BaseException:
        del sys.modules[known]
        raise
    return code


def _check_callable(function: Any, name: str) -> None:
    if isinstance(function, nn.Module) or not callable(function):
        raise ModelRefused(
            f"{name} is {_said(function)} and no function: write one without arguments; {_CONTRACT}"
        )
    try:
        wanted = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return  # written in C, it does not say
    empty, variadic = (
        inspect.Parameter.empty,
        (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD),
    )
    asked = [p.name for p in wanted if p.default is empty and p.kind not in variadic]
    if asked:
        raise ModelRefused(
            f"{name} asks for {', '.join(asked)}, and a factory is called without arguments: write one that "
            "gives them"
        )


def _said(value: Any) -> str:
    if isinstance(value, tuple):
        return f"({', '.join(type(item).__name__ for item in value)})"
    return type(value).__name__ if value is not None else "None"
