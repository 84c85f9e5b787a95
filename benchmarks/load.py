"""Other work beside a benchmark: a process that is ended when it is over."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator

ONE = "while True: pass"
"""Keeps one processor busy."""
ALL = "import torch\na = torch.ones(768, 768)\nwhile True: a @ a"
"""Multiplies matrices on all processors."""
NOW_AND_THEN = (
    "import time\nwhile True:\n end = time.time() + 0.4\n while time.time() < end: pass\n time.sleep(0.4)"
)
"""Keeps one processor busy half of the time, so that the machine's speed moves."""


@contextlib.contextmanager
def beside(code: str | None) -> Iterator[None]:
    """Another process that runs this, if any."""
    if code is None:
        yield
        return
    busy = subprocess.Popen([sys.executable, "-c", code])
    try:
        yield
    finally:
        busy.kill()
        busy.wait()
