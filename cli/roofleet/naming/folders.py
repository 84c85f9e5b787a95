"""Where data lies when the caller does not say, and addresses as they are written."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs

from roofleet.errors import UserError

DEFAULT_GRPC = "127.0.0.1:7700"
DEFAULT_SQL = "127.0.0.1:7701"
DEFAULT_DASHBOARD = "127.0.0.1:7702"
"""Where the three processes listen when nobody says otherwise."""


def data_folder(given: Path | None) -> Path:
    """The folder named, else $ROOFLEET_DATA, else the platform's user data folder."""
    if given is not None:
        return given.expanduser()
    named = os.environ.get("ROOFLEET_DATA")
    return (
        Path(named).expanduser() if named else Path(platformdirs.user_data_dir("roofleet", appauthor=False))
    )


def address(text: str) -> tuple[str, int]:
    """Host and port of HOST:PORT or [HOST]:PORT; UserError if it is neither."""
    host, separator, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not separator or not host or not port.isdigit() or int(port) > 65_535:
        raise UserError(f"{text!r} is no address: write HOST:PORT, such as 127.0.0.1:7700")
    return host, int(port)
