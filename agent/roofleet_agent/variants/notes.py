"""What a variant could not do as asked, layer by layer."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Note:
    """A layer that is not as asked: its path (`*` for every number of a block), why, and what was done."""

    path: str
    reason: str
    done: str


def folded(notes: Iterable[Note]) -> list[Note]:
    """The notes with those that say the same of every block as one."""
    return list(dict.fromkeys(replace(note, path=re.sub(r"\b\d+\b", "*", note.path)) for note in notes))
