"""Importing torch and transformers with less to do beside it."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def few_collections() -> Iterator[None]:
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
