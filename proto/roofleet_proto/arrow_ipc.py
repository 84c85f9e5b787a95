"""Arrow from strangers: one IPC stream, bounded before a byte of it is decoded, and validated whole.

Arrow's own reader believes what a message says of itself. It decompresses whatever length is declared (231 kB
became 5 GB), takes a field's name as often as the schema points to it, and leaves offsets unchecked, so that
the first look at a value may read memory that is not the message's. So the messages' metadata, which are
flatbuffers, are walked here first: what they declare is counted, and types in which a few bytes stand for
many are refused. Only then Arrow decodes, and checks every value.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import lru_cache

import pyarrow as pa

from roofleet_proto.errors import MalformedMessage

CONTINUATION = 0xFFFFFFFF
"""Stands before every message; with a length of 0 behind it, it is the end of the stream."""

ARRAY_BYTES, VALUE_BYTES = 512, 8
"""What an array costs beside its data, and what a value counts for at least: a column of nulls or flags has
next to no data, and takes room where it is used."""

MAX_SCHEMA_BYTES = 1024 * 1024
"""Largest size of a schema, unfolded: a flatbuffer may point to one name or one field any number of times."""

REMEMBERED_BYTES = 16 * 1024
"""Schemas up to this size are walked once and remembered."""

MAX_DEPTH = 16
"""Lists of structs of lists ... so deep."""

SCHEMA, RECORD_BATCH = 1, 3  # kinds of message
VERSION_5, LITTLE_ENDIAN = 4, 0
STRUCT, LISTS = 13, (12, 16, 17, 21)
TYPES = frozenset({1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 15, 16, 17, 18, 19, 20, 21})
"""Numbers of the types that are taken, from Arrow's Schema.fbs: all but unions, run-ends and views."""

_LENGTHS, _NODE = struct.Struct("<II"), struct.Struct("<qq")
_LONG, _OFFSET, _BACK, _SHORT = (
    struct.Struct("<q"),
    struct.Struct("<I"),
    struct.Struct("<i"),
    struct.Struct("<H"),
)


def read_stream(data: bytes, *, max_bytes: int) -> pa.Table:
    """The rows of one IPC stream.

    `max_bytes` bounds what they decode to: the buffers' lengths once decompressed (8 bytes a value at least),
    and 512 bytes for each array and batch. It is checked from what the messages declare, before anything is
    decoded.

    Raises:
        MalformedMessage: the bytes are no stream, one that was cut before its end, or one with more behind
            it; they would decode to more than `max_bytes`; a column has a type that is not taken; or the rows
            are not valid.
    """
    try:
        _check_messages(memoryview(data), max_bytes)
        with pa.ipc.open_stream(pa.py_buffer(data)) as reader:
            rows = reader.read_all()
        rows.validate(full=True)
    except MalformedMessage:
        raise
    except (pa.ArrowException, OSError, ValueError, struct.error) as error:
        raise MalformedMessage(f"no Arrow IPC stream: {error}") from error
    return rows


def _check_messages(data: memoryview, max_bytes: int) -> None:
    at, seen, decoded = 0, 0, 0
    while True:
        if len(data) - at < _LENGTHS.size:
            raise MalformedMessage("the Arrow IPC stream is cut before its end")
        mark, length = _LENGTHS.unpack_from(data, at)
        if mark != CONTINUATION:
            raise MalformedMessage("no Arrow IPC stream, or one from before Arrow 0.15")
        at += _LENGTHS.size
        if length == 0:
            break
        head = data[at : at + length]
        at += length
        if seen:
            header = _header(head, RECORD_BATCH)
            body_bytes = header.long(3)
        elif length <= REMEMBERED_BYTES:
            body_bytes = _remembered_schema(bytes(head))
        else:
            body_bytes = _schema(head)
        if not 0 <= body_bytes <= len(data) - at:
            raise MalformedMessage("the Arrow IPC stream is cut before its end")
        if seen:
            decoded += _decoded_bytes(header.table(2), data[at : at + body_bytes])
            if decoded > max_bytes:
                raise MalformedMessage(f"the rows decode to more than {max_bytes} bytes: send fewer at once")
        at, seen = at + body_bytes, seen + 1
    if not seen:
        raise MalformedMessage("the Arrow IPC stream has no schema")
    if at != len(data):
        raise MalformedMessage(f"{len(data) - at} bytes follow the end of the Arrow IPC stream")


def _header(head: memoryview, kind: int) -> _Table:
    """The root of a message's metadata, if it is of that kind."""
    header = _Flatbuffer(head).root()
    if header.byte(1) != kind or header.short(0) != VERSION_5:
        raise MalformedMessage(
            f"a message of the stream is of kind {header.byte(1)} and version {header.short(0) + 1}; "
            "taken are a schema and then record batches, of version 5"
        )
    header.metadata(4)
    return header


def _schema(head: memoryview) -> int:
    """Checks the message that a stream begins with; the bytes of its body."""
    header = _header(head, SCHEMA)
    _check_schema(header.table(2))
    return header.long(3)


@lru_cache(64)
def _remembered_schema(head: bytes) -> int:
    """The same, remembered: agents send the same few schemas with every batch."""
    return _schema(memoryview(head))


def _check_schema(schema: _Table) -> None:
    if schema.short(0) != LITTLE_ENDIAN:
        raise MalformedMessage("the Arrow IPC stream is big-endian")
    schema.metadata(2)
    for field in schema.tables(1):
        _check_field(field, 1)


