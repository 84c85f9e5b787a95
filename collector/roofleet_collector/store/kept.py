"""How many batches a store held when that was last noted, beside its file: what is less later was lost.

The engine replays a write-ahead log that was cut as far as it goes, and starts without one that is gone,
both in silence.
"""

from __future__ import annotations

import contextlib
import json
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

FILE_NAME = "roofleet.kept.json"
PERIOD_S = 1.0


@dataclass(frozen=True)
class Kept:
    """Batches that were stored at an instant, which is text."""

    batches: int
    at: str


class KeptNote:
    """The note of one data folder. It is no more than a note: where it cannot be written, it is left."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE_NAME
        self._next_s = 0.0

    def read(self) -> Kept | None:
        """What was noted last; None if nothing that can be read was."""
        try:
            return Kept(**json.loads(self._path.read_text()))
        except (OSError, ValueError, TypeError):
            return None

    def write(self, batches: int, *, now: bool = False, fewer: bool = False) -> None:
        """Notes how many are stored, once a second at most but for `now`.

        A number that was higher stays, until somebody has heard of what is missing and says so by `fewer`.
        """
        if not now and time.monotonic() < self._next_s:
            return
        self._next_s = time.monotonic() + PERIOD_S
        before = self.read()
        if before is not None and before.batches > batches and not fewer:
            return
        kept = Kept(batches, datetime.now(UTC).isoformat(timespec="seconds"))
        fresh = self._path.with_suffix(".new")
        with contextlib.suppress(OSError):
            fresh.write_text(json.dumps(asdict(kept)))
            fresh.replace(self._path)
