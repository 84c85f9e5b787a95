"""What every store promises; a new kind of store joins by one more parameter."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.any_rows import table_rows
from tests.support import laid, spans

from roofleet_collector.errors import RowsRefused, SqlError, StoreInUse
from roofleet_collector.store import Append, DuckDBStore, Seen, Store
from roofleet_proto.records import RunChange
from roofleet_proto.tables import TABLES

RUN = {
    "host_id": "h", "device_id": "d", "model_id": "m", "status": "done", "dtype": "fp32", "variant": "base",
    "started_at": datetime(2026, 1, 2, tzinfo=UTC), "weights": "random", "engine": "e", "batch_size": 1,
    "prompt_tokens": 8, "new_tokens": 4, "logits": "last", "iterations": 1, "warmup": 0,
}  # fmt: skip
"""A row of `runs` but for its id."""


@pytest.fixture(params=[DuckDBStore], ids=["duckdb"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """An empty store of each kind."""
    opened: Store = request.param(tmp_path)
    yield opened
    opened.close()


def count(store: Store, table: str = "spans") -> int:
    """Rows of a table."""
    return int(store.query(f"SELECT count(*) FROM {table}").read_all().column(0)[0].as_py())


def test_rows_are_there_when_the_append_resolves(store: Store) -> None:
    """A resolved append is visible to the next query."""
    store.append(Append({"spans": spans(10)}, ("a", 1, 1))).result()
    assert count(store) == 10


def test_a_key_counts_once(store: Store) -> None:
    """The second append under a key is a duplicate and stores nothing, whatever its rows."""
    first = store.append(Append({"spans": spans(10)}, ("a", 1, 1))).result()
    second = store.append(Append({"spans": spans(99)}, ("a", 1, 1))).result()
    assert (first.duplicate, second.duplicate, count(store)) == (False, True, 10)


@pytest.mark.parametrize("key", [("b", 1, 1), ("a", 2, 1), ("a", 1, 2)])
def test_every_part_of_the_key_tells_appends_apart(store: Store, key: tuple[str, int, int]) -> None:
    """Another agent, epoch or sequence is another batch."""
    store.append(Append({"spans": spans(1)}, ("a", 1, 1))).result()
    assert not store.append(Append({"spans": spans(1)}, key)).result().duplicate


def test_a_duplicate_in_flight_counts_once(store: Store) -> None:
    """The same key appended many times at once is stored once."""
    futures = [store.append(Append({"spans": spans(5)}, ("a", 1, 1))) for _ in range(50)]
    assert [f.result().duplicate for f in futures].count(False) == 1
    assert count(store) == 5


def test_an_append_is_whole_or_not_at_all(store: Store) -> None:
    """If one of an append's tables fails, none of its rows and not its key are stored; others are."""
    broken = pa.table({"nothing": [1]})
    futures = [
        store.append(Append({"spans": spans(1)}, ("a", 1, 1))),
        store.append(Append({"spans": spans(7), "steps": broken}, ("a", 1, 2))),
        store.append(Append({"spans": spans(1)}, ("a", 1, 3))),
    ]
    assert not futures[0].result().duplicate
    with pytest.raises(Exception, match=r"columns|nothing"):
        futures[1].result()
    assert not futures[2].result().duplicate
    assert count(store) == 2
    assert not store.append(Append({"spans": spans(7)}, ("a", 1, 2))).result().duplicate


def test_one_that_fails_among_many_fails_alone(store: Store) -> None:
    """Of a hundred that are written together, two are at fault: the others are stored, each once."""
    broken = pa.table({"nothing": [1]})
    futures = [
        store.append(
            Append(
                {"spans": spans(3, first=3 * n)} | ({"steps": broken} if n in (31, 64) else {}), ("a", 1, n)
            )
        )
        for n in range(1, 101)
    ]
    failed = [n for n, future in enumerate(futures, 1) if future.exception() is not None]
    assert failed == [31, 64]
    assert all(isinstance(futures[n - 1].exception(), RowsRefused) for n in failed)
    found = (
        store.query("SELECT count(*) AS n, count(DISTINCT start_ns) AS d FROM spans").read_all().to_pylist()
    )
    assert found == [{"n": 294, "d": 294}]


