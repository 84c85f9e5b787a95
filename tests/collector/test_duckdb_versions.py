"""DuckDB 1.5 and 2 on one data folder; `make test-duckdb2` runs this and the store's other tests with 2."""

from __future__ import annotations

from pathlib import Path

import duckdb
import pytest
from tests.support import roofleet_process, spans

from roofleet_collector.errors import SqlError, StoreUnreadable
from roofleet_collector.store import Append, DuckDBStore
from roofleet_collector.store.engine import IS_TWO, ask, relation

# The head of a file that 2.0.0 makes when it is not told otherwise; the rest of the block is zeros.
HEAD_OF_TWO = {
    0: "3553452f149eaa52" + "4455434be703",  # checksum, "DUCK", and the number 999 for what 1.5 cannot read
    52: b"v2.0.0".hex(),
    84: b"d54cbbe3df".hex(),
    124: "de807c4fb6a7adb3f5f2f3026eac96f6",
}


def test_a_new_file_can_be_read_by_both(store: DuckDBStore) -> None:
    """Whichever made it: the folder outlives an upgrade, and a downgrade."""
    made = store.query("SELECT tags['storage_version'] AS v FROM duckdb_databases() WHERE NOT internal")
    assert made.read_all().column("v").to_pylist() == ["v1.5.0+"]


@pytest.mark.skipif(IS_TWO, reason="version 2 reads it")
def test_a_file_of_version_2_is_refused_with_what_to_do(tmp_path: Path) -> None:
    """One line with the file, the version here and the command, by the store and by the command."""
    head = bytearray(3 * 4096)
    for place, part in HEAD_OF_TWO.items():
        data = bytes.fromhex(part)
        head[place : place + len(data)] = data
    (tmp_path / "roofleet.duckdb").write_bytes(head)
    with pytest.raises(StoreUnreadable) as caught:
        DuckDBStore(tmp_path)
    said = str(caught.value)
    assert "\n" not in said
    for part in (str(tmp_path), f"newer DuckDB than the {duckdb.__version__}", "pip install 'duckdb>=2,<3'"):
        assert part in said


def test_a_cursor_is_free_after_it_was_asked(tmp_path: Path) -> None:
    """Version 2 refuses relations while a result is unread, be it that of BEGIN."""
    cursor = duckdb.connect()
    ask(cursor, "BEGIN")
    assert ask(cursor, "SELECT ? + 1", [1]) == [(2,)]
    assert relation(cursor, "SELECT 1").fetchall() == [(1,)]


def test_a_result_that_was_begun_can_be_left(store: DuckDBStore) -> None:
    """Closing it half-read ends its transaction, and the next query runs."""
    store.append(Append({"spans": spans(40_000)})).result()
    for parameters in ((), (0,)):
        sql = "SELECT * FROM spans WHERE start_ns >= ?" if parameters else "SELECT * FROM spans"
        rows = store.query(sql, parameters)
        assert rows.read_next_batch().num_rows > 0
        rows.close()
        assert store.reader.open_queries == 0
    assert store.query("SELECT count(*) AS n FROM spans").read_all().to_pylist() == [{"n": 40_000}]


def test_a_text_with_a_nul_is_refused(store: DuckDBStore) -> None:
    """Version 2 runs what stands before it; what the gate has read is what must run."""
    with pytest.raises(SqlError, match="NUL"):
        store.query("SELECT 1\0")


def test_a_query_leaves_nothing_but_its_rows(tmp_path: Path) -> None:
    """A process that has asked a folder ends without a word on standard error, its store closed."""
    DuckDBStore(tmp_path).close()
    answer = roofleet_process("sql", "SELECT 1 AS a", "-f", "csv", data=tmp_path)
    assert (answer.returncode, answer.stdout, answer.stderr) == (0, "a\n1\n", "")
