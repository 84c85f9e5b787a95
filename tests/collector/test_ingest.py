"""From a batch to rows: what is taken, what is refused, and what follows from rows that arrive."""

from __future__ import annotations

import pyarrow as pa
import pytest
from tests.support import TINY_GPT2, batch, request, spans

from roofleet_agent.passes.tracing import op_rows, trace_phases
from roofleet_agent.registry import find_engine
from roofleet_agent.rows import table_of
from roofleet_agent.workload import Workload
from roofleet_collector.errors import RejectedBatch
from roofleet_collector.ingest import Ingest
from roofleet_collector.service import rederive_outdated
from roofleet_collector.store import DuckDBStore
from roofleet_proto.codec import encode_rows
from roofleet_proto.records import Batch


def ops(run_id: str = "run") -> pa.Table:
    """The traced ops of a tiny model."""
    traces = trace_phases(
        find_engine(request(TINY_GPT2)), request(TINY_GPT2), "fp32", Workload(1, 8, 4)
    ).phases
    return table_of(
        "ops",
        [row | {"run_id": run_id} for phase, traced in traces.items() for row in op_rows(phase, traced)],
    )


def twice(rows: pa.Table) -> pa.Table:
    """The rows with a second column `path`."""
    return rows.append_column("path", rows.column("path"))


def bomb() -> bytes:
    """A few kilobytes that are 80 MB of one path."""
    rows = spans(1).set_column(4, "path", pa.array(["x" * 80_000_000]))
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, rows.schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as writer:
        writer.write(rows)
    return bytes(sink.getvalue())


def test_a_batch_is_stored_and_a_repeated_one_is_not(store: DuckDBStore) -> None:
    """The first take stores, the second is a duplicate."""
    ingest = Ingest(store)
    assert not ingest.take(batch(spans(3), 1)).result().duplicate
    assert ingest.take(batch(spans(3), 1)).result().duplicate
    assert store.query("SELECT count(*) FROM spans").read_all().column(0).to_pylist() == [3]


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        (batch(spans(1), 1, table="colours"), "there is no table 'colours'"),
        (batch(spans(1), 1, table="op_costs"), "derived by the collector"),
        (batch(spans(1), 1, table="steps"), "rows for steps have another schema"),
        (Batch("agent", 1, 1, "spans", b"not arrow, whatever it is"), "no Arrow IPC stream"),
        (Batch("agent", 1, 1, "spans", b""), "Arrow IPC stream"),
        (batch(spans(1), 2**63), f"sequence {2**63} is larger"),
        (batch(spans(1), 1, epoch=2**64 - 1), f"epoch {2**64 - 1} is larger"),
        (batch(spans(1), 1, agent="a" * 257), "no printable text"),
        (batch(spans(1), 1, agent="a\0b"), "no printable text"),
        (batch(twice(spans(1)), 1), "path is there 2 times"),
        (Batch("agent", 1, 1, "spans", encode_rows(spans(1)) * 2), "follow the end"),
        (Batch("agent", 1, 1, "spans", encode_rows(spans(9))[:-8]), "cut before its end"),
        (Batch("agent", 1, 1, "spans", bomb()), "decode to more than"),
    ],
)
def test_a_batch_that_can_never_be_stored_is_refused(store: DuckDBStore, bad: Batch, says: str) -> None:
    """An unknown table, a derived one, another schema and bytes that are no rows say what is wrong."""
    with pytest.raises(RejectedBatch, match=says) as caught:
        Ingest(store).take(bad)
    assert caught.value.batch is bad
    assert store.query("SELECT count(*) FROM ingest_log").read_all().column(0).to_pylist() == [0]


