"""Flight SQL commands as plain records, and the one place that turns them into bytes and back.

Every command travels as a `google.protobuf.Any` whose type name is
`type.googleapis.com/arrow.flight.protocol.sql.<message>`. The messages themselves live in a package of our
own (see `wire/flight_sql.proto`), so the type name is written and matched here, by hand.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, TypeVar, cast

from google.protobuf import any_pb2
from google.protobuf.message import DecodeError, Message

from roofleet_proto.wire import flight_sql_pb2 as wire

_M = TypeVar("_M", bound=Message)

TYPE_PREFIX = "type.googleapis.com/arrow.flight.protocol.sql."

CREATE_PREPARED_STATEMENT = "CreatePreparedStatement"
CLOSE_PREPARED_STATEMENT = "ClosePreparedStatement"


class CommandError(ValueError):
    """The bytes are not a Flight SQL command that this side knows; the message says what they are."""


class Command:
    """Anything that travels wrapped in an Any: a command, a ticket, an action's body or its result."""


@dataclass(frozen=True)
class StatementQuery(Command):
    """Run `query` and read its rows."""

    query: str


@dataclass(frozen=True)
class StatementUpdate(Command):
    """Run `query` for its effect."""

    query: str


@dataclass(frozen=True)
class PreparedQuery(Command):
    """Run a prepared query, or bind its parameters."""

    prepared_statement_handle: bytes


@dataclass(frozen=True)
class PreparedUpdate(Command):
    """Run a prepared statement for its effect."""

    prepared_statement_handle: bytes


@dataclass(frozen=True)
class StatementTicket(Command):
    """Read the rows that `statement_handle` names."""

    statement_handle: bytes


@dataclass(frozen=True)
class CreatePrepared(Command):
    """Prepare `query`."""

    query: str


@dataclass(frozen=True)
class PreparedResult(Command):
    """A prepared statement; the schemas are Arrow IPC schema messages."""

    prepared_statement_handle: bytes
    dataset_schema: bytes
    parameter_schema: bytes


@dataclass(frozen=True)
class ClosePrepared(Command):
    """Forget a prepared statement."""

    prepared_statement_handle: bytes


@dataclass(frozen=True)
class GetCatalogs(Command):
    """List the catalogs."""


@dataclass(frozen=True)
class GetDbSchemas(Command):
    """List the schemas; patterns are those of SQL's LIKE, None does not filter."""

    catalog: str | None = None
    db_schema_filter_pattern: str | None = None


@dataclass(frozen=True)
class GetTables(Command):
    """List tables and views; patterns are those of SQL's LIKE, None and () do not filter."""

    catalog: str | None = None
    db_schema_filter_pattern: str | None = None
    table_name_filter_pattern: str | None = None
    table_types: tuple[str, ...] = ()
    include_schema: bool = False


@dataclass(frozen=True)
class GetTableTypes(Command):
    """List the kinds of table."""


@dataclass(frozen=True)
class GetPrimaryKeys(Command):
    """List the primary key columns of `table`."""

    table: str
    catalog: str | None = None
    db_schema: str | None = None


@dataclass(frozen=True)
class GetExportedKeys(Command):
    """List the foreign keys that point at `table`."""

    table: str
    catalog: str | None = None
    db_schema: str | None = None


@dataclass(frozen=True)
class GetImportedKeys(Command):
    """List the foreign keys that `table` holds."""

    table: str
    catalog: str | None = None
    db_schema: str | None = None


@dataclass(frozen=True)
class GetCrossReference(Command):
    """List the foreign keys of `fk_table` that point at `pk_table`."""

    pk_table: str
    fk_table: str
    pk_catalog: str | None = None
    pk_db_schema: str | None = None
    fk_catalog: str | None = None
    fk_db_schema: str | None = None


@dataclass(frozen=True)
class GetSqlInfo(Command):
    """Ask for facts about the server by number; () asks for all."""

    info: tuple[int, ...] = ()


@dataclass(frozen=True)
class BoundQuery:
    """What our own statement handles hold; `parameters` is an Arrow IPC stream of one row, or empty."""

    query: str
    parameters: bytes = b""


