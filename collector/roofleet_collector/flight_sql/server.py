"""The Flight SQL server: what clients may call, and which part of the store answers.

A query is prepared when a client asks what it will give (GetFlightInfo), and run once, when the client reads
it (DoGet). The ticket between the two calls holds the statement and its parameters, so nothing has to be
kept, and a statement that is bound anew in the meantime does not change what a ticket reads.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
from pyarrow import flight

from roofleet_collector.errors import AddressInUse, SqlError, StatementRefused
from roofleet_collector.flight_sql.auth import Authorize, BearerTokens
from roofleet_collector.flight_sql.faults import flight_errors
from roofleet_collector.flight_sql.metadata import Reply, reply
from roofleet_collector.flight_sql.prepared import PreparedStatements, decode_parameters, encode_parameters
from roofleet_collector.store.catalogue import Catalogue
from roofleet_collector.store.reader import PreparedSelect, Reader
from roofleet_collector.store.rows import Rows
from roofleet_proto import flight_sql as fs

MAX_MESSAGE_BYTES = 2 * 1024 * 1024
"""Batches are cut to this size: many gRPC clients refuse a message of more than 4 MiB."""

READ_ONLY = "this door is read-only: rows come in through the agents; run SELECT statements here"


class FlightSqlServer(flight.FlightServerBase):  # type: ignore[misc]
    """Serves `reader` on `host` and `port` (0 takes a free one) as soon as it is made.

    `certificates` are (certificate, key) pairs in PEM, for TLS; `authorize` decides on bearer tokens. What
    belongs to the reader stays its owner's: close the reader first, so that no running query delays `stop`.

    Raises:
        AddressInUse: something else listens there.
        OSError: the address is not one of this machine.
    """

    def __init__(
        self,
        reader: Reader,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        certificates: Sequence[tuple[bytes, bytes]] = (),
        authorize: Authorize | None = None,
    ) -> None:
        _probe(host, port)
        self._reader = reader
        self._catalogue = Catalogue(reader)
        self._prepared = PreparedStatements()
        place = flight.Location.for_grpc_tls if certificates else flight.Location.for_grpc_tcp
        super().__init__(
            place(f"[{host}]" if ":" in host else host, port),
            tls_certificates=list(certificates) or None,
            middleware={"tokens": BearerTokens(authorize)} if authorize else None,
        )

    def stop(self, timeout_s: float = 5.0) -> bool:
        """Takes no more calls and waits for those under way; False if some are left after `timeout_s`.

        What is left is a client that has stopped reading; it ends with its connection or with the process.
        """
        stopper = threading.Thread(target=super().shutdown, name="roofleet-flight-stop", daemon=True)
        stopper.start()
        stopper.join(timeout_s)
        return not stopper.is_alive()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def get_flight_info(self, context: Any, descriptor: Any) -> Any:
        """What a command gives, and the ticket to read it with."""
        with flight_errors():
            schema, ticket = self._plan(fs.decode(descriptor.command))
            endpoint = flight.FlightEndpoint(flight.Ticket(fs.encode(ticket)), [])
            return flight.FlightInfo(schema, descriptor, [endpoint], -1, -1)

    def get_schema(self, context: Any, descriptor: Any) -> Any:
        """The columns a command gives."""
        with flight_errors():
            return flight.SchemaResult(self._plan(fs.decode(descriptor.command))[0])

    def do_get(self, context: Any, ticket: Any) -> Any:
        """The rows of a ticket."""
        with flight_errors():
            command = fs.decode(ticket.ticket)
            about = self._metadata(command)
            if about is not None:
                return flight.RecordBatchStream(about.rows())
            if isinstance(command, fs.PreparedQuery):
                command = self._plan(command)[1]
            if not isinstance(command, fs.StatementTicket):
                raise fs.CommandError(f"{type(command).__name__} is not something to read with DoGet")
            bound = fs.decode_bound(command.statement_handle)
            rows = self._reader.query(bound.query, decode_parameters(bound.parameters))
            return flight.GeneratorStream(rows.schema, _stream(rows))

    def do_put(self, context: Any, descriptor: Any, reader: Any, writer: Any) -> None:
        """Binds parameters to a prepared query. Everything that would write is refused."""
        with flight_errors():
            try:
                command = fs.decode(descriptor.command)
            except fs.CommandError as error:
                raise StatementRefused(f"{error}; {READ_ONLY}") from error
            if not isinstance(command, fs.PreparedQuery):
                raise StatementRefused(READ_ONLY)
            handle = command.prepared_statement_handle
            takes = self._prepared.get(handle).select.parameter_schema
            self._prepared.bind(handle, encode_parameters(takes, (chunk.data for chunk in reader)))
            writer.write(pa.py_buffer(fs.encode_bind_result(handle)))

    def do_action(self, context: Any, action: Any) -> Iterator[Any]:
        """Prepares a statement or closes one."""
        with flight_errors():
            match action.type:
                case fs.CREATE_PREPARED_STATEMENT:
                    return iter([pa.py_buffer(self._create(fs.decode(action.body.to_pybytes())))])
                case fs.CLOSE_PREPARED_STATEMENT:
                    command = fs.decode(action.body.to_pybytes())
                    if isinstance(command, fs.ClosePrepared):
                        self._prepared.close(command.prepared_statement_handle)
                    return iter([])
            raise fs.CommandError(f"the action {action.type!r} is not supported; {READ_ONLY}")

    def list_actions(self, context: Any) -> list[tuple[str, str]]:
        """The actions of `do_action`."""
        return [
            (fs.CREATE_PREPARED_STATEMENT, "Prepares a query."),
            (fs.CLOSE_PREPARED_STATEMENT, "Forgets a prepared query."),
        ]

    def list_flights(self, context: Any, criteria: Any) -> Iterator[Any]:
        """None: what there is to read is asked for in SQL."""
        return iter([])

    def _create(self, command: fs.Command) -> bytes:
        if not isinstance(command, fs.CreatePrepared):
            raise fs.CommandError(f"{type(command).__name__} does not prepare a statement")
        select = self._reader.prepare(command.query)
        handle = self._prepared.add(select)
        return fs.encode(fs.PreparedResult(handle, _ipc(select.schema), _ipc(select.parameter_schema)))

    def _metadata(self, command: fs.Command) -> Reply | None:
        return reply(command, self._catalogue)

    def _plan(self, command: fs.Command) -> tuple[pa.Schema, fs.Command]:
        """The columns that a command gives, and the command that its ticket holds."""
        about = self._metadata(command)
        if about is not None:
            return about.schema, command
        match command:
            case fs.StatementQuery(query):
                return self._reader.prepare(query, ()).schema, _ticket(query)
            case fs.PreparedQuery(handle):
                prepared = self._prepared.get(handle)
                select, parameters = prepared.select, prepared.parameters
                return self._bound_schema(select, parameters), _ticket(select.sql, parameters)
            case fs.StatementUpdate() | fs.PreparedUpdate():
                raise StatementRefused(READ_ONLY)
        raise fs.CommandError(f"{type(command).__name__} gives no rows")

    def _bound_schema(self, select: PreparedSelect, parameters: bytes) -> pa.Schema:
        if not select.parameter_schema.names:
            if parameters:
                raise SqlError("the statement takes no parameters")
            return select.schema
        # The type of a column may depend on the type of a parameter, so it is looked at again.
        return self._reader.prepare(select.sql, decode_parameters(parameters)).schema


def _ticket(query: str, parameters: bytes = b"") -> fs.StatementTicket:
    return fs.StatementTicket(fs.encode_bound(fs.BoundQuery(query, parameters)))


def _stream(rows: Rows) -> Iterator[pa.RecordBatch]:
    with flight_errors(), rows:
        for batch in rows:
            yield from _cut(batch)


def _cut(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    if batch.nbytes <= MAX_MESSAGE_BYTES or batch.num_rows < 2:
        yield batch
    else:
        half = batch.num_rows // 2
        yield from _cut(batch.slice(0, half))
        yield from _cut(batch.slice(half))


def _ipc(schema: pa.Schema) -> bytes:
    return bytes(schema.serialize())


def _probe(host: str, port: int) -> None:
    """gRPC says only "did not start", or shares the port, where something else listens already."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        raise AddressInUse(error.errno, f"{host} is no address of this machine ({error.strerror})") from error
    family, kind, protocol, _, address = found[0]
    with socket.socket(family, kind, protocol) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a port that was just left is free
        try:
            probe.bind(address)
        except OSError as error:
            text = f"{host}:{port} cannot be listened on ({error.strerror}): choose another port"
            raise AddressInUse(error.errno, text) from error
