"""What the processes that stay have in common: options, their log, and how they end."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable
from typing import Annotated

import typer

Metrics = Annotated[
    str | None,
    typer.Option(
        "--metrics",
        metavar="HOST:PORT",
        help="Where Prometheus reads figures; nowhere by default.",
        show_default=False,
    ),
]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Say more.")]


def on_end(stop: Callable[[], None]) -> None:
    """Ctrl-C and SIGTERM ask for a clean end; a second Ctrl-C ends at once."""

    def handle(number: int, frame: object) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        threading.Thread(target=stop, daemon=True).start()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, handle)


def log(verbose: bool) -> None:
    level = logging.DEBUG if verbose else logging.INFO
    logging.basicConfig(level=level, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    for noisy in ("waitress.queue", "grpc"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