# The record and the message have the same field names, which is what lets one loop serve them all.
_MESSAGES: dict[type[Command], type[Message]] = {
    StatementQuery: wire.CommandStatementQuery,
    StatementUpdate: wire.CommandStatementUpdate,
    PreparedQuery: wire.CommandPreparedStatementQuery,
    PreparedUpdate: wire.CommandPreparedStatementUpdate,
    StatementTicket: wire.TicketStatementQuery,
    CreatePrepared: wire.ActionCreatePreparedStatementRequest,
    PreparedResult: wire.ActionCreatePreparedStatementResult,
    ClosePrepared: wire.ActionClosePreparedStatementRequest,
    GetCatalogs: wire.CommandGetCatalogs,
    GetDbSchemas: wire.CommandGetDbSchemas,
    GetTables: wire.CommandGetTables,
    GetTableTypes: wire.CommandGetTableTypes,
    GetPrimaryKeys: wire.CommandGetPrimaryKeys,
    GetExportedKeys: wire.CommandGetExportedKeys,
    GetImportedKeys: wire.CommandGetImportedKeys,
    GetCrossReference: wire.CommandGetCrossReference,
    GetSqlInfo: wire.CommandGetSqlInfo,
}
_BY_NAME = {message.DESCRIPTOR.name: record for record, message in _MESSAGES.items()}


def encode(command: Command) -> bytes:
    """The command as a serialized `google.protobuf.Any`."""
    message = _to_message(_MESSAGES[type(command)], command)
    packed = any_pb2.Any(type_url=TYPE_PREFIX + message.DESCRIPTOR.name, value=message.SerializeToString())
    return bytes(packed.SerializeToString())


def decode(data: bytes) -> Command:
    """The command in a serialized `google.protobuf.Any`.

    Raises:
        CommandError: the bytes are no Flight SQL command, or one that is not known here.
    """
    packed = _parse(any_pb2.Any, data)
    if not packed.type_url.startswith(TYPE_PREFIX):
        raise CommandError(f"not a Flight SQL command: type {packed.type_url!r}, expected {TYPE_PREFIX}...")
    name = packed.type_url.removeprefix(TYPE_PREFIX)
    record = _BY_NAME.get(name)
    if record is None:
        raise CommandError(f"the Flight SQL command {name} is not supported here")
    return cast(Command, _from_message(record, _parse(_MESSAGES[record], packed.value)))


def encode_bound(query: BoundQuery) -> bytes:
    """The contents of a statement handle."""
    return bytes(_to_message(wire.BoundQuery, query).SerializeToString())


def decode_bound(data: bytes) -> BoundQuery:
    """The query in a statement handle.

    Raises:
        CommandError: the handle is not one of ours.
    """
    return cast(BoundQuery, _from_message(BoundQuery, _parse(wire.BoundQuery, data)))


def encode_bind_result(handle: bytes) -> bytes:
    """The answer to a client that bound parameters: the handle to go on with (not wrapped in an Any)."""
    return bytes(wire.DoPutPreparedStatementResult(prepared_statement_handle=handle).SerializeToString())


def _parse(kind: Callable[[], _M], data: bytes) -> _M:
    message = kind()
    try:
        message.ParseFromString(data)
    except DecodeError as error:
        raise CommandError(f"malformed {message.DESCRIPTOR.name} message of {len(data)} bytes") from error
    return message


def _to_message(kind: type[Message], record: Any) -> Message:
    values = {field.name: getattr(record, field.name) for field in fields(record)}
    return kind(**{name: value for name, value in values.items() if value is not None})


def _from_message(record: type[Any], message: Message) -> Any:
    values = {}
    for field in fields(record):
        descriptor = message.DESCRIPTOR.fields_by_name[field.name]
        value = getattr(message, field.name)
        if descriptor.has_presence and not message.HasField(field.name):
            value = None
        elif not isinstance(value, str | bytes | bool | int):
            value = tuple(value)
        values[field.name] = value
    return record(**values)
