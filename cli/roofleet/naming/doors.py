"""How a collector is reached: by what the command was given, the environment, or what lies in its folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from roofleet.errors import UserError
from roofleet_proto.door import Door, NoEntry

if TYPE_CHECKING:
    from roofleet_collector.presence import Running

AGENT_TOKEN = "agent.token"
"""Where `roofleet agent join` leaves the token in the agent's folder."""
AGENT_AUTHORITY = "agent-ca.pem"
"""Where it leaves what the collector's certificate is checked against."""

_given = Door()


@contextmanager
def reached_by(door: Door) -> Iterator[None]:
    """What a command was given, while it runs."""
    global _given
    before, _given = _given, door
    try:
        yield
    finally:
        _given = before


def door(given: Door | None = None) -> Door:
    """What a caller brings along: what was given, and beyond it what the environment says.

    UserError if the parts do not fit together, or a file cannot be read.
    """
    given = given or _given
    said: dict[str, Any] = {
        "token_file": _path("ROOFLEET_TOKEN_FILE"),
        "tls_ca": _path("ROOFLEET_TLS_CA"),
        "tls_cert": _path("ROOFLEET_TLS_CERT"),
        "tls_key": _path("ROOFLEET_TLS_KEY"),
        "insecure_plaintext": os.environ.get("ROOFLEET_INSECURE_PLAINTEXT") == "1",
    }
    if given.token is None and given.token_file is None:
        said["token"] = os.environ.get("ROOFLEET_TOKEN") or None
    found = replace(given, **{name: value for name, value in said.items() if not getattr(given, name)})
    try:
        found.check()
    except NoEntry as error:
        raise UserError(str(error)) from None
    return found


def agents_door(folder: Path) -> Door:
    """The same for an agent, whose folder holds its token if it has joined."""
    found = door()
    joined, authority = folder / AGENT_TOKEN, folder / AGENT_AUTHORITY
    if found.shown() is None and joined.exists():
        found = replace(found, token_file=joined)
        if found.tls_ca is None and authority.exists():
            found = replace(found, tls_ca=authority)
    return found


def local_door(folder: Path, running: Running) -> Door:
    """The way to the collector that holds a folder: who can read its token of the moment may do everything,
    as with the folder's files themselves."""
    found = door()
    local = folder / "collector.token"
    if os.access(local, os.R_OK):
        found = replace(found, token_file=local, token=None)
    if running.tls_cert is not None and found.tls_ca is None:
        found = replace(found, tls_ca=Path(running.tls_cert))
    return found


def here(address: str, running: Running) -> str:
    """An address of a collector of this machine, by a name that its certificate can have."""
    host, _, port = address.rpartition(":")
    everywhere = running.tls_cert is not None and host in ("0.0.0.0", "[::]", "127.0.0.1", "[::1]")
    return f"localhost:{port}" if everywhere else address


def _path(variable: str) -> Path | None:
    text = os.environ.get(variable)
    return Path(text) if text else None
