"""Batches to rows: checks what arrives, derives what follows, and hands both to the store as one."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from concurrent.futures import Future

from roofleet_collector.derive import derived
from roofleet_collector.errors import RejectedBatch
from roofleet_collector.store import Append, Receipt, Store
from roofleet_proto.codec import MalformedMessage, decode_rows
from roofleet_proto.records import Batch, RunChange
from roofleet_proto.tables import TABLES

log = logging.getLogger(__name__)


class Ingest:
    """The one way into the store, for batches from gRPC and from a run in the same process alike."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def take(self, batch: Batch) -> Future[Receipt]:
        """The future resolves when rows and key are committed, in the order of the calls.

        Raises RejectedBatch for one that can never be taken: an unknown or derived table, another schema,
        bytes that are no Arrow stream.
        """
        table = TABLES.get(batch.table)
        if table is None:
            raise RejectedBatch(f"there is no table {batch.table!r}; there are {', '.join(TABLES)}", batch)
        if table.derived:
            raise RejectedBatch(f"{table.name} is derived by the collector and not taken from agents", batch)
        try:
            rows = decode_rows(batch.arrow_ipc, table)
        except MalformedMessage as error:
            raise RejectedBatch(str(error), batch) from error
        try:
            everything = derived(table.name, rows)
        except Exception as error:
            # A fault of ours must not keep the agent sending the same batch for ever: it sets it aside.
            log.exception("deriving from rows of %s", table.name)
            raise RejectedBatch(f"rows of {table.name} could not be worked with: {error!r}", batch) from error
        return self._store.append(Append(everything, batch.key))

    def change_run(self, change: RunChange) -> Future[bool]:
        """Changes what is said of a run; resolves, to whether there is one, when that is committed."""
        return self._store.change_run(change)

    def delete_runs(self, run_ids: Sequence[str]) -> Future[list[str]]:
        """Deletes runs for good; resolves, to those that were there, when that is committed."""
        return self._store.delete_runs(run_ids)
