"""A fleet as a list: hosts with their agents, devices with their readings, and what is missing."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from roofleet.console import table
from roofleet_analysis.units import UNKNOWN, capacity_text, moment_text, time_text

if TYPE_CHECKING:
    from rich.console import Console

NOW_S = 20.0
"""A reading that is younger tells what a device does now."""
OFF_NS = 1e9
"""A clock that is off by less is no remark: that much can be the way of a message."""


def print_fleet(console: Console, rows: Sequence[dict[str, Any]]) -> None:
    """Prints rows of fleet_status: a table of hosts, one of devices, and a remark for each thing amiss."""
    hosts = {row["host_id"]: row for row in rows}
    console.print(_hosts(list(hosts.values())))
    console.print(_devices([row for row in rows if row["device_id"] is not None]))
    for remark in (*(said for host in hosts.values() for said in _amiss(host)), *_missing(rows)):
        console.print(remark, markup=False)


def print_retention(console: Console, rows: Sequence[dict[str, Any]]) -> None:
    """Prints rows of `retention`: a line for each thing that was done."""
    for row in rows:
        console.print(
            f"retention: {row['rows']:,} rows of {row['table_name']} {row['what']} since "
            f"{moment_text(row['first_at'])}, last {moment_text(row['last_at'])}",
            markup=False,
        )


def _hosts(rows: Sequence[dict[str, Any]]) -> Any:
    shown = [
        [
            row["hostname"],
            row["agent_version"] or UNKNOWN,
            _since(row),
            UNKNOWN if row["waiting_batches"] is None else f"{row['waiting_batches']:,}",
            f"{row['lost_rows']:,}",
        ]
        for row in rows
    ]
    return table(None, ["host", "version", "attached", "batches waiting", "rows lost"], shown, right=(3, 4))


def _since(row: dict[str, Any]) -> str:
    if row["is_online"]:
        begun = row["attached_since"]
        return "yes" if begun is None else f"since {moment_text(begun)}"
    seen = row["last_seen_at"]
    if seen is None:
        return "never"
    ago = (datetime.now(UTC) - seen).total_seconds()
    return f"no, last seen {time_text(ago * 1e9)} ago"


def _devices(rows: Sequence[dict[str, Any]]) -> Any:
    shown = [
        [
            row["hostname"],
            row["device_name"],
            UNKNOWN if row["utilization"] is None else f"{100 * row['utilization']:.0f} %",
            f"{_size(row['memory_used_bytes'])} of {_size(row['memory_bytes'])}",
            UNKNOWN if row["power_w"] is None else f"{row['power_w']:.0f} W",
            _read(row["reading_at"]),
            f"{row['runs']:,}",
        ]
        for row in rows
    ]
    heads = ["host", "device", "busy", "memory", "power", "read", "runs"]
    return table(None, heads, shown, right=(2, 3, 4, 6))


def _read(at: datetime | None) -> str:
    """When a device was read last; unknown where that is longer ago than an hour, or never was."""
    if at is None:
        return UNKNOWN
    ago_s = (datetime.now(UTC) - at).total_seconds()
    return "now" if ago_s < NOW_S else f"{time_text(ago_s * 1e9)} ago"


def _size(size: int | None) -> str:
    return UNKNOWN if size is None else capacity_text(size)


def _amiss(row: dict[str, Any]) -> Iterator[str]:
    offset = row["clock_offset_ns"]
    if offset is not None and abs(offset) > OFF_NS:
        way = "ahead of" if offset > 0 else "behind"
        yield f"{row['hostname']}: its clock is {time_text(abs(offset))} {way} the collector's"
    if row["lost_rows"]:
        yield (
            f"{row['hostname']}: {row['lost_rows']:,} rows were let go of unsent; "
            f'`roofleet sql "FROM losses"` says of what and why'
        )


def _missing(rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Readings that devices do not give, each reason once."""
    where: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        for gauge, why in json.loads(row["unavailable"] or "{}").items():
            where.setdefault((gauge, why), []).append(f"{row['device_name']} of {row['hostname']}")
    for (gauge, why), devices in where.items():
        some = ", ".join(devices[:3]) + (f" and {len(devices) - 3} more" if len(devices) > 3 else "")
        yield f"no {gauge} of {some}: {why}"
