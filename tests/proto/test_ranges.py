"""What columns take: every value within a range passes, and each that breaks one is told with what was
expected."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.any_rows import table_rows

from roofleet_proto import ranges
from roofleet_proto.ranges import broken
from roofleet_proto.tables import FLOAT, INT, TABLES, TENSOR, TEXT, TIME

TENSORS = pa.list_(TENSOR)


def tensor(**changes: Any) -> list[dict[str, Any]]:
    """One tensor in a list, with changes."""
    return [{"shape": [2, 3], "dtype": "fp32", "role": "weight", "bytes": 24, **changes}]


@pytest.mark.parametrize(
    ("range", "type", "good", "bad"),
    [
        (ranges.COUNT, INT, [0, 2**31, None], [-1, 2**31 + 1, 2**63 - 1]),
        (ranges.DURATION, INT, [1, 2**53], [0, -5, 2**63 - 1, -(2**63)]),
        (ranges.SIGNED, INT, [-(2**53), 2**53], [-(2**63), 2**63 - 1]),
        (ranges.SHARE, FLOAT, [0.0, 1.0, None], [-0.1, 1.1, float("nan"), float("inf")]),
        (ranges.NOT_NEGATIVE, FLOAT, [0.0, 1e15], [-1.0, float("inf"), float("-inf"), float("nan")]),
        (ranges.POSITIVE, FLOAT, [1e-9], [0.0, float("nan")]),
        (ranges.MAYBE_INFINITE, FLOAT, [0.0, float("inf")], [float("nan"), float("-inf"), -1.0]),
        (ranges.FINITE, FLOAT, [-1.0, 1.0], [float("nan"), float("inf")]),
        (ranges.NAME, TEXT, ["", "a" * 1024, None], ["a" * 1025, "é" * 513]),
        (ranges.OBJECT, TEXT, ["{}", '{"a": 1}', None], ["", "[]", "1", "{", "[" * 100_000]),
        (ranges.LIST, TEXT, ["[]"], ["{}", "null"]),
        (
            ranges.TENSORS,
            TENSORS,
            [[], tensor(), tensor(shape=[])],
            [tensor(shape=[2, -1]), tensor(bytes=-1)],
        ),
        (
            ranges.TENSORS,
            TENSORS,
            [tensor()],
            [tensor(shape=None), tensor(dtype=None), tensor() * 2 + [None]],
        ),
        (ranges.Each(ranges.COUNT), pa.list_(INT), [[], [1, 2]], [[1, -1], [None]]),
    ],
)
def test_what_breaks_a_range_is_found_among_what_does_not(
    range: ranges.Range, type: pa.DataType, good: list[Any], bad: list[Any]
) -> None:
    """Alone, and between good ones, at its own place."""
    assert broken([("x", range)], pa.record_batch({"x": pa.array(good, type)})) == {}
    for value in bad:
        for rows, place in (([value], 0), ([*good, value, *good], len(good))):
            batch = pa.record_batch({"x": pa.array(rows, type)})
            found = broken([("x", range)], batch)
            assert list(found) == [place], value
            assert found[place].startswith("x is ")
            assert found[place].endswith(f"expected {range.says}")
            assert list(broken([("x", range)], batch.slice(place))) == [0], value


def test_instants_lie_in_this_century() -> None:
    """1999 and the year 291,970, which no calendar of Python's has, are told apart from today."""
    today, before, after = 1_800_000_000_000_000, 900_000_000_000_000, 290_000 * 31_557_600_000_000
    batch = pa.record_batch({"at": pa.array([today, before, after, -(2**62)], INT).cast(TIME)})
    assert list(broken([("at", ranges.INSTANT)], batch)) == [1, 2, 3]


@given(st.data())
def test_rows_within_their_ranges_break_none(data: st.DataObject) -> None:
    """Rows of any table as they can be measured."""
    name = data.draw(st.sampled_from(sorted(TABLES)))
    rows = data.draw(table_rows(name))
    for batch in rows.to_batches():
        assert broken(TABLES[name].ranges, batch) == {}
