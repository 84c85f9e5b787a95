"""The SQL door, through the stock ADBC driver and, where a driver hides things, through plain Flight."""

from __future__ import annotations

import gc
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import adbc_driver_flightsql.dbapi as dbapi
import adbc_driver_manager
import duckdb
import grpc
import pyarrow as pa
import pytest
from adbc_driver_flightsql import DatabaseOptions
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import flight
from tests.support import arrow_stream, bent

from roofleet_collector.errors import AddressInUse, CollectorError, SqlError, TooManyQueries, UnknownCaller
from roofleet_collector.flight_sql import FlightSqlServer
from roofleet_collector.flight_sql.prepared import PreparedStatements
from roofleet_collector.flight_sql.server import MAX_MESSAGE_BYTES
from roofleet_collector.store.caller import Caller
from roofleet_collector.store.limits import Limits
from roofleet_collector.store.locks import lock_down
from roofleet_collector.store.reader import PreparedSelect, Reader
from roofleet_collector.store.rows import Parameters, Rows
from roofleet_proto import flight_sql as fs
from roofleet_proto.flight import SERVICE
from roofleet_proto.wire import flight_pb2 as wire

DbApiError = adbc_driver_manager.Error


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[duckdb.DuckDBPyConnection]:
    path: Path = tmp_path_factory.mktemp("flight") / "roofleet.duckdb"
    with duckdb.connect(str(path)) as connection:
        connection.execute(
            """
            CREATE TABLE t AS SELECT range AS i, 'row ' || range AS s FROM range(500000);
            CREATE TABLE keyed (a INTEGER, b VARCHAR, PRIMARY KEY (b, a));
            CREATE VIEW seen AS SELECT i FROM t;
            CREATE TABLE every_type (
                n BIGINT, i BIGINT, d DOUBLE, s VARCHAR, b BOOLEAN, x BLOB, ts TIMESTAMPTZ,
                l BIGINT[], st STRUCT(shape BIGINT[], dtype VARCHAR)[]
            );
            """
        )
        lock_down(connection)
        yield connection


@pytest.fixture(scope="module")
def reader(database: duckdb.DuckDBPyConnection) -> Iterator[Reader]:
    reader = Reader(database)
    yield reader
    reader.close()


@pytest.fixture(scope="module")
def server(reader: Reader) -> Iterator[FlightSqlServer]:
    with FlightSqlServer(reader) as server:
        yield server


@pytest.fixture
def client(server: FlightSqlServer) -> Iterator[dbapi.Connection]:
    with connect(server) as connection:
        yield connection


@pytest.fixture
def plain(server: FlightSqlServer) -> Iterator[flight.FlightClient]:
    with flight.connect(f"grpc://127.0.0.1:{server.port}") as connection:
        yield connection


def connect(server: FlightSqlServer, **options: str) -> dbapi.Connection:
    return dbapi.connect(f"grpc://127.0.0.1:{server.port}", db_kwargs=options, autocommit=True)


def fetch(connection: dbapi.Connection, sql: str, parameters: Any = None) -> pa.Table:
    with connection.cursor() as cursor:
        cursor.execute(sql, parameters)
        return cursor.fetch_arrow_table()


def ask(plain: flight.FlightClient, command: fs.Command) -> tuple[pa.Schema, pa.Table]:
    """The schema that was announced for a command, and the rows that came."""
    info = plain.get_flight_info(flight.FlightDescriptor.for_command(fs.encode(command)))
    return info.schema, plain.do_get(info.endpoints[0].ticket).read_all()


def put(plain: flight.FlightClient, descriptor: flight.FlightDescriptor, row: pa.RecordBatch) -> object:
    """Sends a row; the server's answer."""
    writer, results = plain.do_put(descriptor, row.schema)
    with writer:
        writer.write_batch(row)
        writer.done_writing()
        return results.read()


