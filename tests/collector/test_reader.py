"""The guarded reader on a database that a writer keeps writing to."""

from __future__ import annotations

import gc
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from tests.support import eventually

from roofleet_collector.errors import QueryTimeout, SqlError, StatementRefused, StoreClosed
from roofleet_collector.store import rows as rows_of_a_query
from roofleet_collector.store.catalogue import Catalogue
from roofleet_collector.store.limits import Limits
from roofleet_collector.store.locks import lock_down
from roofleet_collector.store.reader import Reader

ENDLESS = "SELECT count(*) FROM range(1000000000) a, range(1000) b"


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect(str(tmp_path / "reader.duckdb")) as opened:
        opened.execute(
            """
            CREATE TABLE t AS SELECT range AS i, 'row ' || range AS s FROM range(100000);
            CREATE TABLE moments (seen_at TIMESTAMPTZ);
            INSERT INTO moments VALUES ('2026-03-01 12:00:00+02');
            CREATE TABLE keyed (a INTEGER, b VARCHAR, PRIMARY KEY (b, a));
            COMMENT ON COLUMN keyed.a IS 'the first letter';
            CREATE VIEW seen AS SELECT i FROM t;
            CREATE SEQUENCE numbers;
            """
        )
        lock_down(opened)
        yield opened


@pytest.fixture
def reader(connection: duckdb.DuckDBPyConnection) -> Iterator[Reader]:
    reader = Reader(connection)
    yield reader
    reader.close()


def connections(connection: duckdb.DuckDBPyConnection) -> int:
    """How many connections the engine itself counts, the asking one included."""
    row = connection.execute("SELECT count FROM duckdb_connection_count()").fetchone()
    assert row is not None
    return int(row[0])


def test_rows_come_as_arrow(reader: Reader) -> None:
    """A query gives Arrow batches of the schema it announced."""
    rows = reader.query("SELECT i, s FROM t WHERE i < ? ORDER BY i", [3])
    assert rows.schema == pa.schema([("i", pa.int64()), ("s", pa.string())])
    assert rows.read_all().to_pydict() == {"i": [0, 1, 2], "s": ["row 0", "row 1", "row 2"]}


def test_rows_are_an_arrow_stream(reader: Reader) -> None:
    """Any library that takes an Arrow stream takes the rows."""
    table = pa.RecordBatchReader.from_stream(reader.query("SELECT i FROM t")).read_all()
    assert table.num_rows == 100_000
    assert reader.open_queries == 0


def test_timestamps_are_in_utc(reader: Reader) -> None:
    """A timestamp with a zone is the same instant in UTC, to the microsecond."""
    table = reader.query("FROM moments").read_all()
    assert table.schema.field("seen_at").type == pa.timestamp("us", tz="UTC")
    assert table["seen_at"][0].as_py().isoformat() == "2026-03-01T10:00:00+00:00"


def test_enums_come_as_strings(reader: Reader) -> None:
    """An enum, however deep inside, comes as the strings it stands for."""
    sql = "SELECT 'a'::ENUM ('a', 'b') AS e, [{'x': 'b'::ENUM ('a', 'b')}] AS deep"
    rows = reader.query(sql)
    assert rows.schema == reader.prepare(sql).schema
    assert rows.schema.field("e").type == pa.string()
    assert rows.read_all().to_pylist() == [{"e": "a", "deep": [{"x": "b"}]}]


def test_a_large_result_streams(reader: Reader) -> None:
    """The first rows of a result too large for any memory are there at once."""
    with reader.query("SELECT range AS i, repeat('x', 100) FROM range(1000000000000)") as rows:
        assert rows.read_next_batch().num_rows > 0
    with reader.query("SELECT range AS i FROM range(1000000000000) WHERE range > ?", [5]) as rows:
        assert rows.read_next_batch()["i"][0].as_py() == 6


def test_a_result_is_a_snapshot(connection: duckdb.DuckDBPyConnection, reader: Reader) -> None:
    """What a writer commits while a result is read is not in it, and is in the next one."""
    writer = connection.cursor()
    rows = reader.query("SELECT i FROM t")
    first = rows.read_next_batch().num_rows
    writer.execute("INSERT INTO t SELECT -1, 'late' FROM range(10)")
    assert first + sum(batch.num_rows for batch in rows) == 100_000
    assert reader.query("SELECT count(*) AS n FROM t").read_all()["n"][0].as_py() == 100_010


