"""The Flight SQL server: what clients may call, and which part of the store answers.

A query is prepared when a client asks what it will give (GetFlightInfo), and run once, when the client reads
it (DoGet). The ticket between the two calls holds the statement and its parameters, so nothing has to be
kept, and a statement that is bound anew in the meantime does not change what a ticket reads.
"""

from __future__ import annotations

import contextlib
import itertools
import socket
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Self

import grpc
import pyarrow as pa

from roofleet_collector.errors import AddressInUse, CollectorError, SqlError, StatementRefused
from roofleet_collector.flight_sql.auth import Admit, Asking, admitted
from roofleet_collector.flight_sql.faults import status_of
from roofleet_collector.flight_sql.metadata import Reply, reply
from roofleet_collector.flight_sql.prepared import PreparedStatements, decode_parameters, fitting_parameters
from roofleet_collector.store.caller import Caller
from roofleet_collector.store.catalogue import Catalogue
from roofleet_collector.store.reader import PreparedSelect, Reader
from roofleet_collector.store.watchdog import Watchdog
from roofleet_proto import flight
from roofleet_proto import flight_sql as fs

MAX_MESSAGE_BYTES = 2 * 1024 * 1024
"""Batches are cut to this size: many gRPC clients refuse a message of more than 4 MiB."""

MAX_REQUEST_BYTES = 4 * 1024 * 1024
"""Largest message that is taken: a ticket with a statement and its parameters is smaller."""

THREADS, WAITING = 64, 64
"""How many calls are served at once, and how many more may wait. An open result takes a thread; there are
fewer of those, see Limits.at_once."""

READ_ONLY = "this door is read-only: rows come in through the agents; run SELECT statements here"

Messages = Generator[bytes, None, None]
Answer = Callable[[Any, Caller], Messages]
"""A request or an iterator of them, and who calls, to the messages that are sent back."""


