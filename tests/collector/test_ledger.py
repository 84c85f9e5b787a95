"""The keys of what is stored: as ranges they answer as a set does, and they outlive what is rolled back."""

from __future__ import annotations

from pathlib import Path

import duckdb
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support import laid, spans

from roofleet_collector.store import Append, DuckDBStore
from roofleet_collector.store import ledger as ledgers
from roofleet_collector.store.ledger import Ledger, Noted, Ranges, joined
from roofleet_collector.store.schema import migrate, migrations

pairs = st.tuples(st.integers(1, 60), st.integers(0, 12)).map(lambda pair: (pair[0], pair[0] + pair[1]))


@given(st.lists(pairs, max_size=30))
def test_ranges_hold_what_was_put_in(added: list[tuple[int, int]]) -> None:
    """In any order, overlapping or not: the same numbers as a set, in ranges that do not touch."""
    ranges, numbers = Ranges(), set[int]()
    for first, last in added:
        ranges.add(first, last)
        numbers.update(range(first, last + 1))
    assert {number for number in range(80) if number in ranges} == numbers
    assert ranges.count == len(numbers)
    assert list(ranges) == joined(numbers)
    assert all(
        before[1] + 1 < after[0] for before, after in zip(joined(numbers), joined(numbers)[1:], strict=False)
    )


def test_what_is_rolled_back_was_never_noted() -> None:
    """A batch whose transaction failed is taken when it comes again; one that was committed is not."""
    connection = duckdb.connect()
    migrate(connection)
    ledger = Ledger(connection)
    assert ledger.note(("a", 1, 1)) is Noted.new
    assert ledger.note(("a", 1, 1)) is Noted.stored
    ledger.rolled_back()
    assert ledger.note(("a", 1, 1)) is Noted.new
    ledger.write(connection)
    ledger.committed()
    assert ledger.note(("a", 1, 1)) is Noted.stored
    assert ledger.batches == 1


def test_the_log_of_batches_does_not_grow_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its rows are joined to ranges, and after a restart every batch is known all the same."""
    monkeypatch.setattr(ledgers, "MOST_ROWS", 10)
    store = DuckDBStore(laid(tmp_path))
    for sequence in range(1, 60):
        store.append(Append({"spans": spans(1)}, ("a", 1, sequence))).result()
    rows = store.query("SELECT count(*) AS n FROM ingest_log").read_all().to_pylist()
    assert rows[0]["n"] <= 10
    store.close()
    again = DuckDBStore(tmp_path)
    receipts = [again.append(Append({"spans": spans(1)}, ("a", 1, n))) for n in (1, 30, 59, 60)]
    assert [receipt.result().duplicate for receipt in receipts] == [True, True, True, False]
    again.close()


def test_keys_of_the_schema_before_are_known() -> None:
    """One row a batch becomes ranges, gaps and epochs apart."""
    connection = duckdb.connect()
    connection.execute("CREATE TABLE schema_version (version INTEGER PRIMARY KEY)")
    for number, sql in migrations():
        if number < 8:
            connection.execute(sql)
            connection.execute("INSERT INTO schema_version VALUES (?)", [number])
    for epoch, sequence in [(1, 3), (1, 1), (1, 2), (1, 9), (2, 2)]:
        connection.execute("INSERT INTO ingest_log VALUES ('a', ?, ?, now())", [epoch, sequence])
    migrate(connection)
    found = connection.execute(
        "SELECT epoch, first_sequence, last_sequence FROM ingest_log ORDER BY ALL"
    ).fetchall()
    assert found == [(1, 1, 3), (1, 9, 9), (2, 2, 2)]
    ledger = Ledger(connection)
    noted = [ledger.note(("a", 1, n)) for n in (2, 4, 9)]
    assert noted == [Noted.stored, Noted.new, Noted.stored]


def test_another_batch_under_the_same_key_is_known_by_its_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """While it is among the newest of its epoch; before that, and after a restart, it cannot be told."""
    monkeypatch.setattr(ledgers, "MARKED", 4)
    connection = duckdb.connect()
    migrate(connection)
    ledger = Ledger(connection)
    assert [ledger.note(("a", 1, n), checksum=n) for n in range(1, 6)] == [Noted.new] * 5
    ledger.write(connection)
    ledger.committed()
    assert ledger.note(("a", 1, 5), checksum=5) is Noted.stored
    assert ledger.note(("a", 1, 5), checksum=6) is Noted.foreign
    assert ledger.note(("a", 1, 1), checksum=6) is Noted.stored
    assert Ledger(connection).note(("a", 1, 5), checksum=6) is Noted.stored


def test_what_is_known_of_bytes_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Epochs that send nothing more are forgotten first."""
    monkeypatch.setattr(ledgers, "MOST_MARKED", 2)
    ledger = Ledger(_migrated())
    for epoch in (1, 2, 1, 3):
        ledger.note(("a", epoch, epoch), checksum=1)
    told = [ledger.note(("a", epoch, epoch), checksum=2) for epoch in (1, 3, 2)]
    assert told == [Noted.foreign, Noted.foreign, Noted.stored]


def _migrated() -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect()
    migrate(connection)
    return connection
