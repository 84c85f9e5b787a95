"""Dash's callback decorator with types, so that a decorated function keeps its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import dash

__all__ = ["callback"]

Function = TypeVar("Function", bound=Callable[..., Any])


def callback(app: dash.Dash, *dependencies: Any, **options: Any) -> Callable[[Function], Function]:
    """`app.callback(*dependencies, **options)`."""
    return cast(Callable[[Function], Function], app.callback(*dependencies, **options))
