"""The fleet: a card for each host with its devices, what they are doing now, and what they cannot tell."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any
from urllib.parse import quote

import dash_mantine_components as dmc
from dash import html

from roofleet_analysis import units
from roofleet_dashboard.figures.tables import term

__all__ = ["fleet_cards", "missing_readings"]

Row = Mapping[str, Any]
Trace = Sequence[tuple[float, float]]
"""Age in seconds and utilisation, oldest first."""

_READINGS = {
    "utilization": "Utilisation",
    "memory_used_bytes": "Memory",
    "power_w": "Power",
    "clock_hz": "Clock",
    "temperature_c": "Temperature",
    "energy_j": "Energy",
}


def fleet_cards(devices: Sequence[Row], recent: Iterable[Row]) -> Any:
    """All hosts from rows of the queries fleet and recent_utilization."""
    traces = {
        device: [(row["age_s"], row["utilization"]) for row in rows]
        for device, rows in groupby(recent, key=lambda row: row["device_id"])
    }
    hosts = [list(rows) for _, rows in groupby(devices, key=lambda row: row["host_id"])]
    return html.Div([_host(rows, traces) for rows in hosts], className="rf-hosts")


def missing_readings(unavailable: str | None) -> dict[str, str]:
    """Readings a device does not give, and why; empty where it says nothing."""
    try:
        found = json.loads(unavailable or "{}")
    except ValueError:
        return {}
    return {str(k): str(v) for k, v in found.items()} if isinstance(found, dict) else {}


def _host(rows: Sequence[Row], traces: Mapping[str, Trace]) -> Any:
    host = rows[0]
    online = bool(host["is_online"])
    seen = units.ago_text(host["last_seen_s"])
    memory = host["host_memory_bytes"]
    facts = [host["cpu_name"], units.capacity_text(memory) if memory else None, host["os"]]
    head = html.Div(
        [
            html.Div(
                [
                    html.H2(host["hostname"], className="rf-host-name"),
                    html.Span(
                        "online" if online else "offline",
                        className="rf-tag rf-online" if online else "rf-tag",
                    ),
                    html.Span(
                        [f"seen {seen}"], className="rf-faint", **{"data-last-seen": str(host["last_seen_s"])}
                    ),
                ],
                className="rf-host-head",
            ),
            html.Div(
                " · ".join(str(fact) for fact in facts if fact)
                + (f" · agent {host['agent_version']}" if host["agent_version"] else ""),
                className="rf-faint",
            ),
        ]
    )
    devices = [_device(row, traces.get(row["device_id"], []), online) for row in rows if row["device_id"]]
    body: Any = html.Div(devices, className="rf-devices") if devices else html.P("No device is known yet.")
    return dmc.Card([head, body], withBorder=True, radius="md", padding="md", className="rf-host")


def _device(row: Row, trace: Trace, online: bool) -> Any:
    missing = missing_readings(row["unavailable"])
    used, total = row["memory_used_bytes"], row["memory_bytes"]
    memory_share = used / total if used is not None and total else None
    stale = "" if online else " rf-stale"
    gauges = [
        _bar("utilization", units.percent_text(row["utilization"]), row["utilization"], missing),
        _bar(
            "memory_used_bytes",
            f"{units.capacity_text(used)} of {units.capacity_text(total)}",
            memory_share,
            missing,
        ),
    ]
    small = [
        _small("power_w", units.power_text(row["power_w"]), missing),
        _small("clock_hz", units.clock_text(row["clock_hz"]), missing),
        _small("temperature_c", units.temperature_text(row["temperature_c"]), missing),
    ]
    read = f"read {units.ago_text(row['reading_s'])}" if row["reading_s"] is not None else "no reading yet"
    runs = row["runs"]
    return html.Div(
        [
            html.Div(
                [
                    html.Strong(row["device_name"]),
                    html.Span(row["device_kind"].upper(), className="rf-tag"),
                    html.Span(
                        f"{units.count_text(runs)} run{'' if runs == 1 else 's'}", className="rf-faint"
                    ),
                    html.Span(read, className="rf-faint"),
                ],
                className="rf-device-head",
            ),
            html.Div([*gauges, _sparkline(trace)], className=f"rf-gauges{stale}"),
            html.Div(small, className=f"rf-small{stale}"),
        ],
        className="rf-device",
        **{"data-device": row["device_id"]},
    )


def _bar(name: str, text: str, share: float | None, missing: Mapping[str, str]) -> Any:
    return html.Div(
        [
            html.Div(
                [html.Span(_READINGS[name]), _value(name, text, share is None, missing)],
                className="rf-gauge-head",
            ),
            dmc.Progress(
                value=round(100 * (share or 0.0), 1),
                size="md",
                color="blue",
                **{"aria-label": _READINGS[name]},
            ),
        ],
        className="rf-gauge",
    )


def _small(name: str, text: str, missing: Mapping[str, str]) -> Any:
    return html.Div(
        [html.Span(_READINGS[name], className="rf-faint"), _value(name, text, text == units.UNKNOWN, missing)]
    )


def _value(name: str, text: str, unknown: bool, missing: Mapping[str, str]) -> Any:
    if unknown and name in missing:
        return html.Span([units.UNKNOWN, " ", term("why?", missing[name])], **{"data-missing": missing[name]})
    return html.Span(text, **{"data-reading": name})


def _sparkline(trace: Trace) -> Any:
    """Utilisation over the last five minutes, from 0 at the bottom to 100 % at the top."""
    inside: Any = html.Span("no readings in the last 5 min", className="rf-faint")
    if len(trace) > 1:
        latest = units.percent_text(trace[-1][1])
        inside = html.Img(
            src=_svg(trace),
            alt=f"Utilisation over the last 5 minutes; now {latest}",
            className="rf-sparkline",
        )
    head = html.Div("Utilisation, last 5 min", className="rf-gauge-head rf-faint")
    return html.Div([head, inside], className="rf-gauge")


def _svg(trace: Trace) -> str:
    """The line as an image's address; 300 wide, a unit a second, and 100 high."""
    line = " ".join(f"{300 - age:.0f},{100 - 100 * share:.1f}" for age, share in trace)
    first, last = 300 - trace[0][0], 300 - trace[-1][0]
    drawing = (
        "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 -3 300 106' preserveAspectRatio='none'>"
        f"<polygon points='{first:.0f},100 {line} {last:.0f},100' fill='#228be6' fill-opacity='0.25'/>"
        f"<polyline points='{line}' fill='none' stroke='#228be6' stroke-width='2'"
        " vector-effect='non-scaling-stroke'/></svg>"
    )
    return f"data:image/svg+xml,{quote(drawing)}"
