"""A device's measured roofs as rows: measured once, then remembered in the agent's folder."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

import torch

from roofleet_agent.devices.base import Device
from roofleet_agent.inventory import device_id
from roofleet_agent.measuring.roofs import MeasuredRoof, measure_roofs

FILE_NAME = "roofs.json"


def measured_roofs(
    device: Device, folder: Path, *, done: Callable[[str], None] = lambda _: None
) -> list[dict[str, Any]]:
    """The rows of `roofs` measured on a device.

    They are measured again when torch or its number of threads has changed, or the file is gone.
    """
    file = folder / FILE_NAME
    identity = f"{device_id(device)} torch {torch.__version__} threads {torch.get_num_threads()}"
    known = _read(file)
    if identity not in known:
        roofs = measure_roofs(torch.device(device.torch_name), done=done)
        known[identity] = [asdict(roof) | {"measured_at": roof.measured_at.isoformat()} for roof in roofs]
        folder.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(known, indent=1))
    return [_row(device, MeasuredRoof(**_with_time(values))) for values in known[identity]]


def _read(file: Path) -> dict[str, list[dict[str, Any]]]:
    try:
        known: dict[str, list[dict[str, Any]]] = json.loads(file.read_text())
    except (FileNotFoundError, ValueError):
        return {}
    return known


def _with_time(values: dict[str, Any]) -> dict[str, Any]:
    return values | {"measured_at": datetime.fromisoformat(values["measured_at"])}


def _row(device: Device, roof: MeasuredRoof) -> dict[str, Any]:
    level = None
    if roof.kind == "memory":
        level = "dram" if device.info.kind == "cpu" else "device"
    return asdict(roof) | {
        "roof_id": f"{device_id(device)}/{roof.kind}/{roof.dtype or level}/measured",
        "device_id": device_id(device),
        "memory_level": level,
        "source_kind": "measured",
    }
