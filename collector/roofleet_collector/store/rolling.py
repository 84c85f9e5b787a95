"""Readings that are rolled up: what a minute or an hour of them says, kept in their place.

What is kept of a device and minute can be told from any parts of it, in any order: count, mean, least and
most of all are worked out from those of the parts, and a reading is a part of one. So readings may be rolled
up as far as they have come, and those that come late are added to what is kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache

import duckdb

from roofleet_collector.store.engine import ask, table_of
from roofleet_proto.tables import GAUGES, ROLLED_READINGS, TABLES

ROWS_AT_ONCE = 10_000
"""Rows that are rolled up in one transaction: some hundredths of a second. Whole minutes or hours of all
devices go together, so that it may be a few more."""


@dataclass(frozen=True)
class Rolling:
    """A table, which of its rows, and the width in seconds of what is made of them."""

    table: str
    from_width_s: int
    width_s: int

    @property
    def at(self) -> str:
        """The column that says when a row was."""
        return "read_at" if self.table == "readings" else "began_at"

    @property
    def chosen(self) -> str:
        """The condition for rows before the only parameter."""
        width = "" if self.table == "readings" else f"width_s = {self.from_width_s} AND "
        # what was stored of a year before any clock is left alone
        return f"{width}{self.at} >= '1970-01-01 00:00:00+00'::TIMESTAMPTZ AND {self.at} < ?"


TO_MINUTES = Rolling("readings", 0, 60)
TO_HOURS = Rolling("rolled_readings", 60, 3600)


def end_of_next(cursor: duckdb.DuckDBPyConnection, rolling: Rolling, before: datetime) -> datetime | None:
    """The instant up to which rows are to be rolled up next: the oldest of those before; None if there is
    none."""
    found = ask(
        cursor,
        f"SELECT epoch_us(max(t)) FROM (SELECT {rolling.at} AS t FROM {rolling.table} WHERE {rolling.chosen} "
        f"ORDER BY t LIMIT {ROWS_AT_ONCE})",
        [before],
    )
    last = as_instant(found[0][0])
    if last is None:
        return None
    return min(before, _floor(last, rolling.width_s) + timedelta(seconds=rolling.width_s))


def roll_up(connection: duckdb.DuckDBPyConnection, rolling: Rolling, before: datetime) -> int:
    """Rolls up all rows before an instant, in the transaction of its caller; how many there were."""
    rows = table_of(connection, _rolled_up(rolling), [before])
    if not rows.num_rows:
        return 0
    connection.register("rolled", rows.cast(ROLLED_READINGS.schema))
    # what was kept of the same minutes is in what is kept of them now
    connection.execute(
        f"DELETE FROM rolled_readings WHERE width_s = {rolling.width_s} "
        "AND (device_id, began_at) IN (SELECT (device_id, began_at) FROM rolled)"
    )
    connection.execute("INSERT INTO rolled_readings SELECT * FROM rolled")
    connection.unregister("rolled")
    gone = ask(connection, f"DELETE FROM {rolling.table} WHERE {rolling.chosen}", [before])
    return int(gone[0][0])


def as_instant(unix_us: int | None) -> datetime | None:
    """The instant of microseconds since 1970: to tell a moment the engine needs a library for time zones."""
    return None if unix_us is None else datetime.fromtimestamp(0, UTC) + timedelta(microseconds=unix_us)


def _floor(instant: datetime, width_s: int) -> datetime:
    return instant - timedelta(seconds=instant.timestamp() % width_s)


@cache
def _rolled_up(rolling: Rolling) -> str:
    """The SELECT of what is to be kept: of rows before its only parameter, and of what was kept before."""
    bucket = f"time_bucket(INTERVAL {rolling.width_s} SECOND, {rolling.at}) AS began_at"
    if rolling.table == "readings":
        gauges = ", ".join(
            f"({name} IS NOT NULL)::BIGINT AS {name}_count, {name}::DOUBLE AS mean_{name}, "
            f"{name} AS min_{name}, {name} AS max_{name}"
            for name in _names()
        )
        parts = f"SELECT device_id, {bucket}, 1 AS readings, {gauges} FROM readings"
    else:
        kept = ", ".join(c for c in TABLES["rolled_readings"].schema.names[3:])
        parts = f"SELECT device_id, {bucket}, {kept} FROM rolled_readings"
    gauges = ", ".join(
        f"sum({name}_count)::BIGINT AS {name}_count, "
        f"sum(mean_{name} * {name}_count) / nullif(sum({name}_count), 0) AS mean_{name}, "
        f"min(min_{name}) AS min_{name}, max(max_{name}) AS max_{name}"
        for name in _names()
    )
    return (
        f"WITH parts AS MATERIALIZED ({parts} WHERE {rolling.chosen.replace('?', '$1')}), "
        "touched AS (SELECT DISTINCT device_id, began_at FROM parts), "
        "together AS (SELECT * FROM parts UNION ALL BY NAME SELECT k.* EXCLUDE (width_s) "
        "FROM rolled_readings k JOIN touched USING (device_id, began_at) "
        f"WHERE k.width_s = {rolling.width_s}) "
        f"SELECT device_id, {rolling.width_s}::BIGINT AS width_s, began_at, "
        f"sum(readings)::BIGINT AS readings, {gauges} FROM together "
        "GROUP BY device_id, began_at ORDER BY began_at, device_id"
    )


def _names() -> list[str]:
    return [gauge.name for gauge in GAUGES]