def test_rows_of_many_appends_keep_their_order(store: Store) -> None:
    """Of rows with one key the last append's stays, whatever was written together."""
    schema = TABLES["hosts"].schema
    for n in range(50):
        rows = pa.Table.from_pylist([{"host_id": "h", "hostname": f"name {n}"}], schema=schema)
        last = store.append(Append({"hosts": rows}, ("a", 1, n + 1)))
    last.result()
    assert store.query("SELECT hostname FROM hosts").read_all().column(0).to_pylist() == ["name 49"]


def test_a_copy_is_whole_while_rows_come_in(store: Store, tmp_path: Path) -> None:
    """It holds what was acknowledged before it, each batch with its key: put back, what an agent sends again
    of it is a duplicate, and what it sends again of what came later is stored once."""
    for n in range(1, 21):
        store.append(Append({"spans": spans(5, first=5 * n)}, ("a", 1, n))).result()
    coming = [store.append(Append({"spans": spans(5, first=5 * n)}, ("a", 1, n))) for n in range(21, 61)]
    held = store.backup(tmp_path / "copy" / "roofleet.duckdb")
    for future in coming:
        future.result()
    with pytest.raises(FileExistsError):
        store.backup(tmp_path / "copy" / "roofleet.duckdb")
    assert [file.name for file in (tmp_path / "copy").iterdir()] == ["roofleet.duckdb"]
    restored = type(store)(tmp_path / "copy")  # type: ignore[call-arg]
    assert held >= 20
    assert count(restored) == 5 * held
    again = [restored.append(Append({"spans": spans(5, first=5 * n)}, ("a", 1, n))) for n in range(1, 61)]
    assert [future.result().duplicate for future in again].count(True) == held
    found = restored.query("SELECT count(*) AS n, count(DISTINCT start_ns) AS d FROM spans").read_all()
    assert found.to_pylist() == [{"n": 300, "d": 300}]
    restored.close()


def test_what_was_stored_is_there_after_a_restart(tmp_path: Path) -> None:
    """Rows and keys outlive the process's store."""
    first = DuckDBStore(tmp_path)
    first.append(Append({"spans": spans(3)}, ("a", 1, 1))).result()
    first.close()
    second = DuckDBStore(tmp_path)
    assert second.append(Append({"spans": spans(3)}, ("a", 1, 1))).result().duplicate
    assert count(second) == 3
    second.close()


