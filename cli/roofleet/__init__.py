"""Roofleet: where every layer of a language model spends its time, on every machine a team owns."""

from __future__ import annotations

from typing import TYPE_CHECKING

from roofleet_proto import __version__

if TYPE_CHECKING:
    from roofleet.client import Connection

__all__ = ["__version__", "connect"]


def connect(address: str) -> Connection:
    """A connection to a collector's SQL at `host:port`; see `roofleet.client.Connection`."""
    from roofleet.client import connect as connect_to

    return connect_to(address)
