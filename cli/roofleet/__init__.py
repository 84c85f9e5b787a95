"""Roofleet: where every layer of a language model spends its time, on every machine a team owns."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from roofleet_proto import __version__

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn

    from roofleet.api.client import Connection
    from roofleet.api.watched import Watched
    from roofleet_analysis.costs.registry import Formula, Op, Work

__all__ = ["Op", "Work", "__version__", "connect", "formula", "profile"]


def connect(
    address: str,
    *,
    token: str | None = None,
    tls_ca: str | Path | None = None,
    tls_cert: str | Path | None = None,
    tls_key: str | Path | None = None,
) -> Connection:
    """A connection to a collector's SQL at `host:port`; see `roofleet.api.client.Connection`.

    What is not given is taken from the environment, as commands do: ROOFLEET_TOKEN or ROOFLEET_TOKEN_FILE,
    ROOFLEET_TLS_CA, ROOFLEET_TLS_CERT and ROOFLEET_TLS_KEY.
    """
    from pathlib import Path

    from roofleet.api.client import connect as connect_to
    from roofleet.naming.doors import door
    from roofleet_proto.door import Door

    ca, cert, key = (None if file is None else Path(file) for file in (tls_ca, tls_cert, tls_key))
    return connect_to(address, door(Door(token, tls_ca=ca, tls_cert=cert, tls_key=key)))


def profile(
    model: nn.Module,
    name: str | None = None,
    *,
    collector: str | None = None,
    data: str | None = None,
    roofs: bool = True,
) -> Watched:
    """Profiles a model's forward where your own code calls it; see `roofleet.api.watched.Watched`."""
    from roofleet.api.watched import Watched

    return Watched(model, name, collector=collector, data=data, roofs=roofs)


def formula(*names: str) -> Callable[[Formula], Formula]:
    """Registers a cost formula for operators of your own; see `roofleet.api.formulas.formula`."""
    from roofleet.api.formulas import formula as register

    return register(*names)


def __getattr__(name: str) -> Any:
    """`Op` and `Work`, what a formula takes and gives, imported when they are asked for."""
    if name in ("Op", "Work"):
        from roofleet_analysis.costs import registry

        return getattr(registry, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
