"""How large a device's caches are: what fits in them moves faster than its memory can."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

PROCESSORS = Path("/sys/devices/system/cpu")
_UNITS = {"K": 2**10, "M": 2**20, "G": 2**30}


def cache_bytes(device: torch.device, folder: Path = PROCESSORS) -> int | None:
    """Size of the outermost cache of a device, all its parts together; None where nothing tells."""
    if device.type == "cpu":
        return _processors_cache(folder)
    ask = getattr(getattr(torch, device.type, None), "get_device_properties", None)
    size: Any = getattr(ask(device), "L2_cache_size", None) if ask else None
    return int(size) if size else None


def _processors_cache(folder: Path) -> int | None:
    """The sum over the parts of the highest level; processors that share a part name the same list."""
    found: dict[int, dict[str, int]] = {}
    for place in folder.glob("cpu[0-9]*/cache/index*"):
        try:
            level, size, shared = (
                (place / name).read_text().strip() for name in ("level", "size", "shared_cpu_list")
            )
            found.setdefault(int(level), {})[shared] = int(size[:-1]) * _UNITS[size[-1]]
        except (OSError, ValueError, KeyError, IndexError):
            continue  # a part that does not say is not counted
    return sum(found[max(found)].values()) if found else None
