"""The tables are documented and name their units."""

from __future__ import annotations

import pytest

from roofleet_proto.tables import FLOAT, INT, TABLES, Table

EVERY_TABLE = pytest.mark.parametrize("table", TABLES.values(), ids=list(TABLES))
_UNITS = {
    "_ns": "ns",
    "_bytes": "bytes",
    "bytes": "bytes",
    "_flops": "FLOP",
    "_flops_per_s": "FLOP/s",
    "flops_per_s": "FLOP/s",
    "bytes_per_s": "bytes/s",
    "_w": "W",
    "_j": "J",
    "_hz": "Hz",
    "_c": "°C",
    "_bytes_per_token": "bytes",
}


@EVERY_TABLE
def test_every_table_and_column_has_a_sentence(table: Table) -> None:
    """Tables and columns say what they hold in a sentence that ends."""
    assert table.doc.endswith(".")
    for column in table.columns:
        assert column.doc.endswith("."), f"{table.name}.{column.name}"
        assert len(column.doc) > 10, f"{table.name}.{column.name}"


@EVERY_TABLE
def test_every_key_is_made_of_required_columns(table: Table) -> None:
    """A key's columns exist, and are never NULL in what agents send; of figures that the collector works out
    the whole phase is the one without a layer, and conditions may be unknown."""
    for name in table.key:
        assert table.column(name).required or table.derived, f"{table.name}.{name}"
    assert table.key


@EVERY_TABLE
def test_a_column_named_for_a_unit_has_that_unit(table: Table) -> None:
    """A name that ends in a base unit and the stated unit agree."""
    for column in table.columns:
        if column.type not in (INT, FLOAT):
            continue
        ending = max((e for e in _UNITS if column.name.endswith(e)), key=len, default=None)
        expected = _UNITS[ending] if ending else None
        assert column.unit == expected, f"{table.name}.{column.name}"


def test_a_column_that_is_not_there_is_an_error() -> None:
    """Asking a table for a column it does not have names both."""
    with pytest.raises(KeyError, match="spans has no column 'colour'"):
        TABLES["spans"].column("colour")