@pytest.mark.parametrize(
    "how",
    [
        lambda rows: rows.read_all(),
        lambda rows: rows.close(),
        lambda rows: rows.read_next_batch() and rows.close(),
        lambda rows: None,
    ],
    ids=["read to the end", "closed unread", "closed half read", "dropped"],
)
def test_the_transaction_ends_with_the_reading(
    connection: duckdb.DuckDBPyConnection, reader: Reader, how: Callable[[object], object]
) -> None:
    """However reading ends, no transaction and no connection stay open."""
    before = connections(connection)
    rows = reader.query("SELECT * FROM t")
    assert (reader.open_queries, connections(connection)) == (1, before + 1)
    how(rows)
    del rows
    gc.collect()
    assert (reader.open_queries, connections(connection)) == (0, before)


@pytest.mark.parametrize(
    "sql",
    ["SELECT nope FROM t", "SELECT CAST(s AS INTEGER) FROM t", "DELETE FROM t", "SELECT 1; SELECT 2"],
)
def test_the_transaction_ends_with_an_error(
    connection: duckdb.DuckDBPyConnection, reader: Reader, sql: str
) -> None:
    """A query that fails leaves nothing open."""
    before = connections(connection)
    with pytest.raises(SqlError):
        reader.query(sql).read_all()
    assert (reader.open_queries, connections(connection)) == (0, before)


def test_an_error_in_the_middle_is_the_engines(reader: Reader) -> None:
    """An error after the first rows has the engine's message, and ends the query."""
    rows = reader.query("SELECT CASE WHEN i > 90000 THEN error('too far') ELSE i END AS i FROM t")
    with pytest.raises(SqlError, match="too far"):
        rows.read_all()
    assert reader.open_queries == 0


def test_a_binder_error_shows_where(reader: Reader) -> None:
    """A wrong name is shown in the user's own text, by prepare as by query, with parameters or without."""
    for ask in (reader.prepare, lambda sql: reader.query(sql, ["x"] if "?" in sql else [])):
        for sql in ("SELECT *\nFROM nowhere", "SELECT *\nFROM nowhere WHERE a = ?"):
            with pytest.raises(SqlError, match=r"nowhere does not exist![\s\S]*LINE 2: FROM nowhere"):
                ask(sql)


def test_a_query_that_runs_too_long_is_stopped(connection: duckdb.DuckDBPyConnection) -> None:
    """The engine is interrupted when the time is up, before the first row or after it."""
    reader = Reader(connection, Limits(timeout_s=1.5, max_bytes=None, max_rows=None))
    with pytest.raises(QueryTimeout, match=r"more than 1\.5 s"):
        reader.query(ENDLESS)
    rows = reader.query("SELECT range AS i FROM range(1000000000000)")
    assert rows.read_next_batch().num_rows > 0
    with pytest.raises(QueryTimeout):
        deque(rows, maxlen=0)
    assert reader.open_queries == 0
    reader.close()


def test_waiting_for_the_reader_is_not_running(connection: duckdb.DuckDBPyConnection) -> None:
    """A slow reader of a large result is not cut off by the time limit of the engine."""
    reader = Reader(connection, Limits(timeout_s=1))
    rows = reader.query("SELECT i FROM t")
    count = 0
    for batch in rows:  # seven of them
        time.sleep(0.2)
        count += batch.num_rows
    assert count == 100_000
    reader.close()


def test_a_result_left_unread_is_ended(connection: duckdb.DuckDBPyConnection) -> None:
    """A reader that has stalled loses its transaction, and is told so when it comes back."""
    reader = Reader(connection, Limits(idle_s=0.2))
    rows = reader.query("SELECT * FROM t")
    eventually(lambda: reader.open_queries == 0)
    with pytest.raises(QueryTimeout, match=r"left unread for 0\.2 s"):
        rows.read_next_batch()
    reader.close()


def test_closing_stops_what_runs(connection: duckdb.DuckDBPyConnection) -> None:
    """Closing the reader ends running and half-read queries at once; new ones are refused."""
    reader = Reader(connection)
    half_read = reader.query("SELECT * FROM t")
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(reader.query, ENDLESS)
        eventually(lambda: reader.open_queries == 2)
        reader.close()
        with pytest.raises(StoreClosed):
            running.result(timeout=120)
    with pytest.raises(StoreClosed):
        half_read.read_next_batch()
    with pytest.raises(StoreClosed):
        reader.query("SELECT 1")


