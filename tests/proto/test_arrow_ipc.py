"""Arrow from strangers is bounded before it is decoded, and valid when it is there."""

from __future__ import annotations

import struct
from collections.abc import Callable

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support import arrow_stream as stream
from tests.support import bent

from roofleet_proto import arrow_ipc
from roofleet_proto.arrow_ipc import read_stream
from roofleet_proto.errors import MalformedMessage

MEGABYTE = 1024 * 1024


PLAIN = pa.record_batch(
    {
        "text": ["a", None, "ccc"],
        "flag": [True, False, None],
        "nothing": pa.nulls(3),
        "at": pa.array([1, 2, None], pa.timestamp("us", "UTC")),
        "deep": [[{"shape": [1, 2], "dtype": "f16"}], None, []],
        "map": pa.array([[("k", 1)], [], None], pa.map_(pa.string(), pa.int64())),
        "fixed": pa.array([[1, 2], None, [3, 4]], pa.list_(pa.int32(), 2)),
    }
)


@pytest.mark.parametrize("compression", [None, "zstd", "lz4"])
def test_rows_come_out_as_they_went_in(compression: str | None) -> None:
    """A whole stream is read, compressed or not, of one batch, of several or of none."""
    assert read_stream(stream(PLAIN, PLAIN, compression=compression), max_bytes=MEGABYTE) == pa.table(
        pa.Table.from_batches([PLAIN, PLAIN])
    )
    sink = pa.BufferOutputStream()
    pa.ipc.new_stream(sink, PLAIN.schema.with_metadata({"by": "hand"})).close()
    assert read_stream(bytes(sink.getvalue()), max_bytes=0).num_rows == 0


def test_a_stream_cut_anywhere_is_refused() -> None:
    """Whatever byte a stream is cut at, it is not taken for a whole one; nor with bytes behind its end."""
    whole = stream(PLAIN)
    for end in range(len(whole)):
        with pytest.raises(MalformedMessage):
            read_stream(whole[:end], max_bytes=MEGABYTE)
    with pytest.raises(MalformedMessage, match=f"{len(whole)} bytes follow the end"):
        read_stream(whole + whole, max_bytes=MEGABYTE)


TEXT = stream(pa.record_batch({"1": ["x" * 7919]}))
TEXTS = stream(pa.record_batch({"1": ["x" * 7919, "y" * 10]}))
LISTS = stream(pa.record_batch({"1": [[1] * 7919]}))
UMLAUT = stream(pa.record_batch({"1": ["ü" * 50]}))
NUMBERS = stream(pa.record_batch({"1": pa.array([5] * 7919, pa.int8())}))

INVALID = {
    "a text of memory that is not its own": bent(TEXT, 7919, 24_000_000),
    "a text before its memory": bent(TEXT, 7919, -2),
    "a text to the end of what can be told": bent(TEXT, 7919, 2**31 - 1),
    "offsets that go back": bent(TEXTS, 7919, 7930),
    "a list of values that are not there": bent(LISTS, 7919, 3_000_000),
    "half a letter": UMLAUT.replace("ü".encode() * 50, "ü".encode() * 49 + b"\xc3\xc3"),
    "more rows than numbers": NUMBERS.replace(struct.pack("<q", 7919), struct.pack("<q", 20_000)),
    "fewer than no rows": NUMBERS.replace(struct.pack("<q", 7919), struct.pack("<q", -1)),
}


@pytest.mark.parametrize("data", INVALID.values(), ids=INVALID.keys())
def test_rows_that_point_elsewhere_are_refused(data: bytes) -> None:
    """Offsets and lengths that leave their buffer are refused, and no memory but the message's is read."""
    with pytest.raises(MalformedMessage):
        read_stream(data, max_bytes=MEGABYTE)


def _nothing(kind: pa.DataType, length: int) -> pa.Array:
    return pa.Array.from_buffers(kind, length, [None])


def _list_of(values: pa.Array) -> pa.RecordBatch:
    offsets = pa.array([0, len(values)], pa.int32())
    return pa.record_batch({"1": pa.ListArray.from_arrays(offsets, values)})


BOMBS: dict[str, Callable[[], bytes]] = {
    "compressed zeros": lambda: stream(
        pa.record_batch({"1": pa.array([0] * 2_000_000, pa.int8())}), compression="zstd"
    ),
    "one text, compressed": lambda: stream(pa.record_batch({"1": ["x" * 2_000_000]}), compression="lz4"),
    "rows of nothing": lambda: stream(pa.record_batch({"1": _nothing(pa.null(), 2**20)})),
    "a list of nothing": lambda: stream(_list_of(_nothing(pa.null(), 2**20))),
    "a list of empty structs": lambda: stream(_list_of(_nothing(pa.struct([]), 2**20))),
    "many batches": lambda: stream(*[pa.record_batch({"1": pa.nulls(0)})] * 2000),
}


