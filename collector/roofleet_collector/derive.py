"""Rows the collector works out from rows that arrive, committed together with them."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from roofleet_analysis.catalogs.hardware import Hardware, match_device
from roofleet_analysis.costs import derive_op_costs
from roofleet_proto.tables import TABLES

Rows = dict[str, pa.Table]


def derived(table: str, rows: pa.Table) -> Rows:
    """Everything to be stored for rows of that table: the rows themselves and what follows from them."""
    rule = _RULES.get(table)
    return rule(rows) if rule else {table: rows}


def _costs(ops: pa.Table) -> Rows:
    return {"ops": ops, "op_costs": derive_op_costs(ops)}


def _host_was_seen(hosts: pa.Table) -> Rows:
    place = hosts.schema.get_field_index("last_seen_at")
    now = pa.array([datetime.now(UTC)] * hosts.num_rows, hosts.schema.field(place).type)
    return {"hosts": hosts.set_column(place, hosts.schema.field(place), now)}


def _datasheet_roofs(devices: pa.Table) -> Rows:
    """Names the catalogue's entry of each device it knows, and gives the device that entry's roofs."""
    rows = devices.to_pylist()
    roofs: list[dict[str, Any]] = []
    for row in rows:
        known = match_device(row["name"])
        if known is not None:
            row["hardware_name"] = known.name
            roofs += roofs_of(row["device_id"], known)
    named = pa.Table.from_pylist(rows, schema=devices.schema)
    return {"devices": named, "roofs": pa.Table.from_pylist(roofs, schema=TABLES["roofs"].schema)}


def _each_measurement_apart(roofs: pa.Table) -> Rows:
    """Gives measured roofs of older agents, which named a roof and not its measurement, ids of their own.

    Under one name the later would take the place of the earlier, however much lower it is. Their threads are
    told in words only.
    """
    rows = roofs.to_pylist()
    for row in rows:
        if row["source_kind"] == "measured" and row["torch_version"] is None and row["measured_at"]:
            row["roof_id"] = f"{row['roof_id']}/{row['measured_at'].isoformat()}"
            threads = re.search(r", (\d+) threads", row["source"])
            if row["threads"] is None and threads:
                row["threads"] = int(threads[1])
    return {"roofs": pa.Table.from_pylist(rows, schema=roofs.schema)}


def roofs_of(device_id: str, hardware: Hardware) -> list[dict[str, Any]]:
    """The rows of `roofs` that a catalogue entry gives a device: one a dtype, and the memory's."""
    common = {"device_id": device_id, "source_kind": "datasheet"}
    roofs: list[dict[str, Any]] = [
        {
            **common,
            "roof_id": f"{device_id}/memory/datasheet",
            "kind": "memory",
            "memory_level": hardware.memory_level,
            "bytes_per_s": hardware.memory_bytes_per_s,
            "source": hardware.memory_source,
        }
    ]
    for dtype in sorted({roof.dtype for roof in hardware.compute}):
        best = hardware.compute_roof(dtype)
        if best is not None:
            roofs.append(
                {
                    **common,
                    "roof_id": f"{device_id}/compute/{dtype}/datasheet",
                    "kind": "compute",
                    "dtype": dtype,
                    "accumulate_dtype": best.accumulate,
                    "flops_per_s": best.flops_per_s,
                    "source": best.source,
                }
            )
    return roofs


_RULES: dict[str, Callable[[pa.Table], Rows]] = {
    "ops": _costs,
    "hosts": _host_was_seen,
    "devices": _datasheet_roofs,
    "roofs": _each_measurement_apart,
}
