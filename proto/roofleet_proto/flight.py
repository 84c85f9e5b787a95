"""Arrow Flight's messages, and rows as the messages of a Flight stream: what a server of it sends and takes.

pyarrow has a Flight server of its own. It decodes what clients send before anybody can say how large it may
get, does not tell when a client has gone, and has no status for a wrong argument or a limit that is reached.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Any

import pyarrow as pa
from google.protobuf.message import DecodeError

from roofleet_proto.arrow_ipc import CONTINUATION
from roofleet_proto.errors import MalformedMessage
from roofleet_proto.wire import flight_pb2 as wire

SERVICE = "arrow.flight.protocol.FlightService"
COMMAND = 2
"""The kind of a descriptor that holds a command, not a path."""

_LENGTHS = struct.Struct("<II")
_BODY_TAG = b"\xc2\x3e"
"""Of `data_body`: the number of the field, 1000, and that bytes follow."""


def decode_descriptor(data: bytes) -> bytes:
    """The command in a FlightDescriptor; MalformedMessage if it holds none."""
    return _command(_parse(wire.FlightDescriptor, data))


def decode_ticket(data: bytes) -> bytes:
    """What a Ticket holds."""
    return bytes(_parse(wire.Ticket, data).ticket)


def decode_action(data: bytes) -> tuple[str, bytes]:
    """The name and the body of an Action."""
    action = _parse(wire.Action, data)
    return str(action.type), bytes(action.body)


def encode_action_type(name: str, description: str) -> bytes:
    """An action that may be asked for."""
    return bytes(wire.ActionType(type=name, description=description).SerializeToString())


def encode_result(body: bytes) -> bytes:
    """What an action gives."""
    return bytes(wire.Result(body=body).SerializeToString())


def encode_schema_result(schema: pa.Schema) -> bytes:
    """The answer of GetSchema."""
    return bytes(wire.SchemaResult(schema=schema.serialize().to_pybytes()).SerializeToString())


def encode_info(schema: pa.Schema, command: bytes, ticket: bytes) -> bytes:
    """The answer of GetFlightInfo: what a command gives, and one ticket for all of its rows."""
    message = wire.FlightInfo(
        schema=schema.serialize().to_pybytes(),
        flight_descriptor=wire.FlightDescriptor(type=COMMAND, cmd=command),
        endpoint=[wire.FlightEndpoint(ticket=wire.Ticket(ticket=ticket))],
        total_records=-1,
        total_bytes=-1,
    )
    return bytes(message.SerializeToString())


def encode_put_result(metadata: bytes) -> bytes:
    """What DoPut answers to what it was sent."""
    return bytes(wire.PutResult(app_metadata=metadata).SerializeToString())


def encode_schema(schema: pa.Schema) -> bytes:
    """The first message of a stream of rows."""
    return _encode_data(schema.serialize())


def encode_rows(batch: pa.RecordBatch) -> bytes:
    """A later message of a stream of rows. Dictionaries are not sent: see `store.plain`."""
    return _encode_data(batch.serialize())


def decode_put(messages: Iterable[bytes], max_bytes: int) -> tuple[bytes, bytes]:
    """The command that DoPut was sent, and its rows as one Arrow IPC stream that nobody has looked into yet.

    Raises:
        MalformedMessage: there is no command, or the messages are larger than `max_bytes`.
    """
    parts: list[bytes] = []
    command, size = None, 0
    for data in messages:
        message = _parse(wire.FlightData, data)
        if command is None:
            command = _command(message.flight_descriptor)
        size += len(data)
        if size > max_bytes:
            raise MalformedMessage(f"what was sent is larger than {max_bytes} bytes")
        if message.data_header:
            header = bytes(message.data_header)
            header += b"\0" * (-len(header) % 8)
            parts += (_LENGTHS.pack(CONTINUATION, len(header)), header, bytes(message.data_body))
    if command is None:
        raise MalformedMessage("nothing was sent")
    return command, b"".join((*parts, _LENGTHS.pack(CONTINUATION, 0)))


def _encode_data(encapsulated: pa.Buffer) -> bytes:
    # metadata behind two numbers, and then the body, which is copied once
    _, length = _LENGTHS.unpack_from(encapsulated, 0)
    header = encapsulated.slice(_LENGTHS.size, length).to_pybytes()
    body = memoryview(encapsulated)[_LENGTHS.size + length :]
    fields = wire.FlightData(data_header=header).SerializeToString()
    return b"".join((fields, _BODY_TAG, _varint(len(body)), body))


def _varint(number: int) -> bytes:
    parts = bytearray()
    while number > 127:
        parts.append(number & 127 | 128)
        number >>= 7
    parts.append(number)
    return bytes(parts)


def _command(descriptor: Any) -> bytes:
    if descriptor.type != COMMAND:
        raise MalformedMessage("not a Flight SQL command: the descriptor holds a path")
    return bytes(descriptor.cmd)


def _parse(kind: Any, data: bytes) -> Any:
    message = kind()
    try:
        message.ParseFromString(data)
    except DecodeError as error:
        raise MalformedMessage(f"malformed {message.DESCRIPTOR.name} message of {len(data)} bytes") from error
    return message