@pytest.mark.parametrize("make", BOMBS.values(), ids=BOMBS.keys())
def test_what_would_grow_is_refused_unread(make: Callable[[], bytes]) -> None:
    """A message that decodes to more than is allowed is refused before Arrow takes any memory for it."""
    data = make()
    assert len(data) < 600_000
    taken = pa.total_allocated_bytes()
    with pytest.raises(MalformedMessage, match=f"more than {MEGABYTE} bytes"):
        read_stream(data, max_bytes=MEGABYTE)
    assert pa.total_allocated_bytes() <= taken


def test_a_compressed_length_that_lies_is_refused() -> None:
    """A buffer that decompresses to another length than it declares is no row."""
    data = bytearray(stream(pa.record_batch({"1": pa.array([7] * 1000)}), compression="zstd"))
    place = data.index(struct.pack("<q", 8000))
    for length in (8, 16_000, -2, -(2**63)):
        struct.pack_into("<q", data, place, length)
        with pytest.raises(MalformedMessage):
            read_stream(bytes(data), max_bytes=MEGABYTE)


OTHER_TYPES = [
    pa.array(["a", "a"]).dictionary_encode(),
    pa.array(["a"], pa.string_view()),
    pa.RunEndEncodedArray.from_arrays(pa.array([2], pa.int32()), pa.array(["a"])),
    pa.array([b"\0" * 16], pa.uuid()),
    pa.UnionArray.from_dense(pa.array([0], pa.int8()), pa.array([0], pa.int32()), [pa.array([1])]),
    pa.array([["a"]], pa.list_view(pa.string())),
]


@pytest.mark.parametrize("column", OTHER_TYPES, ids=lambda column: str(column.type)[:20])
def test_types_in_which_few_bytes_stand_for_many_are_refused(column: pa.Array) -> None:
    """Dictionaries, views, run-ends, unions and extensions are refused by name, however deep they lie."""
    deep = pa.StructArray.from_arrays([column], ["inside"])
    for batch in (pa.record_batch({"column": column}), pa.record_batch({"outer": deep})):
        with pytest.raises(MalformedMessage, match="send plain values"):
            read_stream(stream(batch), max_bytes=MEGABYTE)


def test_a_schema_is_bounded() -> None:
    """Names, notes and nesting of columns are bounded too."""
    deep = pa.int64()
    for _ in range(40):
        deep = pa.list_(deep)
    notes = {f"note {number}": "x" * 1000 for number in range(1100)}
    for schema in (
        pa.schema([("1", deep)]),
        pa.schema([("1", pa.int64())], metadata=notes),
        pa.schema([(f"column {number}", pa.int64()) for number in range(20_000)]),
    ):
        sink = pa.BufferOutputStream()
        pa.ipc.new_stream(sink, schema).close()
        with pytest.raises(MalformedMessage, match=r"deep|the schema takes more"):
            read_stream(bytes(sink.getvalue()), max_bytes=100 * MEGABYTE)


def test_a_field_that_is_its_own_child_is_refused() -> None:
    """A schema whose offsets run in a circle ends, instead of unfolding for ever."""
    data = bytearray(stream(pa.record_batch({"1": pa.array([[1]])})))
    header = 8
    buffer = arrow_ipc._Flatbuffer(memoryview(data)[header : header + struct.unpack_from("<I", data, 4)[0]])
    (outer,) = buffer.root().table(2).tables(1)
    place = outer._place(5)
    assert place is not None
    first, _ = buffer.vector_at(place, 4)
    # The child's entry would have to point forward, so it is turned round: an offset that wraps is refused.
    struct.pack_into("<I", data, header + first, (outer.start - first) % 2**32)
    with pytest.raises(MalformedMessage, match="outside of it"):
        read_stream(bytes(data), max_bytes=MEGABYTE)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_any_change_of_a_byte_is_answered(data: st.DataObject) -> None:
    """With any bytes changed, a stream is refused or gives rows that are valid and no larger than allowed."""
    whole = bytearray(stream(PLAIN, compression=data.draw(st.sampled_from([None, "zstd"]))))
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(whole) - 1))
        whole[place] = data.draw(st.integers(0, 255))
    try:
        rows = read_stream(bytes(whole), max_bytes=MEGABYTE)
    except MalformedMessage:
        return
    rows.validate(full=True)
    assert rows.nbytes <= MEGABYTE
