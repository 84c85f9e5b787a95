"""What goes in by gRPC comes out by the stock ADBC Flight SQL driver, equal, column by column."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import grpc
import pyarrow as pa
import pytest
from adbc_driver_flightsql import dbapi
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.any_rows import table_rows
from tests.support import CollectorProcess, batch, collector

from roofleet_proto.ranges import SHARE, Json
from roofleet_proto.services import PUSH
from roofleet_proto.tables import TABLES

PLAIN = sorted(n for n, t in TABLES.items() if not t.derived and not t.replaces)
sequences = itertools.count(1)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CollectorProcess]:
    """One collector for the whole file."""
    with collector(tmp_path_factory.mktemp("collector")) as process:
        yield process


def fetch(running: CollectorProcess, sql: str) -> pa.Table:
    """The rows of a statement by the stock driver."""
    with dbapi.connect(f"grpc://{running.sql}", autocommit=True) as connection:
        with connection.cursor() as cursor:
            cursor.execute(sql)
            return cursor.fetch_arrow_table()


def equal(found: pa.Table, sent: pa.Table) -> None:
    """Types and values of every column agree."""
    assert found.column_names == sent.column_names
    for column in sent.column_names:
        assert found.schema.field(column).type == sent.schema.field(column).type, column
        assert found.column(column).to_pylist() == sent.column(column).to_pylist(), column


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_rows_come_out_as_they_went_in(running: CollectorProcess, data: st.DataObject) -> None:
    """Every table that only grows: values, NULLs, nested lists and instants, in their order."""
    name = data.draw(st.sampled_from([n for n in PLAIN if n != "ops"]))
    rows = data.draw(table_rows(name))
    before = fetch(running, f"SELECT count(*) FROM {name}").column(0)[0].as_py()
    with grpc.insecure_channel(running.grpc) as channel:
        acks = list(PUSH.client(channel)(iter([batch(rows, next(sequences), name)]), timeout=120))
    assert [ack.duplicate for ack in acks] == [False]
    equal(fetch(running, f"SELECT * FROM {name} ORDER BY rowid OFFSET {before}"), rows)


@pytest.mark.parametrize("name", sorted(n for n, t in TABLES.items() if t.replaces and not t.derived))
def test_rows_with_a_state_come_out_as_they_went_in(running: CollectorProcess, name: str) -> None:
    """Hosts, devices, runs and the other tables with a key, but for what the collector itself decides."""
    table = TABLES[name]
    examples = {pa.string(): f"a {name}", pa.int64(): 7, pa.float64(): 1.5, pa.bool_(): True}
    row = {c.name: examples.get(c.type) for c in table.columns}
    if name == "hosts":
        row["last_seen_at"] = None
    for column in table.columns:
        if isinstance(column.takes, Json):
            row[column.name] = json.dumps(column.takes.kind())
        elif column.takes is SHARE:
            row[column.name] = 0.25
        elif column.required and row[column.name] is None:
            row[column.name] = datetime(2026, 1, 2, tzinfo=UTC)
    rows = pa.Table.from_pylist([row], schema=table.schema)
    with grpc.insecure_channel(running.grpc) as channel:
        list(PUSH.client(channel)(iter([batch(rows, next(sequences), name)]), timeout=120))
    key = " AND ".join(f"{column} = 'a {name}'" for column in table.key)
    found = fetch(running, f"SELECT * FROM {name} WHERE {key}")
    if name == "hosts":
        found, rows = found.drop_columns(["last_seen_at"]), rows.drop_columns(["last_seen_at"])
    equal(found, rows)


def test_ops_with_their_nested_tensors_come_out_as_they_went_in(
    running: CollectorProcess, tmp_path: Path
) -> None:
    """The ops of a traced model: lists of structs of lists."""
    from tests.collector.test_ingest import ops

    sent = ops("nested")
    with grpc.insecure_channel(running.grpc) as channel:
        list(PUSH.client(channel)(iter([batch(sent, next(sequences), "ops")]), timeout=120))
    equal(fetch(running, "SELECT * FROM ops WHERE run_id = 'nested' ORDER BY rowid"), sent)
