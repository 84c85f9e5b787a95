"""Who this host is and what it has, as rows of `hosts` and `devices`."""

from __future__ import annotations

import json
import os
import platform
import socket
import subprocess
import uuid
from functools import cache
from pathlib import Path
from typing import Any

import psutil

from roofleet_agent.devices.base import Device
from roofleet_agent.devices.cpu import cpu_name, memory_bytes, usable_threads
from roofleet_proto import __version__


def host_name() -> str:
    """What the machine is called: $ROOFLEET_HOST, which in a container says where it is, else as it says."""
    return os.environ.get("ROOFLEET_HOST") or socket.gethostname()


def host_id() -> str:
    """The same for a machine at every start. The host name is part of it, since machines made from one
    image can share the system's own id; where it is given it is all, since a container has no other."""
    named = os.environ.get("ROOFLEET_HOST")
    return str(uuid.uuid5(uuid.NAMESPACE_DNS, named or f"{_machine_id()}.{host_name()}"))


@cache
def _machine_id() -> str:
    for place in ("/etc/machine-id", "/var/lib/dbus/machine-id"):
        path = Path(place)
        if path.exists() and (text := path.read_text().strip()):
            return text
    if platform.system() == "Darwin":
        answer = subprocess.run(
            ["ioreg", "-rd1", "-c", "IOPlatformExpertDevice"], capture_output=True, text=True, check=False
        )
        for line in answer.stdout.splitlines():
            if "IOPlatformUUID" in line:
                return line.split('"')[3]
    return f"{uuid.getnode():012x}"


def device_id(device: Device) -> str:
    """The same for a device at every start."""
    return str(uuid.uuid5(uuid.UUID(host_id()), device.info.key))


def host_row(agent_id: str) -> dict[str, Any]:
    """The row of `hosts`; when it was last seen is for the collector to say."""
    return {
        "host_id": host_id(),
        "hostname": host_name(),
        "os": f"{platform.system()} {platform.release()}",
        "architecture": platform.machine(),
        "cpu_name": cpu_name(),
        "cpu_cores": psutil.cpu_count(logical=False),
        "cpu_threads": usable_threads(),
        "memory_bytes": memory_bytes(),
        "python_version": platform.python_version(),
        "agent_version": __version__,
        "agent_id": agent_id,
        "last_seen_at": None,
    }


def device_row(device: Device) -> dict[str, Any]:
    """The row of `devices`; which catalogue entry it is, is for the collector to say."""
    info = device.info
    missing = device.read().unavailable
    return {
        "device_id": device_id(device),
        "host_id": host_id(),
        "kind": info.kind,
        "name": info.name,
        "backend": info.backend,
        "device_index": info.device_index,
        "memory_bytes": info.memory_bytes,
        "driver_version": info.driver_version,
        "hardware_name": None,
        "unavailable": json.dumps(missing, sort_keys=True) if missing else None,
    }