def soon(true: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 120
    while not true() and time.monotonic() < deadline:
        time.sleep(0.02)
    return true()


def test_a_query_gives_its_rows(client: dbapi.Connection) -> None:
    """A DB-API client gets the rows of a query, with and without parameters."""
    assert fetch(client, "SELECT i, s FROM t WHERE i < 2").to_pylist() == [
        {"i": 0, "s": "row 0"},
        {"i": 1, "s": "row 1"},
    ]
    with client.cursor() as cursor:
        cursor.execute("SELECT i FROM t WHERE i = ? OR s = ? ORDER BY i", (5, "row 7"))
        assert cursor.fetchall() == [(5,), (7,)]
        cursor.execute("SELECT i FROM t WHERE i = ? OR s = ? ORDER BY i", (6, "row 8"))
        assert cursor.fetchall() == [(6,), (8,)]


@pytest.mark.parametrize(
    "value",
    [
        7,
        -1.5,
        "text",
        b"\x00\xff",
        True,
        datetime(2026, 3, 1, 12, tzinfo=UTC),
        datetime(2026, 3, 1).date(),
        [1, 2, 3],
        [{"shape": [1, 2], "dtype": "f16"}],
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_parameter_comes_back(client: dbapi.Connection, value: object) -> None:
    """A value bound as a parameter is the value that the engine sees."""
    assert fetch(client, "SELECT ? AS v", (value,))["v"].to_pylist() == [value]


def test_parameters_bind_by_name(client: dbapi.Connection) -> None:
    """A record batch whose columns are named like the parameters binds by name, in any order."""
    batch = pa.record_batch({"low": [3], "high": [5]})
    assert fetch(client, "SELECT i FROM t WHERE i BETWEEN $low AND $high", batch).num_rows == 3


def test_nanoseconds_are_cut_to_microseconds(client: dbapi.Connection) -> None:
    """A parameter in nanoseconds, as pandas sends it, is bound to the microsecond."""
    batch = pa.record_batch([pa.array([1_500], pa.timestamp("ns", "UTC"))], ["1"])
    assert fetch(client, "SELECT epoch_us(?) AS us", batch)["us"].to_pylist() == [1]


def test_a_prepared_result_carries_its_schemas(plain: flight.FlightClient) -> None:
    """A prepared statement announces its columns and parameters, which is how JDBC knows it is a query."""
    body = fs.encode(fs.CreatePrepared("SELECT i, s FROM t WHERE i = ? AND s = ?"))
    (answer,) = plain.do_action(flight.Action(fs.CREATE_PREPARED_STATEMENT, body))
    prepared = fs.decode(answer.body.to_pybytes())
    assert isinstance(prepared, fs.PreparedResult)
    dataset = pa.ipc.read_schema(pa.py_buffer(prepared.dataset_schema))
    assert dataset == pa.schema([("i", pa.int64()), ("s", pa.string())])
    assert pa.ipc.read_schema(pa.py_buffer(prepared.parameter_schema)).names == ["1", "2"]

    command = fs.PreparedQuery(prepared.prepared_statement_handle)
    with pytest.raises(pa.ArrowInvalid, match="takes 2 parameters, given are 0"):
        ask(plain, command)
    row = pa.record_batch({"x": [4], "y": ["row 4"]})
    descriptor = flight.FlightDescriptor.for_command(fs.encode(command))
    assert put(plain, descriptor, row) is not None
    assert plain.get_schema(descriptor).schema == dataset
    announced, rows = ask(plain, command)
    assert (announced, rows.to_pylist()) == (dataset, [{"i": 4, "s": "row 4"}])

    close = fs.encode(fs.ClosePrepared(prepared.prepared_statement_handle))
    list(plain.do_action(flight.Action(fs.CLOSE_PREPARED_STATEMENT, close)))
    with pytest.raises(pa.ArrowInvalid, match="prepare it again"):
        ask(plain, command)


TEXT, NEVER_NULL = pa.field("", pa.string()), pa.field("", pa.string(), nullable=False)
KEYS = {"pk_catalog_name": TEXT, "pk_db_schema_name": TEXT, "pk_table_name": NEVER_NULL}
METADATA: list[tuple[fs.Command, dict[str, pa.Field], int]] = [
    (fs.GetCatalogs(), {"catalog_name": NEVER_NULL}, 1),
    (fs.GetDbSchemas(), {"catalog_name": TEXT, "db_schema_name": NEVER_NULL}, 1),
    (fs.GetTableTypes(), {"table_type": NEVER_NULL}, 2),
    (
        fs.GetTables(),
        {"catalog_name": TEXT, "db_schema_name": TEXT, "table_name": NEVER_NULL, "table_type": NEVER_NULL},
        4,
    ),
    (
        fs.GetTables(include_schema=True, table_types=("VIEW",)),
        {
            "catalog_name": TEXT,
            "db_schema_name": TEXT,
            "table_name": NEVER_NULL,
            "table_type": NEVER_NULL,
            "table_schema": pa.field("", pa.binary(), nullable=False),
        },
        1,
    ),
    (
        fs.GetPrimaryKeys("keyed"),
        {
            "catalog_name": TEXT,
            "db_schema_name": TEXT,
            "table_name": NEVER_NULL,
            "column_name": NEVER_NULL,
            "key_name": TEXT,
            "key_sequence": pa.field("", pa.int32(), nullable=False),
        },
        2,
    ),
    *(
        (
            command,
            {
                "pk_catalog_name": TEXT,
                "pk_db_schema_name": TEXT,
                "pk_table_name": NEVER_NULL,
                "pk_column_name": NEVER_NULL,
                "fk_catalog_name": TEXT,
                "fk_db_schema_name": TEXT,
                "fk_table_name": NEVER_NULL,
                "fk_column_name": NEVER_NULL,
                "key_sequence": pa.field("", pa.int32(), nullable=False),
                "fk_key_name": TEXT,
                "pk_key_name": TEXT,
                "update_rule": pa.field("", pa.uint8(), nullable=False),
                "delete_rule": pa.field("", pa.uint8(), nullable=False),
            },
            0,
        )
        for command in (fs.GetExportedKeys("t"), fs.GetImportedKeys("t"), fs.GetCrossReference("t", "keyed"))
    ),
]


@pytest.mark.parametrize(("command", "columns", "count"), METADATA, ids=lambda v: type(v).__name__)
def test_metadata_has_the_protocols_columns(
    plain: flight.FlightClient, command: fs.Command, columns: dict[str, pa.Field], count: int
) -> None:
    """Every metadata reply has the columns of the protocol, to the nullability, as announced."""
    announced, rows = ask(plain, command)
    assert announced == pa.schema([field.with_name(name) for name, field in columns.items()])
    assert rows.schema == announced
    assert rows.num_rows == count


def test_sql_info_says_read_only(plain: flight.FlightClient, client: dbapi.Connection) -> None:
    """The server's facts come as the protocol's dense union; asking for some gives those."""
    announced, rows = ask(plain, fs.GetSqlInfo((0, 3)))
    assert rows.schema == announced
    assert not any(field.nullable for field in announced)
    assert rows.to_pydict() == {"info_name": [0, 3], "value": ["Roofleet", True]}
    assert ask(plain, fs.GetSqlInfo())[1].num_rows > 30
    assert client.adbc_get_info()["vendor_name"] == "Roofleet"


def test_adbc_finds_its_way_around(client: dbapi.Connection) -> None:
    """The ADBC driver lists tables with their columns, and gives the schema of one."""
    (catalog,) = client.adbc_get_objects(depth="all").read_all().to_pylist()
    (schema,) = catalog["catalog_db_schemas"]
    tables = {
        table["table_name"]: [column["column_name"] for column in table["table_columns"]]
        for table in schema["db_schema_tables"]
    }
    assert tables["t"] == ["i", "s"]
    assert tables["seen"] == ["i"]
    assert client.adbc_get_table_schema("t").types == [pa.int64(), pa.string()]
    assert client.adbc_get_table_types() == ["TABLE", "VIEW"]
    with client.cursor() as cursor:
        assert cursor.adbc_execute_schema("SELECT s FROM t").names == ["s"]


WRONG = [
    ("SELECT nope FROM t", "Binder Error: Referenced column"),
    ("SELECT * FROM nowhere", "Catalog Error: Table with name nowhere"),
    ("SELECT FROM", "Parser Error"),
    ("SELECT error('too far') FROM t", "too far"),
    ("SELECT CASE WHEN i > 400000 THEN error('late') ELSE i END FROM t", "late"),
    ("DELETE FROM t", "DELETE is refused; allowed is"),
    ("SELECT 1; SELECT 2", "2 statements; allowed is"),
    ("FROM checkpoint()", "refused"),
    ("SELECT ?", "takes 1 parameters"),
]


@pytest.mark.parametrize(("sql", "message"), WRONG)
def test_a_client_sees_the_message_and_no_trace(
    client: dbapi.Connection, reader: Reader, sql: str, message: str
) -> None:
    """What goes wrong reaches the client in the engine's words, without a trace of the server's code."""
    with pytest.raises(DbApiError) as caught:
        fetch(client, sql)
    assert message in str(caught.value)
    for trace in ("Traceback", ".py", "roofleet_collector", "Python exception"):
        assert trace not in str(caught.value)
    assert soon(lambda: reader.open_queries == 0)


def test_writing_is_refused_by_name(
    client: dbapi.Connection, plain: flight.FlightClient, database: duckdb.DuckDBPyConnection
) -> None:
    """Updates, bulk ingestion and unknown actions are refused with a message that says read-only."""
    for command in (fs.StatementUpdate("DELETE FROM t"), fs.PreparedUpdate(b"handle")):
        descriptor = flight.FlightDescriptor.for_command(fs.encode(command))
        with pytest.raises(flight.FlightUnauthorizedError, match="read-only"):
            put(plain, descriptor, pa.record_batch({"i": [1]}))
        with pytest.raises(flight.FlightUnauthorizedError, match="read-only"):
            plain.get_flight_info(descriptor)
    with client.cursor() as cursor, pytest.raises(DbApiError, match="read-only"):
        cursor.adbc_ingest("t", pa.table({"i": [1], "s": ["x"]}), mode="append")
    with client.cursor() as cursor, pytest.raises(DbApiError, match="INSERT is refused"):
        cursor.executemany("INSERT INTO t VALUES (?, ?)", [(1, "x")])
    with pytest.raises(pa.ArrowInvalid, match="BeginTransaction"):
        list(plain.do_action(flight.Action("BeginTransaction", b"")))
    assert database.execute("SELECT count(*) FROM t").fetchone() == (500_000,)


WHAT = r"not a Flight SQL command|malformed|StatementTicket"


@pytest.mark.parametrize("data", [b"", b"nonsense", b"\xff" * 40, fs.encode(fs.StatementTicket(b"\xff\xff"))])
def test_malformed_bytes_are_told(plain: flight.FlightClient, data: bytes) -> None:
    """Bytes that are no command are answered with what is wrong about them, in every call."""
    calls: list[Callable[[], object]] = [
        lambda: plain.get_flight_info(flight.FlightDescriptor.for_command(data)),
        lambda: plain.do_get(flight.Ticket(data)).read_all(),
        lambda: list(plain.do_action(flight.Action(fs.CREATE_PREPARED_STATEMENT, data))),
    ]
    for call in calls:
        with pytest.raises(pa.ArrowInvalid, match=WHAT) as caught:
            call()
        assert "Traceback" not in str(caught.value)
    with pytest.raises(pa.ArrowException, match=WHAT):
        plain.get_schema(flight.FlightDescriptor.for_command(data))


class CountingReader(Reader):
    """A reader that counts how often it runs a query."""

    runs = 0

    def query(self, sql: str, parameters: Parameters = (), caller: Caller | None = None) -> Rows:
        self.runs += 1
        return super().query(sql, parameters, caller)


def test_a_query_runs_once(database: duckdb.DuckDBPyConnection) -> None:
    """Preparing, asking for the schema and reading run the query once, when it is read."""
    reader = CountingReader(database)
    with FlightSqlServer(reader) as server, connect(server) as client:
        fetch(client, "SELECT i FROM t WHERE i < 5")
        assert reader.runs == 1
        fetch(client, "SELECT i FROM t WHERE i < ?", (5,))
        assert reader.runs == 2
    reader.close()


def test_a_long_query_times_out(database: duckdb.DuckDBPyConnection) -> None:
    """A query that runs too long ends with a timeout that says how long it had."""
    reader = Reader(database, Limits(timeout_s=0.3))
    with FlightSqlServer(reader) as server, connect(server) as client:
        with pytest.raises(DbApiError, match=r"TIMEOUT[\s\S]*more than 0\.3 s"):
            fetch(client, "SELECT count(*) FROM range(1000000000) a, range(1000) b")
    reader.close()


def forged(sql: str, row: bytes) -> flight.Ticket:
    """A ticket as a client can make it by itself."""
    bound = fs.encode_bound(fs.BoundQuery(sql, row))
    return flight.Ticket(fs.encode(fs.StatementTicket(bound)))


def put_raw(server: FlightSqlServer, command: bytes, stream: bytes) -> None:
    """Sends an Arrow stream as it is, with no library of Arrow's between."""
    messages, at = [], 0
    while at < len(stream) - 8:
        (length,) = struct.unpack_from("<i", stream, at + 4)
        header = stream[at + 8 : at + 8 + length]
        body = pa.ipc.read_message(stream[at:]).body.size
        at += 8 + length
        data = wire.FlightData(data_header=header, data_body=stream[at : at + body])
        at += body
        messages.append(data)
    messages[0].flight_descriptor.CopyFrom(wire.FlightDescriptor(type=2, cmd=command))
    with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        call = channel.stream_stream(f"/{SERVICE}/DoPut")
        list(call(iter([message.SerializeToString() for message in messages])))


def prepare(plain: flight.FlightClient, sql: str) -> flight.FlightDescriptor:
    body = fs.encode(fs.CreatePrepared(sql))
    (answer,) = plain.do_action(flight.Action(fs.CREATE_PREPARED_STATEMENT, body))
    prepared = fs.decode(answer.body.to_pybytes())
    assert isinstance(prepared, fs.PreparedResult)
    return flight.FlightDescriptor.for_command(
        fs.encode(fs.PreparedQuery(prepared.prepared_statement_handle))
    )


TEXT_ROW = arrow_stream(pa.record_batch({"1": ["x" * 7919]}))
ATTACKS = [
    (bent(TEXT_ROW, 7919, 24_000_000), "cannot be read"),
    (bent(TEXT_ROW, 7919, 2**31 - 1), "cannot be read"),
    (bent(TEXT_ROW, 7919, -2), "cannot be read"),
    (arrow_stream(pa.record_batch({"1": ["x" * 30_000_000]}), compression="zstd"), "more than 1048576 bytes"),
    (arrow_stream(pa.record_batch({"1": [[0] * 2_000_000]}), compression="lz4"), "more than 1048576 bytes"),
    (arrow_stream(pa.record_batch({"1": [1, 2]})), "takes one row of parameters, given are 2"),
    (arrow_stream(pa.record_batch({"1": pa.array(["a"]).dictionary_encode()})), "send plain values"),
    (arrow_stream(pa.record_batch({"1": pa.array([2**62], pa.timestamp("s"))})), "cannot be bound"),
]


@pytest.mark.parametrize(("row", "message"), ATTACKS)
def test_parameters_are_checked_by_either_way(
    server: FlightSqlServer, plain: flight.FlightClient, row: bytes, message: str
) -> None:
    """Parameters that point into foreign memory or unfold are refused, in a forged ticket as when bound."""
    plain.wait_for_available()
    allocated = pa.total_allocated_bytes()
    with pytest.raises(pa.ArrowInvalid, match=message):
        plain.do_get(forged("SELECT ?", row)).read_all()
    descriptor = prepare(plain, "SELECT ?")
    with suppress(grpc.RpcError):
        put_raw(server, descriptor.command, row)
        with pytest.raises(pa.ArrowInvalid, match=message):  # what is a value only when it is bound
            plain.get_flight_info(descriptor)
        return
    with pytest.raises(grpc.RpcError, match=message):
        put_raw(server, descriptor.command, row)
    assert pa.total_allocated_bytes() - allocated < 4 * 1024 * 1024


def test_a_stream_of_parameters_that_is_cut_is_refused(plain: flight.FlightClient) -> None:
    """Half a row in a ticket is not taken for a whole one."""
    with pytest.raises(pa.ArrowInvalid, match="cut before its end"):
        plain.do_get(forged("SELECT ?", TEXT_ROW[:-8])).read_all()


ENDLESS = "SELECT count(*) FROM range(1000000000) a, range(1000) b"


def test_a_client_that_goes_away_ends_its_query(database: duckdb.DuckDBPyConnection) -> None:
    """A query whose client has gone before the first row ends, though it might run for ever."""
    reader = Reader(database, Limits(timeout_s=None))
    ticket = flight.Ticket(fs.encode(fs.StatementTicket(fs.encode_bound(fs.BoundQuery(ENDLESS)))))
    with FlightSqlServer(reader) as server, flight.connect(f"grpc://127.0.0.1:{server.port}") as plain:
        with pytest.raises(flight.FlightTimedOutError):
            plain.do_get(ticket, flight.FlightCallOptions(timeout=0.5)).read_all()
        assert soon(lambda: reader.open_queries == 0)
    reader.close()


def test_queries_at_once_are_limited(database: duckdb.DuckDBPyConnection) -> None:
    """A client at its limit is told so and what to do, and may go on when one of its queries has ended."""
    reader = Reader(database, Limits(at_once_each=2))
    with FlightSqlServer(reader) as server, connect(server) as client:
        held = [reader.query("SELECT i FROM t", (), Caller("ipv4:127.0.0.1")) for _ in range(2)]
        with pytest.raises(DbApiError, match="2 of your queries are open already"):
            fetch(client, "SELECT 1")
        reader.query("SELECT 1", (), Caller("somebody else")).close()
        held.pop().close()
        assert fetch(client, "SELECT 1 AS a").num_rows == 1
    reader.close()
    everybody = Reader(database, Limits(at_once=1))
    with everybody.query("SELECT i FROM t"), pytest.raises(TooManyQueries, match="ask again in a moment"):
        everybody.query("SELECT 1")
    everybody.close()


def test_a_result_has_a_largest_size(database: duckdb.DuckDBPyConnection) -> None:
    """A result that does not end is ended when it is too large, with what to do."""
    reader = Reader(database, Limits(max_bytes=8 * 1024 * 1024))
    with FlightSqlServer(reader) as server, connect(server) as client:
        with pytest.raises(DbApiError, match="larger than 8388608 bytes: ask for fewer rows"):
            fetch(client, "SELECT range FROM range(1000000000000)")
        assert reader.open_queries == 0
    reader.close()


def test_a_client_that_does_not_read_is_cut_off(database: duckdb.DuckDBPyConnection) -> None:
    """A client that stops taking a large result loses it, and what it held is free."""
    reader = Reader(database)
    with FlightSqlServer(reader, stall_s=0.3) as server:
        with flight.connect(f"grpc://127.0.0.1:{server.port}") as stalled:
            command = fs.StatementQuery("SELECT range, repeat('x', 2000) FROM range(1000000000000)")
            info = stalled.get_flight_info(flight.FlightDescriptor.for_command(fs.encode(command)))
            stream = stalled.do_get(info.endpoints[0].ticket)
            stream.read_chunk()
            assert soon(lambda: reader.open_queries == 0)
    reader.close()


def test_large_results_stream_in_small_messages(plain: flight.FlightClient, reader: Reader) -> None:
    """An endless result starts at once, in messages that every gRPC client accepts."""
    info = plain.get_flight_info(
        flight.FlightDescriptor.for_command(
            fs.encode(fs.StatementQuery("SELECT range, repeat('x', 2000) AS s FROM range(1000000000000)"))
        )
    )
    stream = plain.do_get(info.endpoints[0].ticket)
    sizes = [stream.read_chunk().data.nbytes for _ in range(50)]
    assert max(sizes) <= MAX_MESSAGE_BYTES
    stream.cancel()
    del stream
    gc.collect()
    assert soon(lambda: reader.open_queries == 0)


def test_closing_a_cursor_ends_its_transaction(client: dbapi.Connection, reader: Reader) -> None:
    """A cursor closed in the middle of a result leaves no transaction open on the server."""
    cursor = client.cursor()
    cursor.execute("SELECT a.i, b.s FROM t a, t b")
    assert cursor.fetchone() is not None
    assert reader.open_queries == 1
    cursor.close()
    assert soon(lambda: reader.open_queries == 0)


def test_results_stay_live_while_rows_are_written(
    client: dbapi.Connection, database: duckdb.DuckDBPyConnection
) -> None:
    """Every query sees what was committed before it, while the writer keeps writing."""
    writer = database.cursor()
    writer.execute("CREATE TABLE live (n BIGINT)")
    stop = threading.Event()
    committed = 0

    def write() -> None:
        nonlocal committed
        while not stop.is_set():
            writer.execute("INSERT INTO live VALUES (1)")
            committed += 1

    thread = threading.Thread(target=write)
    thread.start()
    try:
        for _ in range(30):
            before = committed
            assert fetch(client, "SELECT count(*) AS n FROM live")["n"][0].as_py() >= before
    finally:
        stop.set()
        thread.join()
    writer.execute("DROP TABLE live")


def test_many_clients_at_once(server: FlightSqlServer, reader: Reader) -> None:
    """Clients on many connections each get their own rows."""

    def one(number: int) -> list[int]:
        with connect(server) as client:
            return fetch(client, "SELECT i FROM t WHERE i = ?", (number,))["i"].to_pylist()

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(one, range(40))) == [[n] for n in range(40)]
    assert soon(lambda: reader.open_queries == 0)


def test_tokens_open_the_door(reader: Reader) -> None:
    """Where somebody decides on tokens, a call with one that is let in is served, and others are refused."""

    class Known:
        name = "anna"

        def check(self) -> None: ...

        def goes_with(self, leave: Callable[[], None]) -> None: ...

        def failed(self, error: CollectorError) -> None: ...

        def end(self) -> None: ...

    def admit(token: str | None, peer: str) -> Known:
        if token != "right":
            raise UnknownCaller("not that one", "somebody")
        return Known()

    with FlightSqlServer(reader, admit=admit) as server:
        key = DatabaseOptions.AUTHORIZATION_HEADER.value
        with connect(server, **{key: "Bearer right"}) as client:
            assert fetch(client, "SELECT 1 AS a")["a"].to_pylist() == [1]
        for options in ({}, {key: "Bearer wrong"}):
            with connect(server, **options) as client, pytest.raises(DbApiError, match="UNAUTHENTICATED"):
                fetch(client, "SELECT 1")


def test_a_port_in_use_is_told(reader: Reader, server: FlightSqlServer) -> None:
    """A second server on the same port, or on that of another program, says which address is taken."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        for port in (server.port, other.getsockname()[1]):
            with pytest.raises(AddressInUse, match=f"127.0.0.1:{port}"):
                FlightSqlServer(reader, port=port)


def test_a_server_stops_and_its_port_is_free(reader: Reader) -> None:
    """After a stop the same port can be taken again at once."""
    first = FlightSqlServer(reader)
    with connect(first) as client:
        fetch(client, "SELECT 1")
    port = first.port
    assert first.stop()
    with FlightSqlServer(reader, port=port) as second, connect(second) as client:
        assert fetch(client, "SELECT 2 AS a")["a"].to_pylist() == [2]


def test_stopping_does_not_wait_for_a_stalled_client(database: duckdb.DuckDBPyConnection) -> None:
    """A client that has stopped reading cannot hold up the server's end."""
    reader = Reader(database)
    server = FlightSqlServer(reader)
    with flight.connect(f"grpc://127.0.0.1:{server.port}") as plain:
        command = fs.StatementQuery("SELECT range, repeat('x', 2000) FROM range(1000000000000)")
        info = plain.get_flight_info(flight.FlightDescriptor.for_command(fs.encode(command)))
        stalled = plain.do_get(info.endpoints[0].ticket)
        stalled.read_chunk()
        reader.close()
        server.stop(timeout_s=0.5)  # this result has no end
        stalled.cancel()


def test_prepared_statements_are_bounded() -> None:
    """The least used handle goes when there are too many, and every one after its time without use."""
    now = [0.0]
    select = PreparedSelect("SELECT 1", pa.schema([]), pa.schema([]))
    kept = PreparedStatements(limit=2, expires_after=timedelta(hours=1), clock=lambda: now[0])
    first, second = kept.add(select), kept.add(select)
    kept.get(first)
    third = kept.add(select)
    assert len(kept) == 2
    with pytest.raises(SqlError, match="prepare it again"):
        kept.get(second)
    now[0] = 3000.0
    kept.get(first)
    now[0] = 5000.0
    kept.get(first)
    with pytest.raises(SqlError, match="has expired"):
        kept.get(third)
    kept.close(first)
    kept.close(first)
    with pytest.raises(SqlError):
        kept.get(first)


INTEGERS = st.integers(-(2**63), 2**63 - 1)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
SHAPES = st.fixed_dictionaries(
    {"shape": st.none() | st.lists(st.none() | INTEGERS, max_size=4), "dtype": st.none() | TEXTS}
)
ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "i": st.none() | INTEGERS,
            "d": st.none() | st.floats(allow_nan=False),
            "s": st.none() | TEXTS,
            "b": st.none() | st.booleans(),
            "x": st.none() | st.binary(max_size=40),
            "ts": st.none() | st.datetimes(timezones=st.just(UTC)),
            "l": st.none() | st.lists(st.none() | INTEGERS, max_size=5),
            "st": st.none() | st.lists(st.none() | SHAPES, max_size=3),
        }
    ),
    max_size=8,
)
EVERY_TYPE = pa.schema(
    [
        ("n", pa.int64()),
        ("i", pa.int64()),
        ("d", pa.float64()),
        ("s", pa.string()),
        ("b", pa.bool_()),
        ("x", pa.binary()),
        ("ts", pa.timestamp("us", "UTC")),
        ("l", pa.list_(pa.int64())),
        ("st", pa.list_(pa.struct([("shape", pa.list_(pa.int64())), ("dtype", pa.string())]))),
    ]
)


def test_rows_in_are_rows_out(server: FlightSqlServer, database: duckdb.DuckDBPyConnection) -> None:
    """Rows of every stored type, inserted as Arrow, come back equal through the ADBC driver."""
    writer = database.cursor()
    with connect(server) as client:

        @settings(max_examples=60, deadline=None)
        @given(rows=ROWS)
        def round_trip(rows: list[dict[str, object]]) -> None:
            sent = pa.Table.from_pylist([{"n": n, **row} for n, row in enumerate(rows)], EVERY_TYPE)
            writer.execute("DELETE FROM every_type")
            writer.register("incoming", sent)
            writer.execute("INSERT INTO every_type SELECT * FROM incoming")
            writer.unregister("incoming")
            came = fetch(client, "FROM every_type ORDER BY n")
            assert [field.name for field in came.schema] == EVERY_TYPE.names
            assert came.cast(EVERY_TYPE).equals(sent)

        round_trip()
