"""What the processes that stay have in common: options, their log, and how they end."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from typing import Annotated

import typer

from roofleet import logs

Metrics = Annotated[
    str | None,
    typer.Option(
        "--metrics",
        metavar="HOST:PORT",
        help="Where Prometheus reads figures; nowhere by default.",
        show_default=False,
    ),
]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="The same as --log-level debug.")]
LogFormat = Annotated[
    logs.Format,
    typer.Option("--log-format", help="text for people and the journal, json for a JSON object a line."),
]
LogLevel = Annotated[logs.Level, typer.Option("--log-level", help="The least that is logged.")]


def on_end(stop: Callable[[], None]) -> None:
    """Ctrl-C and SIGTERM ask for a clean end; a second Ctrl-C ends at once."""

    def handle(number: int, frame: object) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        threading.Thread(target=stop, daemon=True).start()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, handle)


def keep_private() -> None:
    """What this process writes is its user's alone: who reads a data folder needs no token."""
    os.umask(0o077)


def log(format: logs.Format, level: logs.Level, verbose: bool) -> None:
    """Keeps the log as the options say."""
    logs.keep_log(format, logs.Level.debug if verbose else level)
