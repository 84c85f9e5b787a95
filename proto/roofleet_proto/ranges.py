"""What values a column takes: said in words for the reader, checked for whole columns at once.

`usual` has the rule for each kind of column; `tables.py` names another where a column differs. Figures end at
2^53, beyond which a double (and so a browser) is no longer exact, and counts at 2^31, so that the product of
any two of them is still an integer.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.compute as pc

MOST_COUNT = 2**31
MOST = 2**53


class Range(Protocol):
    """What values a column takes."""

    @property
    def says(self) -> str:
        """The rule in words."""
        ...

    def breaks(self, values: pa.Array) -> pa.Array | None:
        """Whether each value breaks the rule; None if none does. NULL breaks none."""
        ...


FEW = 64
"""Values of a small batch, of which Python finds the extremes in a fifth of the time that Arrow takes."""


@dataclass(frozen=True)
class Between:
    """Numbers from `low` to `high`, both included. NaN is none; with `infinite` infinity is one too."""

    low: float
    high: float
    says: str
    infinite: bool = False

    def breaks(self, values: pa.Array) -> pa.Array | None:
        """See Range.breaks."""
        if pa.types.is_timestamp(values.type):
            values = values.view(pa.int64())
        least: Any
        most: Any
        whole = pa.types.is_integer(values.type)
        if values.type == pa.int64() and values.null_count == 0 and 0 < len(values) <= FEW:
            first, end = 8 * values.offset, 8 * (values.offset + len(values))
            numbers = memoryview(values.buffers()[1])[first:end].cast("q")
            least, most = min(numbers), max(numbers)
        else:
            found = pc.min_max(values)
            least, most = found["min"].as_py(), found["max"].as_py()
        if least is None:
            return None if whole or values.null_count == len(values) else pc.is_nan(values)
        # the extremes of floats are those of what is no NaN
        if self._holds(least) and self._holds(most) and (whole or not pc.any(pc.is_nan(values)).as_py()):
            return None
        inside = pc.and_(pc.greater_equal(values, self.low), pc.less_equal(values, self.high))
        if self.infinite:
            inside = pc.or_(inside, pc.equal(values, float("inf")))
        return pc.invert(inside)

    def _holds(self, value: float) -> bool:
        return self.low <= value <= self.high or (self.infinite and value == float("inf"))


@dataclass(frozen=True)
class Text:
    """Texts of at most so many bytes in UTF-8."""

    most: int

    @property
    def says(self) -> str:
        """See Range.says."""
        return f"up to {_size(self.most)}"

    def breaks(self, values: pa.Array) -> pa.Array | None:
        """See Range.breaks."""
        if values.nbytes <= self.most:  # of all together
            return None
        lengths = pc.binary_length(values)
        longest = pc.max(lengths).as_py()
        return pc.greater(lengths, self.most) if longest is not None and longest > self.most else None


@dataclass(frozen=True)
class Json:
    """Texts that are JSON of one kind, `dict` or `list`, of at most so many bytes."""

    kind: type
    most: int = 4 * 1024 * 1024

    @property
    def says(self) -> str:
        """See Range.says."""
        return f"a JSON {'object' if self.kind is dict else 'list'} up to {_size(self.most)}"

    def breaks(self, values: pa.Array) -> pa.Array | None:
        """See Range.breaks."""
        if values.null_count == len(values):
            return None
        wrong = [text for text in pc.unique(values).to_pylist() if text is not None and not self._is(text)]
        return pc.is_in(values, pa.array(wrong, values.type)) if wrong else None

    def _is(self, text: str) -> bool:
        try:
            return len(text) <= self.most and isinstance(json.loads(text), self.kind)
        except (ValueError, RecursionError):
            return False


@dataclass(frozen=True)
class Each:
    """Lists of values, each within a range and none NULL."""

    range: Range

    @property
    def says(self) -> str:
        """See Range.says."""
        return f"each {self.range.says}"

    def breaks(self, values: pa.Array) -> pa.Array | None:
        """See Range.breaks."""
        inner = values.flatten()
        wrong = _or_null(inner, self.range.breaks(inner))
        if wrong is None:
            return None
        lists = pc.unique(pc.filter(pc.list_parent_indices(values), wrong))
        return pc.is_in(pa.array(range(len(values)), lists.type), lists)


@dataclass(frozen=True)
class Fields:
    """Structs whose fields are within their ranges and not NULL."""

    ranges: tuple[tuple[str, Range], ...]

    @property
    def says(self) -> str:
        """See Range.says."""
        return ", ".join(f"{name} {range.says}" for name, range in self.ranges)

    def breaks(self, values: pa.Array) -> pa.Array | None:
        """See Range.breaks."""
        wrong = None
        for name, range in self.ranges:
            field = pc.struct_field(values, name)
            broken = _or_null(field, range.breaks(field))
            if broken is not None:
                wrong = broken if wrong is None else pc.or_(wrong, broken)
        return wrong


def _or_null(values: pa.Array, wrong: pa.Array | None) -> pa.Array | None:
    """What is wrong, or NULL where there must be a value."""
    if values.null_count == 0:
        return wrong
    missing = pc.is_null(values)
    return missing if wrong is None else pc.or_(missing, pc.fill_null(wrong, False))


def _size(most: int) -> str:
    for unit, factor in (("MiB", 2**20), ("KiB", 2**10)):
        if most % factor == 0:
            return f"{most // factor} {unit}"
    return f"{most} bytes"


def _microseconds(year: int) -> int:
    return int(datetime(year, 1, 1, tzinfo=UTC).timestamp()) * 1_000_000


COUNT = Between(0, MOST_COUNT, "0 to 2^31")
LARGE_COUNT = Between(0, MOST, "0 to 2^53")
AT_LEAST_ONE = Between(1, MOST_COUNT, "1 to 2^31")
DURATION = Between(1, MOST, "1 to 2^53")
SIGNED = Between(-MOST, MOST, "-2^53 to 2^53")
FINITE = Between(-1e300, 1e300, "finite")
NOT_NEGATIVE = Between(0, 1e300, "0 or more, finite")
POSITIVE = Between(1e-300, 1e300, "above 0, finite")
MAYBE_INFINITE = Between(0, 1e300, "0 or more", infinite=True)
SHARE = Between(0, 1, "0 to 1")
CELSIUS = Between(-274, 1000, "-274 to 1000")
INSTANT = Between(_microseconds(2000), _microseconds(2100), "years 2000 to 2099")
NAME = Text(1024)
TEXT = Text(64 * 1024)
LONG_TEXT = Text(8 * 1024 * 1024)
OBJECT = Json(dict)
LIST = Json(list)
TENSORS = Each(
    Fields(
        (
            ("shape", Each(LARGE_COUNT)),
            ("dtype", NAME),
            ("role", NAME),
            ("bytes", LARGE_COUNT),
        )
    )
)


def usual(type: pa.DataType, unit: str | None) -> Range | None:
    """What a column of this type and unit takes unless it says otherwise; None for anything."""
    if pa.types.is_list(type):
        if pa.types.is_struct(type.value_type):
            if "shape" in [field.name for field in type.value_type]:
                return TENSORS
            parts = ((field.name, usual(field.type, "bytes")) for field in type.value_type)
            return Each(Fields(tuple((name, part) for name, part in parts if part is not None)))
        inner = usual(type.value_type, None)
        return Each(inner) if inner else None
    if pa.types.is_int64(type):
        return COUNT if unit is None else LARGE_COUNT
    others: dict[pa.DataType, Range] = {
        pa.string(): TEXT,
        pa.float64(): NOT_NEGATIVE,
        pa.timestamp("us", tz="UTC"): INSTANT,
    }
    return others.get(type)


def broken(columns: Sequence[tuple[str, Range | None]], rows: pa.RecordBatch) -> dict[int, str]:
    """Rows that break a rule: their place, and the first rule they break with the value that does.

    `columns` has the name and the range of each column, in order.
    """
    found: dict[int, str] = {}
    for (name, range), values in zip(columns, rows.columns, strict=True):
        wrong = range and range.breaks(values)
        if range is None or wrong is None:
            continue
        for place in pc.indices_nonzero(pc.fill_null(wrong, False)).to_pylist():
            if place not in found:
                found[place] = f"{name} is {_shown(values, place)}, expected {range.says}"
    return found


def _shown(values: pa.Array, place: int) -> str:
    value: Any = values[place]
    try:
        shown = repr(value.as_py())
    except (ValueError, OverflowError):  # an instant beyond the calendar
        shown = str(value.cast(pa.int64()).as_py())
    return shown if len(shown) <= 80 else f"{shown[:77]}…"
