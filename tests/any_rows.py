"""Rows of any table with any values that its columns take, for hypothesis."""

from __future__ import annotations

import datetime as dt
import json
from typing import Any

import pyarrow as pa
from hypothesis import strategies as st

from roofleet_proto.ranges import Between, Each, Fields, Json, Range
from roofleet_proto.tables import FLAG, FLOAT, INT, TABLES, Column

_texts = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=20)
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


def values(type: pa.DataType, range: Range | None) -> st.SearchStrategy[Any]:
    """Any value a column of that type takes."""
    if isinstance(range, Each):
        return st.lists(values(type.value_type, range.range), max_size=3)
    if isinstance(range, Fields):
        return st.fixed_dictionaries(
            {name: values(type.field(name).type, part) for name, part in range.ranges}
        )
    if isinstance(range, Json):
        content = st.dictionaries(_texts, st.integers()) if range.kind is dict else st.lists(st.integers())
        return content.map(json.dumps)
    if isinstance(range, Between):
        if type == FLOAT:
            return st.floats(range.low, range.high, allow_nan=False)
        numbers = st.integers(int(range.low), int(range.high))
        return numbers if type == INT else numbers.map(lambda us: _EPOCH + dt.timedelta(microseconds=us))
    return st.booleans() if type == FLAG else _texts


def _column(column: Column) -> st.SearchStrategy[Any]:
    some = values(column.type, column.takes)
    return some if column.required else st.none() | some


def table_rows(name: str, max_size: int = 5) -> st.SearchStrategy[pa.Table]:
    """Any rows of a table."""
    table = TABLES[name]
    row = st.fixed_dictionaries({c.name: _column(c) for c in table.columns})
    return st.lists(row, min_size=1, max_size=max_size).map(
        lambda rows: pa.Table.from_pylist(rows, schema=table.schema)
    )
