"""Sizes as people write them: 16GiB, 1.5 GB, or bytes."""

from __future__ import annotations

import re

_UNITS = {"": 1, "b": 1}
for _power, _letter in enumerate("kmgt", start=1):
    _UNITS |= {f"{_letter}b": 1000**_power, f"{_letter}ib": 1024**_power}
_SIZE = re.compile(r"(\d{1,18}(?:\.\d{1,9})?)\s*([A-Za-z]*)")


def size_bytes(text: str) -> int:
    """Bytes of a size; ValueError, saying what is expected, if it is none."""
    found = _SIZE.fullmatch(text.strip())
    size = int(float(found[1]) * _UNITS.get(found[2].lower(), 0)) if found else 0
    if size < 1:
        raise ValueError(f"{text!r:.60} is no size: write a number of bytes, or one with GiB, GB, MiB or MB")
    return size
