"""The roofs in force as a table: how high, under which conditions, and how sure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from roofleet.console import table
from roofleet_analysis.units import UNKNOWN, bandwidth_text, moment_text, percent_text, rate_text

if TYPE_CHECKING:
    import pyarrow as pa


def listed_roofs(
    query: Callable[[str, Sequence[object]], pa.Table], device_id: str | None = None
) -> list[dict[str, Any]]:
    """The rows of roofline_roofs, of all devices or one, those of one device and condition together."""
    rows: list[dict[str, Any]] = query(
        "SELECT * FROM roofline_roofs WHERE ?::VARCHAR IS NULL OR device_id = ? "
        "ORDER BY hostname, device_name, device_id, source_kind = 'datasheet', threads, torch_version, "
        "driver_version, kind DESC, memory_level, dtype",
        (device_id, device_id),
    ).to_pylist()
    return rows


def roofs_table(rows: Sequence[dict[str, Any]]) -> Any:
    """A table of rows of roofline_roofs."""
    headers = ["device", "of", "roof", "lowest", "spread", "other load", "seen", "conditions", "from", "at"]
    shown = []
    for row in rows:
        is_compute = row["kind"] == "compute"
        per_s = row["flops_per_s"] if is_compute else row["bytes_per_s"]
        shown.append(
            [
                f"{row['device_name'] or row['device_id']} ({row['hostname'] or UNKNOWN})",
                str((row["dtype"] if is_compute else row["memory_level"]) or row["kind"]),
                _height(row, per_s),
                UNKNOWN if row["lowest_per_s"] is None else _height(row, row["lowest_per_s"]),
                percent_text(row["spread"]),
                percent_text(row["other_load"]),
                str(row["observations"]),
                conditions_text(row),
                f"{row['source_kind']}: {row['source']}",
                moment_text(row["measured_at"]) if row["measured_at"] else UNKNOWN,
            ]
        )
    return table(None, headers, shown, right=range(2, 7))


def conditions_text(row: dict[str, Any]) -> str:
    """What a roof holds for: threads, torch and driver, as far as they are known."""
    if row["source_kind"] == "datasheet":
        return "any"
    threads = None if row["threads"] is None else f"{row['threads']} threads"
    torch = None if row["torch_version"] is None else f"torch {row['torch_version']}"
    driver = None if row["driver_version"] is None else f"driver {row['driver_version']}"
    return ", ".join(part for part in (threads, torch, driver) if part) or UNKNOWN


def _height(row: dict[str, Any], per_s: float) -> str:
    if row["kind"] == "memory":
        return bandwidth_text(per_s)
    return rate_text(per_s, "OP/s" if row["dtype"] == "int8" else "FLOP/s")