class FlightSqlServer:
    """Serves `reader` on `host` and `port` (0 takes a free one) as soon as it is made.

    `credentials` are gRPC's for a server with TLS; `admit` decides on bearer tokens. A
    client that does not take what it is sent is cut off after `stall_s`. What belongs to the reader stays its
    owner's: close the reader first, so that no running query delays `stop`.

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
        credentials: Any | None = None,
        admit: Admit | None = None,
        stall_s: float = 60,
    ) -> None:
        _probe(host, port)
        self._reader = reader
        self._catalogue = Catalogue(reader)
        self._prepared = PreparedStatements()
        self._admit, self._stall_s = admit, stall_s
        self._watchdog = Watchdog()
        self._server = grpc.server(
            ThreadPoolExecutor(THREADS, thread_name_prefix="roofleet-sql"),
            maximum_concurrent_rpcs=THREADS + WAITING,
            options=[
                ("grpc.max_receive_message_length", MAX_REQUEST_BYTES),
                ("grpc.so_reuseport", 0),  # a second server on the port must fail, not share it
                ("grpc.keepalive_time_ms", 30_000),  # a client that was cut off without a word has left
                ("grpc.keepalive_timeout_ms", 10_000),
            ],
        )
        methods = {
            "GetFlightInfo": grpc.unary_unary_rpc_method_handler(self._one(self._get_flight_info)),
            "GetSchema": grpc.unary_unary_rpc_method_handler(self._one(self._get_schema)),
            "DoGet": grpc.unary_stream_rpc_method_handler(self._many(self._do_get)),
            "DoPut": grpc.stream_stream_rpc_method_handler(self._many(self._do_put)),
            "DoAction": grpc.unary_stream_rpc_method_handler(self._many(self._do_action)),
            "ListActions": grpc.unary_stream_rpc_method_handler(self._many(self._list_actions)),
            "ListFlights": grpc.unary_stream_rpc_method_handler(self._many(self._list_flights)),
        }
        self._server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(flight.SERVICE, methods)])
        place = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        try:
            if credentials is not None:
                self.port = self._server.add_secure_port(place, credentials)
            else:
                self.port = self._server.add_insecure_port(place)
        except RuntimeError as error:
            raise AddressInUse(f"{host}:{port} cannot be listened on: choose another port") from error
        self._server.start()

    def stop(self, timeout_s: float = 5.0) -> bool:
        """Takes no more calls and waits for those under way; those left after `timeout_s` are ended.

        False if one of them has not ended by then: the engine does not always let itself be interrupted.
        """
        stopped = bool(self._server.stop(timeout_s).wait(timeout_s + 1.0))
        self._watchdog.close()
        return stopped

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _many(self, answer: Answer) -> Any:
        """A method that streams: checked, followed while the client is there, and cut off if it stalls."""

        def handle(request: Any, context: Any) -> Iterator[bytes]:
            peer = _address(context.peer())
            try:
                with self._asking(context.invocation_metadata(), peer) as asking:
                    caller = Caller((asking and asking.name) or peer)
                    context.add_callback(caller.leave)
                    if asking is not None:
                        asking.goes_with(caller.leave)
                    yield from self._answered(answer(request, caller), asking, context)
            except Exception as error:
                status = status_of(error)
            else:
                return
            context.abort(*status)

        return handle

    @contextlib.contextmanager
    def _asking(self, headers: Any, peer: str) -> Iterator[Asking | None]:
        """Who asks, until the block ends; CallRefused if they may not."""
        if self._admit is None:
            yield None
            return
        asking = admitted(self._admit, headers, peer)
        try:
            yield asking
        except CollectorError as error:
            asking.failed(error)
            raise
        finally:
            asking.end()

    def _answered(self, answer: Messages, asking: Asking | None, context: Any) -> Iterator[bytes]:
        with contextlib.closing(answer) as messages:
            for message in messages:
                if asking is not None:
                    asking.check()  # a token may be revoked while its rows are read
                alarm = self._watchdog.arm(self._stall_s, context.cancel)
                try:
                    yield message
                finally:
                    self._watchdog.disarm(alarm)

    def _one(self, answer: Answer) -> Any:
        """The same for a method that gives one message."""
        stream = self._many(answer)

        def handle(request: bytes, context: Any) -> bytes:
            (message,) = stream(request, context)
            return bytes(message)

        return handle

    def _get_flight_info(self, data: bytes, caller: Caller) -> Messages:
        """What a command gives, and the ticket to read it with."""
        command = flight.decode_descriptor(data)
        schema, ticket = self._plan(fs.decode(command), caller)
        yield flight.encode_info(schema, command, fs.encode(ticket))

    def _get_schema(self, data: bytes, caller: Caller) -> Messages:
        """The columns a command gives."""
        schema, _ = self._plan(fs.decode(flight.decode_descriptor(data)), caller)
        yield flight.encode_schema_result(schema)

    def _do_get(self, data: bytes, caller: Caller) -> Messages:
        """The rows of a ticket."""
        command = fs.decode(flight.decode_ticket(data))
        about = self._metadata(command)
        if about is not None:
            table = about.rows()
            yield flight.encode_schema(table.schema)
            for batch in table.to_batches():
                yield from map(flight.encode_rows, _cut(batch))
            return
        if isinstance(command, fs.PreparedQuery):
            command = self._plan(command, caller)[1]
        if not isinstance(command, fs.StatementTicket):
            raise fs.CommandError(f"{type(command).__name__} is not something to read with DoGet")
        bound = fs.decode_bound(command.statement_handle)
        with self._reader.query(bound.query, decode_parameters(bound.parameters), caller) as rows:
            yield flight.encode_schema(rows.schema)
            for batch in rows:
                yield from map(flight.encode_rows, _cut(batch))

    def _do_put(self, requests: Iterator[bytes], caller: Caller) -> Messages:
        """Binds parameters to a prepared query. Everything that would write is refused."""
        first = next(requests, b"")
        handle, takes = self._may_bind(first)
        _, rows = flight.decode_put(itertools.chain([first], requests), MAX_REQUEST_BYTES)
        self._prepared.bind(handle, fitting_parameters(takes, rows))
        yield flight.encode_put_result(fs.encode_bind_result(handle))

    def _may_bind(self, first: bytes) -> tuple[bytes, pa.Schema]:
        """The handle that DoPut's first message is for, and the parameters that its statement takes."""
        try:
            command = fs.decode(flight.decode_put([first], MAX_REQUEST_BYTES)[0])
        except fs.CommandError as error:
            raise StatementRefused(f"{error}; {READ_ONLY}") from error
        if not isinstance(command, fs.PreparedQuery):
            raise StatementRefused(READ_ONLY)
        handle = command.prepared_statement_handle
        return handle, self._prepared.get(handle).select.parameter_schema

    def _do_action(self, data: bytes, caller: Caller) -> Messages:
        """Prepares a statement or closes one."""
        name, body = flight.decode_action(data)
        if name == fs.CREATE_PREPARED_STATEMENT:
            yield flight.encode_result(self._create(fs.decode(body), caller))
        elif name == fs.CLOSE_PREPARED_STATEMENT:
            command = fs.decode(body)
            if isinstance(command, fs.ClosePrepared):
                self._prepared.close(command.prepared_statement_handle)
        else:
            raise fs.CommandError(f"the action {name!r} is not supported; {READ_ONLY}")

    def _list_flights(self, data: bytes, caller: Caller) -> Messages:
        """None: what there is to read is asked for in SQL."""
        yield from ()

    def _list_actions(self, data: bytes, caller: Caller) -> Messages:
        """The actions of `_do_action`."""
        yield flight.encode_action_type(fs.CREATE_PREPARED_STATEMENT, "Prepares a query.")
        yield flight.encode_action_type(fs.CLOSE_PREPARED_STATEMENT, "Forgets a prepared query.")

    def _create(self, command: fs.Command, caller: Caller) -> bytes:
        if not isinstance(command, fs.CreatePrepared):
            raise fs.CommandError(f"{type(command).__name__} does not prepare a statement")
        select = self._reader.prepare(command.query, caller=caller)
        handle = self._prepared.add(select)
        return fs.encode(fs.PreparedResult(handle, _ipc(select.schema), _ipc(select.parameter_schema)))

    def _metadata(self, command: fs.Command) -> Reply | None:
        return reply(command, self._catalogue)

    def _plan(self, command: fs.Command, caller: Caller) -> tuple[pa.Schema, fs.Command]:
        """The columns that a command gives, and the command that its ticket holds."""
        about = self._metadata(command)
        if about is not None:
            return about.schema, command
        match command:
            case fs.StatementQuery(query):
                return self._reader.prepare(query, (), caller).schema, _ticket(query)
            case fs.PreparedQuery(handle):
                prepared = self._prepared.get(handle)
                select, parameters = prepared.select, prepared.parameters
                return self._bound_schema(select, parameters, caller), _ticket(select.sql, parameters)
            case fs.StatementUpdate() | fs.PreparedUpdate():
                raise StatementRefused(READ_ONLY)
        raise fs.CommandError(f"{type(command).__name__} gives no rows")

    def _bound_schema(self, select: PreparedSelect, parameters: bytes, caller: Caller) -> pa.Schema:
        if not select.parameter_schema.names:
            if parameters:
                raise SqlError("the statement takes no parameters")
            return select.schema
        # The type of a column may depend on the type of a parameter, so it is looked at again.
        return self._reader.prepare(select.sql, decode_parameters(parameters), caller).schema


def _ticket(query: str, parameters: bytes = b"") -> fs.StatementTicket:
    return fs.StatementTicket(fs.encode_bound(fs.BoundQuery(query, parameters)))


def _cut(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    if batch.nbytes <= MAX_MESSAGE_BYTES or batch.num_rows < 2:
        yield batch
    else:
        half = batch.num_rows // 2
        yield from _cut(batch.slice(0, half))
        yield from _cut(batch.slice(half))


def _ipc(schema: pa.Schema) -> bytes:
    return bytes(schema.serialize())


def _address(peer: str) -> str:
    """A client's address without its port: `ipv4:127.0.0.1:5000`, `ipv6:%5B::1%5D:5000`."""
    return peer.rpartition(":")[0] if peer.startswith("ip") else peer


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
