"""Rows that break what a column takes are parted from their neighbours and kept with the reason."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime

import pyarrow as pa

from roofleet_proto.ranges import broken
from roofleet_proto.records import Batch
from roofleet_proto.tables import REJECTED_ROWS, Table

log = logging.getLogger(__name__)

MOST_OF_A_BATCH = 100
"""Rows of one batch that are kept; the others are counted."""
MOST_CHARACTERS = 4096


def part(rows: pa.Table, table: Table, batch: Batch) -> tuple[pa.Table, pa.Table | None, int]:
    """The rows that can be stored, rows of `rejected_rows` for those that cannot, and how many those are."""
    wrong = {
        first + place: reason
        for first, chunk in _chunks(rows)
        for place, reason in broken(table.ranges, chunk).items()
    }
    if not wrong:
        return rows, None, 0
    places = sorted(wrong)
    log.warning(
        "%d of %d rows of %s that agent %s sent as batch %d are set aside; row %d: %s",
        *(len(places), rows.num_rows, table.name, batch.agent_id, batch.sequence),
        *(places[0], wrong[places[0]]),
        extra={"agent_id": batch.agent_id},
    )
    good = pa.array([place not in wrong for place in range(rows.num_rows)], pa.bool_())
    now = datetime.now(UTC)
    kept = [
        {
            "table_name": table.name,
            "agent_id": batch.agent_id,
            "epoch": batch.epoch,
            "sequence": batch.sequence,
            "row_index": place,
            "reason": wrong[place],
            "content": _content(rows, place),
            "received_at": now,
        }
        for place in places[:MOST_OF_A_BATCH]
    ]
    return rows.filter(good), pa.Table.from_pylist(kept, schema=REJECTED_ROWS.schema), len(places)


def _chunks(rows: pa.Table) -> list[tuple[int, pa.RecordBatch]]:
    """Record batches with the place of their first row."""
    chunks, first = [], 0
    for chunk in rows.to_batches():
        chunks.append((first, chunk))
        first += chunk.num_rows
    return chunks


def _content(rows: pa.Table, place: int) -> str:
    return json.dumps({name: _value(rows.column(name)[place]) for name in rows.column_names})[
        :MOST_CHARACTERS
    ]


def _value(value: pa.Scalar) -> object:
    """A value as JSON has it: times as text, or as microseconds where the calendar has no such day."""
    if not pa.types.is_timestamp(value.type):
        return value.as_py()
    try:
        return str(value.as_py())
    except (ValueError, OverflowError):
        return value.cast(pa.int64()).as_py()