def test_closing_stops_what_the_engine_is_about_to_begin(
    connection: duckdb.DuckDBPyConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An interrupt that comes before the engine runs is lost; others follow it until the query has ended."""
    reader, stream, begins = Reader(connection), rows_of_a_query.stream, threading.Event()

    def late(*arguments: Any) -> Any:
        begins.set()
        (asked,) = reader._open
        eventually(asked.ending)
        time.sleep(0.1)  # the interrupt has been
        return stream(*arguments)

    monkeypatch.setattr(rows_of_a_query, "stream", late)
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(reader.query, ENDLESS)
        begins.wait()
        reader.close()
        with pytest.raises(StoreClosed):
            running.result(timeout=120)


def test_many_threads_read_while_one_writes(connection: duckdb.DuckDBPyConnection, reader: Reader) -> None:
    """Readers on many threads see whole commits only, and every query of theirs succeeds."""
    stop = threading.Event()
    writer = connection.cursor()
    writer.execute("CREATE TABLE pairs (n BIGINT)")

    def write() -> None:
        while not stop.is_set():
            writer.execute("INSERT INTO pairs VALUES (1), (-1)")

    def read(_: int) -> tuple[int, int]:
        row = reader.query("SELECT count(*) AS n, coalesce(sum(n), 0)::BIGINT AS total FROM pairs").read_all()
        return row["n"][0].as_py() % 2, row["total"][0].as_py()

    thread = threading.Thread(target=write)
    thread.start()
    try:
        with ThreadPoolExecutor(8) as pool:
            assert set(pool.map(read, range(200))) == {(0, 0)}
    finally:
        stop.set()
        thread.join()
    assert reader.open_queries == 0


@pytest.mark.parametrize(
    ("sql", "values"),
    [
        ("SELECT * FROM t", []),
        ("SELECT 1 AS a, 2 AS a", []),
        ("SELECT 1 AS a, 2 AS a, ?", ["x"]),
        ("SELECT ?; -- the end; really", [1.5]),
        ("SELECT ';', ? /* ; */", [None]),
        ("SELECT i FROM t WHERE i IN (?, ?) LIMIT ?", [1, 2, 1]),
        ("SELECT quantile_cont(i, ?) FROM t", [0.5]),
        ("SELECT $b - $a", {"a": 1, "b": 3}),
        ("DESCRIBE t", []),
        ("DESCRIBE SELECT ?", [1]),
        ("SHOW TABLES", []),
        ("SUMMARIZE t", []),
        ("EXPLAIN SELECT 1", []),
        ("EXPLAIN SELECT ?", [1]),
        ("PIVOT t ON i IN (1, 2) USING count(*)", []),
        ("SELECT [1, NULL] AS l, {'shape': [1::BIGINT], 'dtype': 'f16'} AS x, now() AS seen_at", []),
    ],
)
def test_prepare_says_what_query_gives(reader: Reader, sql: str, values: list[object]) -> None:
    """The schema of a prepared statement is that of its rows, to the name, type and nullability."""
    prepared = reader.prepare(sql, values)
    assert reader.query(sql, values).schema == prepared.schema
    names = sorted(values) if isinstance(values, dict) else [str(n + 1) for n in range(len(values))]
    assert reader.prepare(sql).parameter_schema.names == names
    assert len(reader.prepare(sql).schema) == len(prepared.schema)
    assert reader.open_queries == 0


def test_prepare_does_not_run(reader: Reader) -> None:
    """Preparing a query that would take for ever does not run into the limit of time."""
    assert reader.prepare(ENDLESS).schema.types == [pa.int64()]
    assert reader.prepare(f"{ENDLESS} WHERE a.range > ?").schema.types == [pa.int64()]


@pytest.mark.parametrize(
    ("sql", "values", "message"),
    [
        ("SELECT ?", [], "takes 1 parameters, given are 0"),
        ("SELECT ?", [1, 2], "takes 1 parameters, given are 2"),
        ("SELECT 1", [1], "takes 0 parameters"),
        ("SELECT $a", [1], "takes parameters named a; given are 1 without names"),
        ("SELECT $a", {"b": 1}, r"takes parameters named a; given are \['b'\]"),
    ],
)
def test_parameters_that_do_not_fit_are_told(
    reader: Reader, sql: str, values: list[object], message: str
) -> None:
    """Too few, too many or misnamed parameters get a message with what is expected and what was given."""
    with pytest.raises(SqlError, match=message):
        reader.query(sql, values)


LOCKED_OUT = [
    "FROM read_csv('/etc/passwd')",
    "FROM read_text('/etc/passwd')",
    "FROM read_blob('/etc/passwd')",
    "FROM read_parquet('/etc/passwd')",
    "FROM glob('/etc/*')",
    "FROM '/etc/passwd.csv'",
    "FROM 'https://localhost/x.csv'",
    "ATTACH '/tmp/other.duckdb' AS other",
    "COPY t TO '/tmp/t.csv'",
    "EXPORT DATABASE '/tmp/exported'",
    "SELECT getenv('HOME')",
    "INSTALL httpfs",
    "LOAD httpfs",
    "SET threads = 1",
    "SET TimeZone = 'America/New_York'",
    "SET enable_external_access = true",
    "CREATE PERSISTENT SECRET s (TYPE http)",
]


@pytest.mark.parametrize("sql", LOCKED_OUT)
def test_lock_down_closes_files_and_settings(connection: duckdb.DuckDBPyConnection, sql: str) -> None:
    """After the lock-down even a statement that does not pass the gate reaches no file and no setting."""
    with pytest.raises(duckdb.Error):
        connection.cursor().execute(sql).fetchall()


def test_python_variables_are_out_of_reach(connection: duckdb.DuckDBPyConnection, reader: Reader) -> None:
    """A table of the server's own program is no table of the database, nor is what the writer registers."""
    secret = pa.table({"x": [1]})
    writer = connection.cursor()
    writer.register("incoming", secret)
    for name in ("secret", "incoming", "connection", "reader"):
        with pytest.raises(SqlError, match=f"{name} does not exist"):
            reader.query(f"SELECT * FROM {name}")


def test_the_writer_still_inserts_arrow_tables(connection: duckdb.DuckDBPyConnection, reader: Reader) -> None:
    """After the lock-down the writer's side still stores Arrow tables, and the file is still checkpointed."""
    writer = connection.cursor()
    writer.register("incoming", pa.table({"i": [-1, -2], "s": ["a", "b"]}))
    writer.execute("INSERT INTO t SELECT * FROM incoming")
    writer.unregister("incoming")
    writer.execute("CHECKPOINT")
    assert reader.query("SELECT i FROM t WHERE i < 0 ORDER BY i").read_all()["i"].to_pylist() == [-2, -1]


def test_the_transaction_itself_is_read_only(reader: Reader) -> None:
    """What the gate might miss, the transaction refuses."""
    with reader.transaction() as rows, pytest.raises(SqlError, match="read-only"):
        rows.run(lambda: rows.cursor.execute("DELETE FROM t"))
    with reader.transaction() as rows, pytest.raises(SqlError, match="read-only"):
        rows.run(lambda: rows.cursor.execute("SELECT nextval('numbers')").fetchall())
    with pytest.raises(StatementRefused):
        reader.query("SELECT nextval('numbers')")


def test_the_catalogue_lists_what_is_there(reader: Reader) -> None:
    """Tables and views are listed with their columns, the engine's type names, comments and keys."""
    catalogue = Catalogue(reader)
    assert catalogue.catalogs() == ["reader"]
    assert catalogue.schemas() == [("reader", "main")]
    names = [(entry.name, entry.kind) for entry in catalogue.tables()]
    assert names == [("keyed", "TABLE"), ("moments", "TABLE"), ("seen", "VIEW"), ("t", "TABLE")]
    (keyed,) = catalogue.tables(name_pattern="key%", kinds=("TABLE",), with_schema=True)
    assert keyed.schema is not None
    assert keyed.schema.field("a").type == pa.int32()
    assert keyed.schema.field("a").metadata == {
        b"ARROW:FLIGHT:SQL:TYPE_NAME": b"INTEGER",
        b"ARROW:FLIGHT:SQL:REMARKS": b"the first letter",
    }
    assert [(key.column, key.place) for key in catalogue.primary_key("keyed")] == [("b", 1), ("a", 2)]
    assert catalogue.tables(catalog="other") == []
    assert [entry.name for entry in catalogue.tables(name_pattern="_")] == ["t"]
    assert catalogue.tables(name_pattern=r"\_") == []


def test_a_broken_view_does_not_hide_the_rest(connection: duckdb.DuckDBPyConnection, reader: Reader) -> None:
    """A view over a table that is gone is listed without columns, and the others with theirs."""
    connection.execute("CREATE TABLE gone (i INTEGER); CREATE VIEW broken AS FROM gone; DROP TABLE gone")
    columns = {
        e.name: len(e.schema or ()) for e in Catalogue(reader).tables(kinds=("VIEW",), with_schema=True)
    }
    assert columns == {"broken": 0, "seen": 1}
