"""Rows that break what a column takes are set aside with the reason, and their neighbours are stored."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pytest
from tests.support import batch, spans

from roofleet_agent.rows import table_of
from roofleet_collector.ingest import Ingest
from roofleet_collector.setting_aside import MOST_CHARACTERS, MOST_OF_A_BATCH
from roofleet_collector.store import DuckDBStore
from roofleet_proto.tables import TABLES

GOOD: dict[str, dict[str, Any]] = {
    "steps": {
        "run_id": "r", "phase": "decode", "pass": "bare", "iteration": 0, "step_index": 0, "is_warmup": False,
        "start_ns": 0, "duration_ns": 1, "tokens": 1, "cache_tokens": 0,
    },
    "sweeps": {
        "sweep_id": "s", "model_name": "m", "axes": "{}", "points": 1,
        "started_at": datetime(2026, 1, 2, tzinfo=UTC),
    },
    "readings": {"device_id": "d", "read_at": datetime(2026, 1, 2, tzinfo=UTC), "utilization": 1.0},
    "ops": {
        "run_id": "r", "phase": "decode", "op_index": 0, "path": "", "op": "aten.add", "inputs": [],
        "outputs": [], "is_view": False,
    },
}  # fmt: skip
POISON = [
    ("steps", "duration_ns", 0),
    ("steps", "duration_ns", -5),
    ("steps", "duration_ns", 2**63 - 1),
    ("steps", "tokens", -1),
    ("sweeps", "axes", "[1, 2]"),
    ("sweeps", "axes", "no JSON"),
    ("sweeps", "started_at", datetime(1969, 1, 1, tzinfo=UTC)),
    ("readings", "utilization", 1.5),
    ("readings", "power_w", float("nan")),
    ("readings", "temperature_c", float("inf")),
    ("ops", "inputs", [{"shape": [-1], "dtype": "fp32", "role": "weight", "bytes": 4}]),
    ("ops", "attributes", "[]"),
    ("ops", "path", "x" * 70_000),
]


def rejected(store: DuckDBStore) -> list[dict[str, Any]]:
    """What was set aside."""
    return store.query("SELECT * FROM rejected_rows ORDER BY row_index").read_all().to_pylist()


@pytest.mark.parametrize(("table", "column", "value"), POISON)
def test_a_poisonous_row_is_set_aside_and_its_neighbours_are_stored(
    store: DuckDBStore, table: str, column: str, value: object
) -> None:
    """It can be read by SQL with its table, its sender, the column, the value and what was expected."""
    good = GOOD[table]
    rows = table_of(table, [good, good | {column: value}, good])
    receipt = Ingest(store).take(batch(rows, 7, table)).result()
    assert (receipt.duplicate, receipt.rejected) == (False, 1)
    stored = store.query(f"SELECT count(*) AS n FROM {table}").read_all().to_pylist()
    assert stored == [{"n": 1 if TABLES[table].replaces else 2}]
    (row,) = rejected(store)
    assert (row["table_name"], row["agent_id"], row["epoch"], row["sequence"]) == (table, "agent", 1, 7)
    assert row["row_index"] == 1
    assert row["reason"].startswith(f"{column} is ")
    assert TABLES[table].column(column).takes.says in row["reason"]
    assert len(row["content"]) <= MOST_CHARACTERS
    if len(row["content"]) < MOST_CHARACTERS:
        assert json.loads(row["content"]).keys() == set(TABLES[table].schema.names)


def test_a_year_that_no_calendar_has_is_set_aside(store: DuckDBStore) -> None:
    """The year 291,970 is told in microseconds."""
    rows = table_of("readings", [GOOD["readings"]] * 2)
    at = 290_000 * 31_557_600_000_000
    column = pa.array([at, 1_800_000_000_000_000]).cast(rows.schema.field("read_at").type)
    rows = rows.set_column(1, rows.schema.field("read_at"), column)
    assert Ingest(store).take(batch(rows, 1, "readings")).result().rejected == 1
    (row,) = rejected(store)
    assert f"read_at is {at}" in row["reason"]
    assert json.loads(row["content"])["read_at"] == at


def test_of_a_batch_that_is_all_wrong_some_rows_are_kept(store: DuckDBStore) -> None:
    """All are counted, the first hundred can be looked at, and the batch counts as stored."""
    rows = table_of("steps", [GOOD["steps"] | {"duration_ns": 0}] * 500)
    assert Ingest(store).take(batch(rows, 1, "steps")).result().rejected == 500
    assert len(rejected(store)) == MOST_OF_A_BATCH
    again = Ingest(store).take(batch(rows, 1, "steps")).result()
    assert (again.duplicate, again.rejected, len(rejected(store))) == (True, 0, MOST_OF_A_BATCH)


def test_what_was_set_aside_is_bounded(store: DuckDBStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """The newest rows stay."""
    monkeypatch.setattr("roofleet_collector.store.duckdb_store.MOST_REJECTED", 30)
    for sequence in range(1, 6):
        rows = table_of("steps", [GOOD["steps"] | {"duration_ns": 0}] * 20)
        Ingest(store).take(batch(rows, sequence, "steps")).result()
    assert sorted({row["sequence"] for row in rejected(store)}) == [4, 5]
    assert len(rejected(store)) == 40  # whole batches


def test_a_batch_without_bad_rows_is_stored_as_it_came(store: DuckDBStore) -> None:
    """Nothing is set aside where nothing is wrong."""
    assert Ingest(store).take(batch(spans(5), 1)).result().rejected == 0
    assert rejected(store) == []
