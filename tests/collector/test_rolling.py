"""Readings are rolled up into minutes and hours, and it does not matter when, in which parts or how often."""

from __future__ import annotations

import math
from collections import defaultdict
from datetime import UTC, datetime, timedelta
from typing import Any

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from roofleet_agent.rows import table_of
from roofleet_collector.store.rolling import TO_HOURS, TO_MINUTES, end_of_next, roll_up
from roofleet_collector.store.schema import migrate
from roofleet_proto.tables import GAUGES

BEGIN = datetime(2026, 3, 1, tzinfo=UTC)
SPAN_S = 4 * 3600
GAUGED = [gauge.name for gauge in GAUGES]
FEW = st.none() | st.integers(0, 5) | st.integers(0, 2**50)
READINGS = st.lists(
    st.tuples(st.sampled_from("ab"), st.integers(0, SPAN_S * 10**6), FEW, FEW).map(
        lambda told: {
            "device_id": told[0],
            "read_at": BEGIN + timedelta(microseconds=told[1]),
            "memory_used_bytes": told[2],
            "power_w": None if told[3] is None else told[3] / 7,
        }
    ),
    max_size=8,
)
PASSES = st.lists(st.tuples(READINGS, st.integers(0, SPAN_S), st.integers(0, SPAN_S)), max_size=4)
"""Readings that come, and the seconds before which readings and minutes are rolled up then."""


@pytest.fixture(scope="module")
def database() -> duckdb.DuckDBPyConnection:
    """The tables, in memory."""
    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'")
    migrate(connection)
    return connection


def put(database: duckdb.DuckDBPyConnection, readings: list[dict[str, Any]]) -> None:
    """Stores readings."""
    database.register("incoming", table_of("readings", readings))
    database.execute("INSERT INTO readings SELECT * FROM incoming")
    database.unregister("incoming")


def said(rows: list[dict[str, Any]], width_s: int) -> dict[tuple[str, int], dict[str, Any]]:
    """What readings say of each device and stretch of time, worked out from all of them at once."""
    parts: dict[tuple[str, int], list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        parts[row["device_id"], int(row["read_at"].timestamp()) // width_s * width_s].append(row)
    found = {}
    for key, some in parts.items():
        found[key] = {"readings": len(some)}
        for name in GAUGED:
            told = [row[name] for row in some if row.get(name) is not None]
            found[key] |= {
                f"{name}_count": len(told),
                f"mean_{name}": sum(told) / len(told) if told else None,
            }
            found[key] |= {f"min_{name}": min(told, default=None), f"max_{name}": max(told, default=None)}
    return found


def kept(database: duckdb.DuckDBPyConnection, width_s: int) -> dict[tuple[str, int], dict[str, Any]]:
    """The same as it is kept."""
    rows = database.sql(
        f"SELECT * EXCLUDE (width_s, began_at), epoch(began_at)::BIGINT AS began FROM rolled_readings "
        f"WHERE width_s = {width_s}"
    ).to_arrow_table()
    found = {}
    for row in rows.to_pylist():
        key = row.pop("device_id"), row.pop("began")
        assert key not in found
        found[key] = row
    return found


def assert_alike(found: dict[Any, dict[str, Any]], expected: dict[Any, dict[str, Any]]) -> None:
    """Equal, means but for the last digits."""
    assert found.keys() == expected.keys()
    for key, row in expected.items():
        for name, value in row.items():
            if name.startswith("mean_") and value is not None:
                assert math.isclose(found[key][name], value, rel_tol=1e-9, abs_tol=1e-9), (key, name)
            else:
                assert found[key][name] == value, (key, name)


@given(passes=PASSES)
@settings(max_examples=40, deadline=None)
def test_any_cut_into_passes_says_what_all_readings_say_at_once(
    database: duckdb.DuckDBPyConnection, passes: list[tuple[list[dict[str, Any]], int, int]]
) -> None:
    """Count, mean, least and most of each minute and hour are those of all its readings, whatever came when,
    late or not, and however often what had come by then was rolled up."""
    database.execute("DELETE FROM readings; DELETE FROM rolled_readings")
    came: list[dict[str, Any]] = []
    for readings, minutes_s, hours_s in passes:
        put(database, readings)
        came += readings
        roll_up(database, TO_MINUTES, BEGIN + timedelta(seconds=minutes_s))
        roll_up(database, TO_HOURS, BEGIN + timedelta(seconds=hours_s))
        told = database.sql("SELECT coalesce(sum(readings), 0)::BIGINT FROM reading_history").fetchall()
        assert told == [(len(came),)]
    later = BEGIN + timedelta(seconds=SPAN_S + 1)
    roll_up(database, TO_MINUTES, later)
    if not kept(database, 3600):
        assert_alike(kept(database, 60), said(came, 60))
    roll_up(database, TO_HOURS, later)
    assert kept(database, 60) == {}
    assert_alike(kept(database, 3600), said(came, 3600))


def test_little_is_done_at_once_and_whole_minutes_of_all_devices(database: duckdb.DuckDBPyConnection) -> None:
    """The next step ends with the minute of the last row that it takes, and never beyond what may go."""
    database.execute("DELETE FROM readings; DELETE FROM rolled_readings")
    far = BEGIN + timedelta(days=1)
    assert end_of_next(database, TO_MINUTES, far) is None
    put(database, [{"device_id": "a", "read_at": BEGIN + timedelta(seconds=90), "power_w": 1.0}])
    assert end_of_next(database, TO_MINUTES, far) == BEGIN + timedelta(seconds=120)
    assert end_of_next(database, TO_MINUTES, BEGIN + timedelta(seconds=100)) == BEGIN + timedelta(seconds=100)
    assert end_of_next(database, TO_MINUTES, BEGIN + timedelta(seconds=90)) is None
