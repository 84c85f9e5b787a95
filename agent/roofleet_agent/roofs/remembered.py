"""A device's measured roofs as rows: kept in the agent's folder, and measured again when it is worth it.

Every measurement is a set of rows with one time and one load, under an id that it keeps: sent again, or by
two folders to one collector, it is the same observation, and no other takes its place.
"""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Callable
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from roofleet_agent.conditions import QUIET, Conditions, load_now
from roofleet_agent.inventory import device_id

if TYPE_CHECKING:
    from roofleet_agent.devices.base import Device

FILE_NAME = "roofs.json"
KEPT = 8
"""Measurements under the same conditions that the file keeps: the latest, and those with the best roofs."""
LISTEN_S = 0.25
"""How long it is listened for other work before disturbed roofs are measured again."""

Row = dict[str, Any]
_FORMAT = 2


def measured_roofs(
    device: Device,
    folder: Path,
    *,
    again: bool = False,
    done: Callable[[str], None] = lambda _: None,
    budget_s: float | None = None,
) -> list[Row]:
    """The rows of `roofs` measured on a device under the conditions of this process.

    They are measured if none are remembered, `again` if that is asked, and when all that are remembered were
    measured beside other work and there is none now. Threads, torch and driver are conditions: another of
    these has roofs of its own. What was measured is kept beside what was measured before.
    """
    file = folder / FILE_NAME
    identity, conditions = _conditions(device)
    known = _read(file)
    sets: list[list[Row]] = known.get(identity, [])
    if again or not sets or (all(map(was_disturbed, sets)) and _is_quiet(conditions["threads"])):
        sets = [*sets, _measure(device, conditions, done, budget_s)]
        known[identity] = _worth_keeping(sets)
        _write(file, known)
    return [row for rows in sets for row in rows]


def remembered_roofs(folder: Path, devices: list[Device]) -> list[Row]:
    """Every row that is remembered of these devices, under whatever conditions; asks torch nothing."""
    wanted = {device_id(device) for device in devices}
    sets = [rows for found in _read(folder / FILE_NAME).values() for rows in found]
    return [row for rows in sets for row in rows if row["device_id"] in wanted]


def was_disturbed(rows: list[Row]) -> bool:
    """Whether other work took a share of the processors while these were measured."""
    return any((row["other_load"] or 0.0) > QUIET for row in rows)


def disturbance(rows: list[Row]) -> float | None:
    """The share that other work took of the processors while the quietest of several measurements was made,
    if that was too much; None where one was quiet."""
    loads = [row["other_load"] or 0.0 for row in rows]
    least = min(loads, default=0.0)
    return least if least > QUIET else None


def _conditions(device: Device) -> tuple[str, Row]:
    import torch

    threads = torch.get_num_threads() if device.torch_name == "cpu" else None
    conditions = {
        "threads": threads,
        "torch_version": torch.__version__,
        "driver_version": device.info.driver_version,
    }
    told = " ".join(f"{name} {value}" for name, value in conditions.items())
    return f"{device_id(device)} {told}", conditions


def _measure(
    device: Device, conditions: Row, done: Callable[[str], None], budget_s: float | None
) -> list[Row]:
    import torch

    from roofleet_agent.roofs.measured import MEASURE_S, measure_roofs

    watched = Conditions(device, conditions["threads"] or 1)
    roofs = measure_roofs(
        torch.device(device.torch_name), done=done, budget_s=MEASURE_S if budget_s is None else budget_s
    )
    load = watched.row()["other_load"]
    common = conditions | {"device_id": device_id(device), "source_kind": "measured", "other_load": load}
    return [asdict(roof) | common | {"roof_id": str(uuid.uuid4())} for roof in roofs]


def _is_quiet(threads: int | None) -> bool:
    return (load_now(threads or 1, LISTEN_S) or 0.0) <= QUIET


def _worth_keeping(sets: list[list[Row]]) -> list[list[Row]]:
    """The latest measurements, and every one that holds the best roof of something."""
    best: dict[tuple[Any, ...], tuple[float, int]] = {}
    for number, rows in enumerate(sets):
        for row in rows:
            what = (row["kind"], row["dtype"], row["memory_level"])
            height = row["flops_per_s"] or row["bytes_per_s"] or 0.0
            best[what] = max(best.get(what, (0.0, 0)), (height, number))
    kept = {number for _, number in best.values()} | set(range(max(len(sets) - KEPT, 0), len(sets)))
    return [rows for number, rows in enumerate(sets) if number in kept]


def _read(file: Path) -> dict[str, list[list[Row]]]:
    """What the file holds; nothing if it is not there, or was written by an older agent or cut off."""
    try:
        document = json.loads(file.read_text())
        if document["format"] != _FORMAT:
            return {}
        for row in (row for sets in document["roofs"].values() for rows in sets for row in rows):
            row["measured_at"] = datetime.fromisoformat(row["measured_at"])
    except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):
        return {}
    roofs: dict[str, list[list[Row]]] = document["roofs"]
    return roofs


def _write(file: Path, known: dict[str, list[list[Row]]]) -> None:
    """Puts the file in place whole: two runs that end at once must not leave half of each."""
    file.parent.mkdir(parents=True, exist_ok=True)
    beside = file.with_suffix(f".{os.getpid()}")
    beside.write_text(json.dumps({"format": _FORMAT, "roofs": known}, indent=1, default=_text))
    beside.replace(file)


def _text(value: Any) -> str:
    if isinstance(value, datetime):
        return value.isoformat()
    raise TypeError(f"{value!r} does not go into {FILE_NAME}")
