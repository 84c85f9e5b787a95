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

CACHE = "cache"
"""Memory level of what stays in the caches: a second, fainter slope above the memory's."""


@dataclass(frozen=True)
class Roof:
    """One ceiling: FLOP/s for a dtype, or bytes/s of a memory level."""

    kind: str
    name: str
    per_s: float
    source_kind: str
    source: str
    other_load: float | None = None
    """Share that other work took of the processors while it was measured."""

    @property
    def is_here(self) -> bool:
        """Whether it was measured or seen on the device, rather than promised by its datasheet."""
        return self.source_kind != "datasheet"


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
                row["other_load"],
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
    """Each memory roof with the compute roofs it leads up to: those from the same kind of source, here or the
    datasheet, and those that have no memory roof of their own kind. The caches lead to none of their own."""
    memories = [roof for roof in device.roofs if roof.kind == "memory" and roof.name != CACHE]
    kinds = {roof.is_here for roof in memories}
    pairs = []
    for memory in memories:
        computes = [
            roof
            for roof in device.roofs
            if roof.kind == "compute"
            and roof.name in device.drawn
            and (roof.is_here == memory.is_here or roof.is_here not in kinds)
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

    for cache in (roof for roof in device.roofs if roof.name == CACHE):
        xs = _steps(low, max((ridge_point(roof.per_s, cache.per_s) for roof in _drawn(device)), default=high))
        bandwidth = units.bandwidth_text(cache.per_s)
        slope = _line(device, cache, bandwidth, xs, [x * cache.per_s for x in xs], colour)
        slope.line.update(width=1, dash="dot")
        slope.text = [f"caches · {bandwidth}" if n == len(xs) // 3 else "" for n in range(len(xs))]
        figure.add_trace(slope)


def _drawn(device: DeviceRoofs) -> list[Roof]:
    """The compute roofs that are drawn and were measured or seen here, as the caches' was."""
    return [r for r in device.roofs if r.kind == "compute" and r.name in device.drawn and r.is_here]


def _line(
    device: DeviceRoofs, roof: Roof, height: str, xs: list[float], ys: list[float], colour: str
) -> go.Scatter:
    name = f"{device.title} · roofs ({'measured' if roof.is_here else 'datasheet'})"
    return go.Scatter(
        x=xs,
        y=ys,
        mode="lines+text",
        textposition="top left",
        textfont={"color": colour, "size": 11},
        name=name,
        legendgroup=name,
        showlegend=False,
        line={"color": colour, "width": 2, "dash": "solid" if roof.is_here else "dash"},
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
