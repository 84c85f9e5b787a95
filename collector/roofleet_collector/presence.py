"""How a collector on this machine is found: the note it leaves in its data folder."""

from __future__ import annotations

import json
import socket
from dataclasses import asdict, dataclass
from pathlib import Path

NOTE_NAME = "collector.json"


@dataclass(frozen=True)
class Running:
    """Where a collector listens; with TLS, the file of the certificate that it shows."""

    pid: int
    grpc: str
    sql: str
    tls_cert: str | None = None


def address_text(host: str, port: int) -> str:
    """HOST:PORT, with brackets around an IPv6 address."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def leave_note(folder: Path, running: Running) -> Path:
    """Writes the note; its path, to be taken away in the end."""
    note = folder / NOTE_NAME
    note.write_text(json.dumps(asdict(running)))
    return note


def running_collector(folder: Path) -> Running | None:
    """The collector that holds a data folder; None if there is no note, or nobody answers where it says.

    A collector that was killed leaves its note behind, and its process number may be another's by now: only
    an open port counts.
    """
    try:
        running = Running(**json.loads((folder / NOTE_NAME).read_text()))
    except (OSError, ValueError, TypeError):
        return None
    return running if _listens(running.grpc) and _listens(running.sql) else None


def _listens(address: str) -> bool:
    host, _, port = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    everywhere = {"0.0.0.0": "127.0.0.1", "::": "::1"}
    try:
        with socket.create_connection((everywhere.get(host, host), int(port)), timeout=1):
            return True
    except (OSError, ValueError):
        return False
