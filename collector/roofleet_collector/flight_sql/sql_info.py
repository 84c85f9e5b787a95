"""What the server says about itself: the numbered facts of Flight SQL's GetSqlInfo."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import Any

import pyarrow as pa

from roofleet_collector.flight_sql.prepared import EXPIRES_AFTER
from roofleet_collector.store.text import MAX_SQL_BYTES

VALUE_TYPE = pa.dense_union(
    [
        pa.field("string_value", pa.string()),
        pa.field("bool_value", pa.bool_()),
        pa.field("bigint_value", pa.int64()),
        pa.field("int32_bitmask", pa.int32()),
        pa.field("string_list", pa.list_(pa.field("string_data", pa.string()))),
        pa.field(
            "int32_to_int32_list_map",
            pa.map_(pa.int32(), pa.field("value", pa.list_(pa.field("$data$", pa.int32())))),
        ),
    ]
)
SCHEMA = pa.schema(
    [pa.field("info_name", pa.uint32(), nullable=False), pa.field("value", VALUE_TYPE, nullable=False)]
)
STRING, BOOL, BIGINT, BITMASK = range(4)  # places in the union


def _version() -> str:
    try:
        return version("roofleet")
    except PackageNotFoundError:
        return "unknown"


def facts() -> dict[int, tuple[int, Any]]:
    """Every fact: its number in the Flight SQL protocol, the kind of its value, and the value."""
    return {
        0: (STRING, "Roofleet"),
        1: (STRING, _version()),
        2: (STRING, pa.__version__),
        3: (BOOL, True),  # read only
        4: (BOOL, True),  # takes SQL
        5: (BOOL, False),  # takes Substrait plans
        8: (BITMASK, 0),  # transactions over several calls: none
        9: (BOOL, False),  # cancelling by an action; ending the call does it
        100: (BITMASK, int(EXPIRES_AFTER.total_seconds() * 1000)),  # life of an unused prepared statement, ms
        101: (BITMASK, 0),
        500: (BOOL, False),  # creates and drops catalogs, schemas, tables
        501: (BOOL, False),
        502: (BITMASK, 0),
        503: (BITMASK, 1),  # unquoted names: case does not matter
        504: (STRING, '"'),
        505: (BITMASK, 1),  # quoted names: case does not matter either
        506: (BOOL, True),  # every table can be read
        507: (BITMASK, 3),  # NULLs come last
        513: (STRING, "\\"),  # escapes % and _ in search patterns
        514: (STRING, ""),
        515: (BOOL, True),  # column aliases
        516: (BOOL, True),  # NULL || 'a' is NULL
        518: (BOOL, True),  # table aliases
        519: (BOOL, False),
        520: (BOOL, True),  # expressions in ORDER BY
        521: (BOOL, True),  # ORDER BY what is not selected
        522: (BITMASK, 3),  # GROUP BY what is not selected, and more than what is
        523: (BOOL, True),  # LIKE ... ESCAPE
        524: (BOOL, True),  # NOT NULL columns
        529: (STRING, "schema"),
        530: (STRING, "procedure"),
        531: (STRING, "catalog"),
        532: (BOOL, True),  # catalog.schema.table
        536: (BOOL, False),  # SELECT FOR UPDATE
        537: (BOOL, False),  # stored procedures
        538: (BITMASK, 15),  # subqueries in comparisons, EXISTS, IN and quantified
        539: (BOOL, True),  # correlated subqueries
        540: (BITMASK, 3),  # UNION and UNION ALL
        557: (BIGINT, MAX_SQL_BYTES),
        563: (BOOL, False),  # transactions
    }


def table(numbers: tuple[int, ...] = ()) -> pa.Table:
    """The facts asked for, all of them for (). A number that is not known is left out."""
    known = facts()
    chosen = [number for number in (numbers or tuple(known)) if number in known]
    children: list[list[Any]] = [[] for _ in VALUE_TYPE]
    kinds, offsets = [], []
    for number in chosen:
        kind, value = known[number]
        kinds.append(kind)
        offsets.append(len(children[kind]))
        children[kind].append(value)
    value_column = pa.UnionArray.from_dense(
        pa.array(kinds, pa.int8()),
        pa.array(offsets, pa.int32()),
        [pa.array(child, field.type) for child, field in zip(children, VALUE_TYPE, strict=True)],
        [field.name for field in VALUE_TYPE],
    )
    return pa.Table.from_arrays([pa.array(chosen, pa.uint32()), value_column.cast(VALUE_TYPE)], schema=SCHEMA)
