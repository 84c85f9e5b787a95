"""Roofs: the ceilings of a device, from its rows or from the catalogue, and their lines on the chart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go

from roofleet_analysis import units
from roofleet_analysis.catalogs.hardware import Hardware
from roofleet_analysis.roofline import ridge_point

__all__ = ["DeviceRoofs", "Roof", "add_roofs", "hardware_roofs", "pairs", "stored_roofs"]

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Roof:
    """One ceiling: FLOP/s for a dtype, or bytes/s of a memory level."""

    kind: str
    name: str
    per_s: float
    source_kind: str
    source: str


@dataclass(frozen=True)
class DeviceRoofs:
    """The ceilings of one device or catalogue entry."""

    title: str
    roofs: tuple[Roof, ...]
    drawn: tuple[str, ...] = ()
    """The dtypes whose compute roofs are drawn."""

    def dtypes(self) -> list[str]:
        """The dtypes it has compute roofs for."""
        return sorted({roof.name for roof in self.roofs if roof.kind == "compute"})


def stored_roofs(title: str, rows: Sequence[Row], drawn: Sequence[str]) -> DeviceRoofs:
    """Roofs from rows of roofline_roofs, all of one device."""
    return DeviceRoofs(
        title,
        tuple(
            Roof(
                row["kind"],
                (row["dtype"] if row["kind"] == "compute" else row["memory_level"]) or "memory",
                row["flops_per_s"] if row["kind"] == "compute" else row["bytes_per_s"],
                row["source_kind"],
                row["source"],
            )
            for row in rows
        ),
        tuple(drawn),
    )


def hardware_roofs(entry: Hardware, drawn: Sequence[str]) -> DeviceRoofs:
    """Roofs of a catalogue entry: its datasheet's."""
    compute = [
        Roof("compute", dtype, best.flops_per_s, "datasheet", best.source)
        for dtype in sorted({roof.dtype for roof in entry.compute})
        if (best := entry.compute_roof(dtype)) is not None
    ]
    memory = Roof("memory", entry.memory_level, entry.memory_bytes_per_s, "datasheet", entry.memory_source)
    return DeviceRoofs(entry.title, (*compute, memory), tuple(drawn))


def pairs(device: DeviceRoofs) -> list[tuple[Roof, list[Roof]]]:
    """Each memory roof with the compute roofs it leads up to: those from the same kind of source, and those
    that have no memory roof of their own kind."""
    memories = [roof for roof in device.roofs if roof.kind == "memory"]
    kinds = {roof.source_kind for roof in memories}
    pairs = []
    for memory in memories:
        computes = [
            roof
            for roof in device.roofs
            if roof.kind == "compute"
            and roof.name in device.drawn
            and (roof.source_kind == memory.source_kind or roof.source_kind not in kinds)
        ]
        pairs.append((memory, computes))
    return pairs


def add_roofs(
    figure: go.Figure, device: DeviceRoofs, low: float, high: float, colour: str, named_at: float
) -> None:
    """All roofs of a device. The name of a slope stands at the fraction `named_at` of the chart's width, or
    near the slope's end where it does not reach as far."""
    for memory, computes in pairs(device):
        ridges = [ridge_point(compute.per_s, memory.per_s) for compute in computes]
        xs = _steps(low, max(ridges, default=high))
        bandwidth = units.bandwidth_text(memory.per_s)
        slope = _line(device, memory, bandwidth, xs, [x * memory.per_s for x in xs], colour)
        slope.showlegend = True
        place = min(sum(x < low * (high / low) ** named_at for x in xs), len(xs) - 4)
        slope.text = [f"{memory.name} · {bandwidth}" if n == place else "" for n in range(len(xs))]
        figure.add_trace(slope)
        for compute, ridge in zip(computes, ridges, strict=True):
            xs = _steps(ridge, high)
            rate = units.rate_text(compute.per_s, "FLOP/s")
            flat = _line(device, compute, rate, xs, [compute.per_s] * len(xs), colour)
            flat.text = [""] * (len(xs) - 1) + [f"{compute.name} · {rate}"]
            figure.add_trace(flat)
            figure.add_trace(_ridge(device, compute, ridge, colour, slope.legendgroup))


def _line(
    device: DeviceRoofs, roof: Roof, height: str, xs: list[float], ys: list[float], colour: str
) -> go.Scatter:
    name = f"{device.title} · roofs ({roof.source_kind})"
    return go.Scatter(
        x=xs,
        y=ys,
        mode="lines+text",
        textposition="top left",
        textfont={"color": colour, "size": 11},
        name=name,
        legendgroup=name,
        showlegend=False,
        line={"color": colour, "width": 2, "dash": "solid" if roof.source_kind == "measured" else "dash"},
        hovertemplate=f"<b>{device.title}</b><br>{roof.kind} roof, {roof.name}: {height}"
        f"<br>{roof.source_kind}: {_wrapped(roof.source)}<extra></extra>",
    )


def _ridge(device: DeviceRoofs, compute: Roof, ridge: float, colour: str, group: str) -> go.Scatter:
    return go.Scatter(
        x=[ridge],
        y=[compute.per_s],
        mode="markers",
        name=f"ridge {compute.name}",
        legendgroup=group,
        showlegend=False,
        marker={"symbol": "diamond-open", "size": 9, "color": colour, "line": {"width": 2}},
        hovertemplate=f"<b>{device.title}</b><br>ridge point of {compute.name}: "
        f"{units.intensity_text(ridge)}<br>left of it memory binds, right of it compute<extra></extra>",
    )


def _steps(low: float, high: float) -> list[float]:
    """Points along a line, close enough that one is near wherever the pointer is."""
    return [low * (high / low) ** (step / 40) for step in range(41)]


def _wrapped(text: str, width: int = 60) -> str:
    """Long sources in lines that fit a small screen."""
    return "<br>".join(text[place : place + width] for place in range(0, len(text), width))
