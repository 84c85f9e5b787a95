"""How limits are kept: places for queries, and what the engine may take of the machine."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from pathlib import Path
from threading import Lock

import duckdb

from roofleet_collector.errors import TooManyQueries
from roofleet_collector.limits import MEBIBYTE, USUAL, Engine, Limits

LEAST_MEMORY_BYTES = 512 * MEBIBYTE
MOST_TEMPORARY_BYTES = 16 * 1024 * MEBIBYTE
CGROUP_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


class Places:
    """Counts what runs, over all callers and for each."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._lock = Lock()
        self._taken: Counter[str] = Counter()

    def take(self, name: str) -> None:
        """Takes a place; TooManyQueries if there is none for this caller."""
        all_of_them, each = self._limits.at_once, self._limits.at_once_each
        with self._lock:
            if each is not None and name and self._taken[name] >= each:
                raise TooManyQueries(
                    f"{each} of your queries are open already, and no more are allowed: read them to their "
                    "end or close them, and ask again"
                )
            if all_of_them is not None and self._taken.total() >= all_of_them:
                raise TooManyQueries(
                    f"{all_of_them} queries are open already, and no more are allowed: ask again in a moment"
                )
            self._taken[name] += 1

    def leave(self, name: str) -> None:
        """Gives a place back."""
        with self._lock:
            self._taken[name] -= 1
            if self._taken[name] <= 0:
                del self._taken[name]


def bound(connection: duckdb.DuckDBPyConnection, folder: Path, engine: Engine = USUAL.engine) -> None:
    """Bounds what the engine takes: without a wish a quarter of the machine's memory, and for what does not
    fit there a quarter of what is free on the disk."""
    disk = min(shutil.disk_usage(folder).free // 4, MOST_TEMPORARY_BYTES)
    memory = max(machine_memory_bytes() // 4, LEAST_MEMORY_BYTES)
    wished = (
        ("memory_limit", engine.memory_bytes or memory),
        ("max_temp_directory_size", engine.temporary_bytes or disk),
    )
    for name, size in wished:
        connection.execute(f"SET GLOBAL {name} = '{size // MEBIBYTE}MiB'")


def machine_memory_bytes() -> int:
    """The machine's memory, or the container's limit where that is lower."""
    sizes = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for name in CGROUP_LIMITS:
        try:
            sizes.append(int(Path(name).read_text()))
        except (OSError, ValueError):  # not there, or "max"
            continue
    return min(sizes)
