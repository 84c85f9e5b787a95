"""Where rows are kept. Nothing outside this package knows that it is one DuckDB file."""

from roofleet_collector.store.contract import Append, Receipt, Seen, Store
from roofleet_collector.store.duckdb_store import DuckDBStore

__all__ = ["Append", "DuckDBStore", "Receipt", "Seen", "Store"]
