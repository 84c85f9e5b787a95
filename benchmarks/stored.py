"""A sink that stores rows as a collector does when they arrive."""

from __future__ import annotations

import pyarrow as pa

from roofleet_collector.derive import derived
from roofleet_collector.store import Append, DuckDBStore


class Stored:
    """Implements Sink on a store."""

    def __init__(self, store: DuckDBStore) -> None:
        self.store = store

    def write(self, table: str, rows: pa.Table) -> None:
        """See Sink.write."""
        self.store.append(Append(derived(table, rows))).result()