def test_costs_come_with_the_ops(store: DuckDBStore) -> None:
    """Every op has its cost in the same moment, and the formulas' version."""
    Ingest(store).take(batch(ops(), 1, "ops")).result()
    found = store.query(
        "SELECT count(*) AS ops, count(c.op_index) AS costs, bool_and(c.is_known) AS known, "
        "sum(c.matmul_flops)::BIGINT AS flops FROM ops LEFT JOIN op_costs c USING (run_id, phase, op_index) "
        "WHERE phase = 'prefill'"
    ).read_all()
    row = found.to_pylist()[0]
    assert row["ops"] == row["costs"] > 0
    assert row["known"]
    # 2 layers x (12 x 32^2 weights x 2 x 8 tokens + attention 4 x 8^2 x 32) + head 2 x 1 x 32 x 101
    assert row["flops"] == 2 * (12 * 32**2 * 2 * 8 + 4 * 8**2 * 32) + 2 * 32 * 101


def test_an_unknown_op_is_stored_as_unknown(store: DuckDBStore) -> None:
    """An op without a formula has NULL costs and is counted by the run's summary."""
    strange = ops().to_pylist()[:1]
    strange[0] |= {"op": "mine.fused_thing", "is_view": False}
    Ingest(store).take(batch(table_of("ops", strange), 1, "ops")).result()
    found = store.query("SELECT is_known, matmul_flops, weight_bytes FROM op_costs").read_all().to_pylist()
    assert found == [{"is_known": False, "matmul_flops": None, "weight_bytes": None}]


def test_costs_of_older_formulas_are_derived_again(store: DuckDBStore) -> None:
    """A corrected formula reaches the runs that are stored, without profiling them anew."""
    Ingest(store).take(batch(ops(), 1, "ops")).result()
    right = store.query("SELECT * FROM op_costs").read_all()
    version = right.schema.get_field_index("formula_version")
    old = right.set_column(
        version, right.schema.field(version), pa.array([0] * right.num_rows, pa.int64())
    ).set_column(6, right.schema.field(6), pa.array([-1] * right.num_rows, pa.int64()))
    store.rederive("run", old).result()
    assert rederive_outdated(store) == 1
    order = [("phase", "ascending"), ("op_index", "ascending")]
    again = store.query("SELECT * FROM op_costs").read_all()
    assert again.sort_by(order).to_pylist() == right.sort_by(order).to_pylist()
    assert rederive_outdated(store) == 0


def test_a_known_device_gets_its_datasheets_roofs(store: DuckDBStore) -> None:
    """An H100 by its driver's name is the catalogue's, with dense roofs that carry their source."""
    device = {
        "device_id": "d",
        "host_id": "h",
        "kind": "gpu",
        "name": "NVIDIA H100 80GB HBM3",
        "backend": "cuda",
        "device_index": 0,
    }
    Ingest(store).take(batch(table_of("devices", [device]), 1, "devices")).result()
    assert store.query("SELECT hardware_name FROM devices").read_all().to_pylist() == [
        {"hardware_name": "h100-sxm"}
    ]
    roofs = store.query("SELECT * FROM roofs WHERE device_id = 'd'").read_all().to_pylist()
    bf16 = next(r for r in roofs if r["dtype"] == "bf16")
    assert 989e12 < bf16["flops_per_s"] < 990e12
    assert {r["source_kind"] for r in roofs} == {"datasheet"}
    assert all(r["source"].startswith("http") for r in roofs)


def test_a_host_that_registers_was_seen(store: DuckDBStore) -> None:
    """When a host was last seen is the collector's word, not the agent's."""
    rows = table_of("hosts", [{"host_id": "h", "hostname": "one", "last_seen_at": None}])
    Ingest(store).take(batch(rows, 1, "hosts")).result()
    found = store.query("SELECT last_seen_at > now() - INTERVAL 1 MINUTE AS recent FROM hosts").read_all()
    assert found.to_pylist() == [{"recent": True}]


def test_an_op_that_costs_more_than_a_column_holds_is_unknown(store: DuckDBStore) -> None:
    """A product of absurd shapes takes no neighbour along."""
    rows = [row for row in ops().to_pylist() if row["op"] == "aten.linear"][:2]
    for tensor in (*rows[0]["inputs"], *rows[0]["outputs"]):
        tensor["shape"] = [2**40 for _ in tensor["shape"]]
    Ingest(store).take(batch(table_of("ops", rows), 1, "ops")).result()
    found = store.query("SELECT is_known FROM op_costs ORDER BY op_index").read_all().column(0).to_pylist()
    assert found == [False, True]
