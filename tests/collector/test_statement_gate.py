"""The statement gate: what SQL users may say, and what they are told when they may not."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support import laid, spans

from roofleet_collector.errors import CollectorError, SqlError, StatementRefused
from roofleet_collector.store import Append, DuckDBStore
from roofleet_collector.store.apart import Apart
from roofleet_collector.store.limits import MEBIBYTE, Limits
from roofleet_collector.store.statements import REFUSED_FUNCTIONS, TABLE_FUNCTIONS, check
from roofleet_collector.store.text import MAX_SQL_BYTES, plain_text

READS = [
    "SELECT 1",
    "select * from t;",
    "SELECT 1; -- and a comment",
    "/* first */ WITH x AS (SELECT 1 AS a) SELECT a FROM x",
    "WITH RECURSIVE r AS (SELECT 1 AS a UNION ALL SELECT a + 1 FROM r WHERE a < 3) FROM r",
    "VALUES (1, 'a'), (2, 'b')",
    "FROM t",
    "TABLE t",
    "FROM t SELECT count(*) GROUP BY ALL",
    "DESCRIBE t",
    "DESCRIBE SELECT 1",
    "SHOW TABLES",
    "SUMMARIZE t",
    "EXPLAIN SELECT * FROM t",
    "/* why */ EXPLAIN (FORMAT JSON) -- so\n SELECT 1",
    "PRAGMA table_info('t')",
    "FROM range(3) r(i), unnest([i, 2])",
    "SELECT * FROM duckdb_columns()",
    "PIVOT t ON i IN (1, 2) USING count(*)",
    "SELECT lag(i) OVER (ORDER BY i) FROM t QUALIFY i > 1",
    "SELECT 'DELETE FROM t; DROP TABLE t'",
    'SELECT 1 AS "checkpoint()"',
]

DOES_MORE = [
    "INSERT INTO t VALUES (1)",
    "DELETE FROM t",
    "UPDATE t SET i = 1",
    "MERGE INTO t USING t AS s ON t.i = s.i WHEN MATCHED THEN DELETE",
    "CREATE TABLE u (i INTEGER)",
    "CREATE TEMP TABLE u AS SELECT 1",
    "CREATE MACRO f() AS 1",
    "CREATE SECRET s (TYPE http)",
    "DROP TABLE t",
    "ALTER TABLE t ADD COLUMN j INTEGER",
    "COMMENT ON TABLE t IS 'x'",
    "ATTACH ':memory:' AS m",
    "DETACH m",
    "USE m",
    "INSTALL httpfs",
    "LOAD httpfs",
    "UPDATE EXTENSIONS",
    "SET threads = 1",
    "SET VARIABLE x = 1",
    "RESET threads",
    "PRAGMA enable_profiling",
    "PRAGMA threads = 1",
    "COPY t TO '/tmp/t.csv'",
    "EXPORT DATABASE '/tmp/x'",
    "CALL pragma_version()",
    "CHECKPOINT",
    "VACUUM",
    "ANALYZE",
    "BEGIN",
    "COMMIT",
    "PREPARE p AS SELECT 1",
    "EXECUTE p",
    "EXPLAIN ANALYZE SELECT 1",
    "EXPLAIN (ANALYZE) SELECT 1",
    "EXPLAIN /* quietly */ ANALYZE DELETE FROM t",
    "EXPLAIN DELETE FROM t",
    "SELECT 1; SELECT 2",
    "SELECT 1; DROP TABLE t",
    "FROM checkpoint()",
    "FROM system.main.CHECKPOINT()",
    'FROM "Force_Checkpoint"()',
    "SELECT * FROM query('SELECT 1')",
    "FROM query_table('t')",
    "FROM json_execute_serialized_sql(json_serialize_sql('SELECT 1'))",
    "FROM arrow_scan(1, 2, 3)",
    "FROM pandas_scan(1)",
    "FROM enable_logging(storage = 'file', storage_path = '/tmp/log')",
    "FROM enable_profiling(save_location = '/tmp/profile.json')",
    "FROM truncate_duckdb_logs()",
    "FROM read_csv('/etc/passwd')",
    "FROM glob('/etc/*')",
    "FROM '/var/lib/roofleet.duckdb'",
    "FROM 'runs.csv'",
    "FROM (FROM 'https://localhost/runs')",
    "WITH a AS (FROM read_text('/etc/passwd')) SELECT 1",
    "SELECT * FROM t WHERE i IN (SELECT 1 FROM checkpoint())",
    "SELECT 1 ORDER BY (SELECT 1 FROM checkpoint())",
    "DESCRIBE FROM checkpoint()",
    "SUMMARIZE FROM checkpoint()",
    "EXPLAIN FROM checkpoint()",
    "SELECT nextval('s')",
    "SELECT main.setseed(0.5)",
    "SELECT x.write_log() FROM (SELECT 'a') AS t(x)",
    "SELECT list_transform([1], lambda x: sleep_ms(x))",
    "SELECT pg_sleep(1000)",
    "PIVOT t ON i USING count(*)",
    "",
    "-- nothing",
]


A_TEXT = "SELECT path AS s FROM spans"
for _ in range(30):
    A_TEXT = f"SELECT s || s AS s FROM ({A_TEXT})"
COLUMNS = "SELECT *, * FROM spans"
for _ in range(25):
    COLUMNS = f"SELECT *, * FROM ({COLUMNS})"
DOUBLED = ", ".join(f"a{i} AS (SELECT l.x FROM a{i - 1} l, a{i - 1} r)" for i in range(1, 31))

BOUNDED = [
    f"WITH a0 AS (SELECT 1 AS x UNION ALL SELECT 2), {DOUBLED} SELECT count(*) FROM a30",
    "SELECT 1 AS a0, " + ", ".join(f"a{i} + a{i} AS a{i + 1}" for i in range(30)),
    f"SELECT max(length(s)) FROM ({A_TEXT})",
    COLUMNS,
    f"DESCRIBE {COLUMNS}",
    "SUMMARIZE FROM range(100000000000)",
    "SELECT levenshtein(repeat('ab', 500000), repeat('ba', 500000))",
    "SELECT levenshtein(repeat(path, 100000), repeat('ba', 500000)) FROM spans",
    "SELECT path FROM spans WHERE repeat(path, 100000) GLOB '*a*b*c*d*e*f*!'",
    "SELECT path FROM spans WHERE repeat(path, 100000) LIKE '%a%b%c%d%e%f%!'",
    "SELECT max(length(regexp_replace(repeat(path, 100000), '', repeat('b', 1000000), 'g'))) FROM spans",
    "SELECT repeat('x', 1000000000)",
    "SELECT length(repeat(path, 1000000000)) FROM spans",
    "SELECT lpad(path, 2000000000, 'y') FROM spans",
    "SELECT format('{:1000000000}', self_ns) FROM spans",
    "SELECT list_transform(range(1000000000), lambda x: x + 1)",
    "SELECT unnest(range(10000000000))",
    "WITH RECURSIVE r AS (SELECT 1 AS a UNION ALL SELECT a + 1 FROM r) SELECT count(*) FROM r",
    "WITH RECURSIVE r AS (SELECT 'x' AS a UNION ALL SELECT a || a FROM r) SELECT max(length(a)) FROM r",
    "SELECT count(*) FROM range(1000000000) a, range(1000000000) b",
    "SELECT * FROM range(1000000000000) a ORDER BY hash(a.range)",
    "SELECT * FROM range(1000000000000)",
    "SELECT count(DISTINCT range) FROM range(1000000000000)",
    "SELECT string_agg(range::VARCHAR, ',') FROM range(1000000000000)",
    "SELECT list(range) FROM range(1000000000000)",
    "SELECT row_number() OVER (ORDER BY range) FROM range(1000000000000)",
    "SELECT " + "(" * 150 + "1" + ")" * 150,
    "SELECT " + "(SELECT " * 150 + "1" + ")" * 150,
    "SELECT 1" + " UNION ALL SELECT 1" * 3000,
]


@pytest.fixture(scope="module")
def cursor() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as connection:
        connection.execute("CREATE TABLE t AS SELECT range AS i FROM range(3); CREATE SEQUENCE s")
        yield connection


@pytest.mark.parametrize("sql", READS)
def test_a_statement_that_reads_passes_and_runs(sql: str, cursor: duckdb.DuckDBPyConnection) -> None:
    """What only reads passes the gate, and the engine accepts what passed."""
    cursor.execute(check(sql, cursor).sql).fetchall()


@pytest.mark.parametrize("sql", DOES_MORE)
def test_a_statement_that_does_more_is_refused(sql: str, cursor: duckdb.DuckDBPyConnection) -> None:
    """What does more than read is refused, with a message that says what is allowed."""
    with pytest.raises(StatementRefused, match=r"allowed|refused because|PIVOT t ON column IN"):
        check(sql, cursor)


def test_every_other_table_function_is_refused(cursor: duckdb.DuckDBPyConnection) -> None:
    """A table function of the engine that is not on the list does not pass, whatever it is."""
    found = cursor.execute(
        "SELECT DISTINCT function_name FROM duckdb_functions() WHERE function_type LIKE 'table%'"
    ).fetchall()
    others = {name for (name,) in found} - TABLE_FUNCTIONS
    assert {"checkpoint", "read_csv", "query", "arrow_scan", "enable_logging"} <= others
    for name in others:
        with pytest.raises(StatementRefused):
            check(f'SELECT * FROM "{name}"()', cursor)


def test_no_macro_smuggles_a_refused_function(cursor: duckdb.DuckDBPyConnection) -> None:
    """A macro of the engine that stands for a refused function is refused itself."""
    macros = cursor.execute(
        "SELECT function_name, macro_definition FROM duckdb_functions() WHERE function_type = 'macro'"
    ).fetchall()
    smuggling = {name for name, body in macros if any(f"{hidden}(" in body for hidden in REFUSED_FUNCTIONS)}
    assert smuggling <= REFUSED_FUNCTIONS


def test_parameters_are_named_in_order(cursor: duckdb.DuckDBPyConnection) -> None:
    """Positional parameters come in the order of their numbers, named ones by name."""
    many = check("SELECT " + ", ".join(["?"] * 12), cursor)
    assert many.parameters == tuple(str(n) for n in range(1, 13))
    assert not many.named
    named = check("SELECT $model, $host", cursor)
    assert named.parameters == ("host", "model")
    assert named.named


def test_what_cannot_be_parsed_gets_the_engines_message(cursor: duckdb.DuckDBPyConnection) -> None:
    """A syntax error shows what the engine says and where."""
    with pytest.raises(SqlError, match=r"Parser Error: syntax error at or near \"t\"[\s\S]*LINE 1") as caught:
        check("SELECT * FORM t", cursor)
    assert not isinstance(caught.value, StatementRefused)


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT '" + "x" * MAX_SQL_BYTES + "'",
        "SELECT " + "+".join(["1"] * 1100),
        "SELECT " + "-" * 5000 + "1",
        "SELECT '\ud800'",
        "SELECT \x00",
        "SELECT " + "(" * 100_000,
        "SELECT " + "(" * 1000 + "1" + ")" * 1000,
        "SELECT 1" + ")" * 1000 + "(" * 1000,
        "SELECT 1" + ",1" * 50_000,
        "SELECT '" + "/**/" * 50_000 + "'",
        "SELECT 1 " + "/*" * 100_000,
        "SELECT 1 /* " + "* " * 100_000,
        "SELECT E'" + "''" * 100_000,
        "SELECT $a$ $b$",
    ],
    ids=[
        *(
            "too long",
            "deep",
            "deeper",
            "not Unicode",
            "NUL",
            "open brackets",
            "deep brackets",
            "wrong order",
        ),
        *("many numbers", "many quoted comments", "deep comments", "endless comment", "endless text"),
        "endless dollars",
    ],
)
def test_odd_texts_end_in_an_sql_error(sql: str, cursor: duckdb.DuckDBPyConnection) -> None:
    """A text made to break the gate is answered as any other mistake."""
    with pytest.raises(SqlError):
        check(sql, cursor)


def test_comments_do_not_freeze_the_gate(cursor: duckdb.DuckDBPyConnection) -> None:
    """The statement of 160 bytes that froze a collector passes at once, as do 50,000 comments."""
    frozen = "EXPLAIN (FORMAT json) " + "/**/" * 64 + " SELECT 1"
    for sql in (frozen, "EXPLAIN" + "/**/" * 50_000 + "SELECT 1", "-- a\n" * 50_000 + "SELECT 1"):
        cursor.execute(check(sql, cursor).sql).fetchall()


@pytest.mark.parametrize(
    ("sql", "plain"),
    [
        ("SELECT 1 -- one\n, 2", "SELECT 1       \n, 2"),
        ("/* a /* b */ c */ SELECT 1;; -- end ;", " " * 18 + "SELECT 1" + " " * 11),
        (";SELECT 'a;--', \"/*\", E'\\'--', $$;$$;", " SELECT 'a;--', \"/*\", E'\\'--', $$;$$ "),
        ("SELECT 'it''s --', $é$ -- $é$", "SELECT 'it''s --', $é$ -- $é$"),
        ("SELECT a$b$ --$b$", "SELECT a$b$      "),
        ("SELECT 1;SELECT 2;", "SELECT 1;SELECT 2 "),
        ("SELECT 1-1/2", "SELECT 1-1/2"),
    ],
)
def test_comments_and_ends_are_left_out(sql: str, plain: str) -> None:
    """Comments and the semicolon at the end become blanks, what is quoted stays, and so does every place."""
    assert plain_text(sql) == plain


PIECES = st.sampled_from(
    [
        *(
            "/**/",
            "/*",
            "*/",
            "--",
            "-- a\n",
            "(",
            ")",
            "()",
            "EXPLAIN ",
            "PRAGMA ",
            "(FORMAT json)",
            "ANALYZE ",
        ),
        *("SELECT 1 ", "'", "E'", "\\", '"', "$$", "$a$", ";", " ", "\n", "a", "1", ",", "\u00a0", "é"),
    ]
)


@settings(max_examples=60, deadline=None)
@given(head=st.lists(PIECES, max_size=3), again=st.lists(PIECES, min_size=1, max_size=4))
def test_the_gate_takes_time_in_proportion(
    cursor: duckdb.DuckDBPyConnection, head: list[str], again: list[str]
) -> None:
    """A statement eight times as long takes about eight times as long to check, whatever it is made of."""

    def seconds(size: int) -> float:
        sql = "".join(head) + "".join(again) * (size // len("".join(again))) + " SELECT 1"
        began = time.process_time()
        with suppress(SqlError):
            check(sql, cursor)
        return time.process_time() - began

    assert seconds(32_000) < 24 * seconds(4_000) + 0.2


@pytest.mark.slow
def test_a_writer_goes_on_whatever_is_asked(tmp_path: Path) -> None:
    """Each statement made to write, to read files or never to end is refused or bounded, and every row that a
    writer sends meanwhile is stored once."""
    store = DuckDBStore(laid(tmp_path))
    store.append(Append({"spans": spans(500)})).result()
    door = store.door(Limits(timeout_s=0.5, max_bytes=64 * MEBIBYTE), Apart(700 * MEBIBYTE, plan_s=0.5))
    asked, stop = [*DOES_MORE, *BOUNDED], threading.Event()
    assert len(asked) > 60
    sent = 0

    def write() -> None:
        nonlocal sent
        while not stop.is_set():
            store.append(Append({"spans": spans(16)}, key=("agent", 1, sent + 1))).result()
            sent += 1

    writer = threading.Thread(target=write)
    writer.start()
    answered = []
    try:
        for sql in asked:
            try:
                deque(door.query(sql), maxlen=0)
                answered.append(sql)
            except CollectorError:
                pass
            assert door.open_queries == 0, sql
    finally:
        stop.set()
        writer.join()
        door.close()
    assert not set(answered) - set(BOUNDED)
    assert store.query("SELECT count(*) AS n FROM spans").read_all()["n"].to_pylist() == [500 + 16 * sent]
    assert sent > 10
    store.close()


TEXT = """
SELECT FROM WITH x AS ( ) , ; * 1 'a' t u s EXPLAIN ANALYZE DESCRIBE DELETE INSERT INTO VALUES CREATE TEMP
TABLE DROP checkpoint() nextval('s') ATTACH ':memory:' SET threads = RETURNING CALL BEGIN -- /* */
query('TABLE') UNION ALL WHERE i PIVOT ON SHOW TABLES
"""
WORDS = st.sampled_from(TEXT.split())


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(words=st.lists(WORDS, min_size=1, max_size=10))
def test_what_passes_changes_nothing(words: list[str]) -> None:
    """Whatever words are put together: if the gate lets them through, running them changes nothing."""
    with duckdb.connect() as connection:
        connection.execute("CREATE TABLE t AS SELECT range AS i FROM range(3); CREATE SEQUENCE s")
        before = _state(connection)
        with suppress(SqlError, duckdb.Error):
            connection.execute(check(" ".join(words), connection).sql).fetchall()
        assert _state(connection) == before


def _state(connection: duckdb.DuckDBPyConnection) -> list[object]:
    questions = [
        "FROM t",
        "SELECT table_name, temporary FROM duckdb_tables()",
        "SELECT sequence_name, last_value FROM duckdb_sequences()",
        "SELECT database_name FROM duckdb_databases()",
        "SELECT name, value FROM duckdb_settings() WHERE name = 'threads'",
        "SELECT name FROM duckdb_prepared_statements()",
    ]
    return [connection.execute(question).fetchall() for question in questions]
