"""Batches to rows: checks what arrives, derives what follows, and hands both to the store as one."""

from __future__ import annotations

import logging
import zlib
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path

from roofleet_collector.derive import derived
from roofleet_collector.errors import RejectedBatch
from roofleet_collector.setting_aside import part
from roofleet_collector.store import Append, Receipt, Store
from roofleet_proto.codec import MalformedMessage, decode_rows
from roofleet_proto.records import Batch, RunChange
from roofleet_proto.tables import REJECTED_ROWS, TABLES

log = logging.getLogger(__name__)

MOST_AGENT_ID = 256
MOST_KEY = 2**63 - 1
"""Epochs and sequences travel as unsigned numbers and are stored as signed ones."""


class Ingest:
    """The one way into the store, for batches from gRPC and from a run in the same process alike."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def take(self, batch: Batch) -> Future[Receipt]:
        """Reads a batch and stores its rows; raises what `read` does."""
        return self.store(self.read(batch))

    def store(self, rows: Append) -> Future[Receipt]:
        """The future resolves when rows and key are committed, in the order of the calls. See Store."""
        return self._store.append(rows)

    def read(self, batch: Batch) -> Append:
        """The rows of a batch with what follows from them. Rows that break what a column takes are set aside.

        One that was given up has none: its key is taken, so that its sender hears whether it was stored.

        Raises RejectedBatch for one that can never be taken: a key that cannot be stored, an unknown or
        derived table, another schema, bytes that are no Arrow stream or decode to too much.
        """
        _check_key(batch)
        table = TABLES.get(batch.table)
        if table is None:
            raise RejectedBatch(
                f"there is no table {batch.table[:80]!r}; there are {', '.join(TABLES)}", batch
            )
        if table.derived:
            raise RejectedBatch(f"{table.name} is derived by the collector and not taken from agents", batch)
        if batch.given_up:
            return Append({}, batch.key, checksum=None)
        try:
            rows, set_aside, rejected = part(decode_rows(batch.arrow_ipc, table), table, batch)
            everything = derived(table.name, rows)
        except MalformedMessage as error:
            raise RejectedBatch(str(error), batch) from error
        except Exception as error:
            # A fault of ours must not keep the agent sending the same batch for ever: it sets it aside.
            log.exception("reading rows of %s", table.name)
            raise RejectedBatch(f"rows of {table.name} could not be worked with: {error!r}", batch) from error
        if set_aside is not None:
            everything = {**everything, REJECTED_ROWS.name: set_aside}
        return Append(everything, batch.key, rejected, zlib.crc32(batch.arrow_ipc))

    def change_run(self, change: RunChange) -> Future[bool]:
        """Changes what is said of a run; resolves, to whether there is one, when that is committed."""
        return self._store.change_run(change)

    def delete_runs(self, run_ids: Sequence[str]) -> Future[list[str]]:
        """Deletes runs for good; resolves, to those that were there, when that is committed."""
        return self._store.delete_runs(run_ids)

    def backup(self, to: Path) -> int:
        """Copies what is stored to a file, while rows come in; see Store.backup."""
        return self._store.backup(to)


def _check_key(batch: Batch) -> None:
    if len(batch.agent_id) > MOST_AGENT_ID or not batch.agent_id.isprintable():
        raise RejectedBatch(
            f"{batch.agent_id[:40]!r} as agent_id is no printable text of at most {MOST_AGENT_ID} characters",
            batch,
        )
    for name, number in (("epoch", batch.epoch), ("sequence", batch.sequence)):
        if number > MOST_KEY:
            raise RejectedBatch(f"{name} {number} is larger than {MOST_KEY}", batch)