def _check_field(field: _Table, depth: int) -> None:
    name, kind = field.text(0), field.byte(2)
    if depth > MAX_DEPTH:
        raise MalformedMessage(f"a column is nested more than {MAX_DEPTH} deep")
    keys = field.metadata(6)
    if kind not in TYPES or field.has(4) or any(key.startswith(b"ARROW:extension") for key in keys):
        raise MalformedMessage(
            f"column {name.decode(errors='replace')[:80]!r} is a dictionary, a union, a view, an extension "
            "or run-end encoded: send plain values"
        )
    children = field.tables(5)
    if children and kind != STRUCT and kind not in LISTS:
        raise MalformedMessage("a column of a plain type has parts")
    for child in children:
        _check_field(child, depth + 1)


def _decoded_bytes(batch: _Table, body: memoryview) -> int:
    """What a record batch takes once decompressed, from what it declares."""
    nodes = [length for length, _ in batch.pairs(1)]
    if min(nodes, default=0) < 0 or batch.long(0) < 0:
        raise MalformedMessage("a record batch has a negative length")
    compressed, total = batch.has(3), 0
    for start, length in batch.pairs(2):
        if start < 0 or length < 0 or start + length > len(body):
            raise MalformedMessage("a buffer lies outside of its message")
        if compressed and length:
            # The uncompressed length stands before the data; -1 says that they were left as they are.
            declared = _LONG.unpack_from(body, start)[0] if length >= _LONG.size else -2
            if declared < -1:
                raise MalformedMessage("a compressed buffer does not say its length")
            length = length - _LONG.size if declared == -1 else declared
        total += length
    values = sum(nodes, start=batch.long(0))
    return int(max(total, values * VALUE_BYTES) + (len(nodes) + 1) * ARRAY_BYTES)


class _Flatbuffer:
    """One message's metadata. Whatever is read from it counts, so that no circle of offsets is endless."""

    def __init__(self, data: memoryview) -> None:
        self.data = data
        self._counted = 0

    def root(self) -> _Table:
        return self.table_at(0)

    def table_at(self, at: int) -> _Table:
        self.count(64)
        start = at + self.number(_OFFSET, at)
        table = start - self.number(_BACK, start)
        places = self.number(_SHORT, table) // _SHORT.size
        return _Table(self, start, table, places)

    def number(self, kind: struct.Struct, at: int) -> int:
        # a negative place would count from the end
        if not 0 <= at <= len(self.data) - kind.size:
            raise MalformedMessage("the metadata of an Arrow IPC message point outside of it")
        return int(kind.unpack_from(self.data, at)[0])

    def vector_at(self, at: int, item_bytes: int) -> tuple[int, int]:
        """Where the items of a vector begin, and how many there are."""
        start = at + self.number(_OFFSET, at)
        length = self.number(_OFFSET, start)
        first = start + _OFFSET.size
        if first + length * item_bytes > len(self.data):
            raise MalformedMessage("the metadata of an Arrow IPC message point outside of it")
        return first, length

    def count(self, size: int) -> None:
        self._counted += size
        if self._counted > MAX_SCHEMA_BYTES:
            raise MalformedMessage(f"the schema takes more than {MAX_SCHEMA_BYTES} bytes")


@dataclass(frozen=True)
class _Table:
    """A table of a flatbuffer: numbered fields, of which some are left out."""

    buffer: _Flatbuffer
    start: int
    places_at: int
    places: int

    def has(self, field: int) -> bool:
        return self._place(field) is not None

    def byte(self, field: int) -> int:
        place = self._place(field)
        return 0 if place is None else self.buffer.data[place]

    def short(self, field: int) -> int:
        return self._number(field, _SHORT)

    def long(self, field: int) -> int:
        return self._number(field, _LONG)

    def text(self, field: int) -> bytes:
        place = self._place(field)
        if place is None:
            return b""
        first, length = self.buffer.vector_at(place, 1)
        self.buffer.count(length)
        return bytes(self.buffer.data[first : first + length])

    def table(self, field: int) -> _Table:
        place = self._place(field)
        if place is None:
            raise MalformedMessage("an Arrow IPC message has no content")
        return self.buffer.table_at(place)

    def tables(self, field: int) -> list[_Table]:
        place = self._place(field)
        if place is None:
            return []
        first, length = self.buffer.vector_at(place, _OFFSET.size)
        return [self.buffer.table_at(first + number * _OFFSET.size) for number in range(length)]

    def pairs(self, field: int) -> list[tuple[int, int]]:
        """A vector of pairs of numbers: lengths and null counts, or offsets and lengths."""
        place = self._place(field)
        if place is None:
            return []
        first, length = self.buffer.vector_at(place, _NODE.size)
        return list(_NODE.iter_unpack(self.buffer.data[first : first + length * _NODE.size]))

    def metadata(self, field: int) -> list[bytes]:
        """The keys of a vector of keys and values, all of which are counted."""
        pairs = self.tables(field)
        for pair in pairs:
            pair.text(1)
        return [pair.text(0) for pair in pairs]

    def _number(self, field: int, kind: struct.Struct) -> int:
        place = self._place(field)
        return 0 if place is None else self.buffer.number(kind, place)

    def _place(self, field: int) -> int | None:
        # the first two places hold the sizes of the list of places and of the table
        if field + 2 >= self.places:
            return None
        offset = self.buffer.number(_SHORT, self.places_at + (field + 2) * _SHORT.size)
        if not offset:
            return None
        place = self.start + offset
        if place >= len(self.buffer.data):
            raise MalformedMessage("the metadata of an Arrow IPC message point outside of it")
        return place