def test_one_process_opens_the_data(store: Store, tmp_path: Path) -> None:
    """Data that another process holds is an error that says what to do."""
    import subprocess
    import sys

    code = (
        "import sys; from pathlib import Path; from roofleet_collector.store import DuckDBStore\n"
        "from roofleet_collector.errors import StoreInUse\n"
        "try: DuckDBStore(Path(sys.argv[1]))\nexcept StoreInUse as e: print('in use:', e)"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert "in use:" in answer.stdout
    assert "--server" in answer.stdout
    assert issubclass(StoreInUse, Exception)


def test_a_row_that_replaces_takes_the_place_of_the_older(store: Store) -> None:
    """Of rows with one key the last stays, within an append and across appends."""

    def host(name: str) -> dict[str, str]:
        return {"host_id": "h", "hostname": name}

    schema = TABLES["hosts"].schema
    for names in (["one"], ["two", "three"]):
        rows = pa.Table.from_pylist([host(name) for name in names], schema=schema)
        store.append(Append({"hosts": rows})).result()
    found = store.query("SELECT hostname FROM hosts").read_all().column(0).to_pylist()
    assert found == ["three"]


def test_what_is_said_of_a_run_is_changed_in_parts(store: Store) -> None:
    """A change leaves what it does not name, an empty text takes one away, tags are sorted and there once."""
    rows = pa.Table.from_pylist([{"run_id": "r", **RUN}], schema=TABLES["runs"].schema)
    store.append(Append({"runs": rows})).result()
    assert store.change_run(RunChange("r", name="mine", add_tags=("b", "a", "b"))).result()
    assert store.change_run(RunChange("r", note="slow", remove_tags=("b",))).result()
    assert not store.change_run(RunChange("unknown", name="x")).result()
    found = store.query("SELECT * FROM run_labels").read_all().to_pylist()
    assert found == [{"run_id": "r", "name": "mine", "tags": ["a"], "note": "slow"}]
    assert store.change_run(RunChange("r", name="", note="", remove_tags=("a",))).result()
    found = store.query("SELECT * FROM run_labels").read_all().to_pylist()
    assert found == [{"run_id": "r", "name": None, "tags": None, "note": None}]


def test_a_deleted_run_stays_deleted_and_its_batches_count_once(store: Store, tmp_path: Path) -> None:
    """Its batches that come again are duplicates, those that come late are taken and left out, before and
    after a restart; rows of other runs in the same batch are kept."""
    runs = [{"run_id": run_id, **RUN} for run_id in ("r", "other")]
    rows = pa.Table.from_pylist(runs, schema=TABLES["runs"].schema)
    store.append(Append({"runs": rows}, ("a", 1, 1))).result()
    store.append(Append({"spans": spans(5, "r")}, ("a", 1, 2))).result()
    deleting = store.delete_runs(["r", "unknown"])
    late = store.append(Append({"spans": pa.concat_tables([spans(3, "r"), spans(4, "other")])}, ("a", 1, 3)))
    assert deleting.result() == ["r"]
    assert not late.result().duplicate
    assert (count(store, "runs"), count(store)) == (1, 4)
    store.close()
    again = type(store)(tmp_path)  # type: ignore[call-arg]
    assert again.append(Append({"spans": spans(5, "r")}, ("a", 1, 2))).result().duplicate
    assert not again.append(Append({"spans": spans(5, "r")}, ("a", 1, 4))).result().duplicate
    assert again.append(Append({"spans": spans(5, "r")}, ("a", 1, 4))).result().duplicate
    assert count(again) == 4
    again.close()


def test_hosts_are_touched(store: Store) -> None:
    """When a host was last heard of, and its clock, is noted without touching anything else."""
    rows = pa.Table.from_pylist([{"host_id": "h", "hostname": "one"}], schema=TABLES["hosts"].schema)
    store.append(Append({"hosts": rows})).result()
    at = datetime(2026, 1, 2, tzinfo=UTC)
    store.touch_hosts({"h": Seen(at, -5_000), "unknown": Seen(at)}).result()
    found = store.query("SELECT hostname, last_seen_at, clock_offset_ns FROM hosts").read_all().to_pylist()
    assert found == [{"hostname": "one", "last_seen_at": at, "clock_offset_ns": -5_000}]


def test_a_query_only_reads(store: Store) -> None:
    """Writing through a query is refused."""
    with pytest.raises(SqlError):
        store.query("DELETE FROM spans").read_all()


def test_closing_twice_is_harmless(tmp_path: Path) -> None:
    """Close finishes what was appended; a second close does nothing."""
    opened = DuckDBStore(tmp_path)
    future = opened.append(Append({"spans": spans(1)}, ("a", 1, 1)))
    opened.close()
    opened.close()
    assert future.result().duplicate is False


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_rows_in_are_rows_out(data: st.DataObject) -> None:
    """Any rows of any table come out equal, column by column."""
    name = data.draw(st.sampled_from(sorted(n for n, t in TABLES.items() if not t.replaces)))
    rows = data.draw(table_rows(name))
    with tempfile.TemporaryDirectory() as folder:
        store = DuckDBStore(laid(Path(folder)))
        store.append(Append({name: rows})).result()
        found = store.query(f"SELECT * FROM {name}").read_all()
        store.close()
    for column in rows.column_names:
        assert found.column(column).to_pylist() == rows.column(column).to_pylist(), column
        assert found.schema.field(column).type == rows.schema.field(column).type, column
