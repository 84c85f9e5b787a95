"""What the roofline page shows for a state: series, roofs, notes, and the details of the chosen point."""

from __future__ import annotations

import json
from typing import Any

import dash_mantine_components as dmc
from dash import dcc, html

from roofleet_analysis.catalogs.hardware import find_hardware
from roofleet_analysis.units import percent_text
from roofleet_dashboard import queries
from roofleet_dashboard.figures.roofline import Series, drawable
from roofleet_dashboard.figures.roofs import hardware_roofs, stored_roofs
from roofleet_dashboard.figures.tables import figures_table, layer_figures, point_figures, rows_table
from roofleet_dashboard.pages.common import RunIndex, nothing, run_label
from roofleet_dashboard.source import Source
from roofleet_dashboard.state import LayerAt, NetworkState, RooflineState, RunPhase

Conditions = tuple[str, int | None, str | None, str | None]
"""Device, threads, torch and driver: what decides the roofs of a run."""

__all__ = ["RooflineView", "details", "hint"]


class RooflineView:
    """What the chart shows for a state: series, roofs, and the words beside them. Raises SourceError."""

    def __init__(self, source: Source, state: RooflineState) -> None:
        self.index = RunIndex(source, (item.run_id for item in state.runs))
        self.runs = [item for item in state.runs if item.run_id in self.index.rows]
        if not state.runs and self.index.latest:
            run_id = self.index.latest["run_id"]
            self.runs = [RunPhase(run_id, phase) for phase in self.index.phases(run_id)]
        rows = [self.index.rows[item.run_id] for item in self.runs]
        shapes = {run_id: place for place, run_id in enumerate(dict.fromkeys(r.run_id for r in self.runs))}
        labels = _labels(self.runs, rows)
        self.series = [
            Series(
                label,
                tuple(queries.rows(source, "roofline_points", item.run_id, item.phase, state.level)),
                shapes[item.run_id],
            )
            for label, item in zip(labels, self.runs, strict=True)
        ]
        # runs under other conditions are under other roofs, of the same device too
        under: dict[Conditions, list[queries.Row]] = {}
        for row in rows:
            under.setdefault(_conditions(row), []).append(row)
        every = sorted({row["dtype"] for row in rows}) or ["bf16"]
        self.devices = [
            stored_roofs(
                _device_title(those[0], list(under)),
                queries.rows(source, "roofs", those[0]["run_id"]),
                state.dtypes or sorted({row["dtype"] for row in those} | self._product_dtypes(those)),
            )
            for those in under.values()
        ]
        self.devices += [
            hardware_roofs(entry, state.dtypes or every)
            for name in state.hardware
            if (entry := find_hardware(name))
        ]
        self.all_dtypes = sorted({dtype for device in self.devices for dtype in device.dtypes()})
        self.note = self._note(state, [item for item in state.runs if item not in self.runs])

    def _product_dtypes(self, runs: list[queries.Row]) -> set[str]:
        """The types in which the shown points of these runs compute, where a run is mixed."""
        wanted = {run["run_id"] for run in runs}
        points = [row for one in self.series for row in one.rows if row["run_id"] in wanted]
        return {dtype for row in points for dtype in json.loads(row["product_dtypes"] or "{}")}

    def _note(self, state: RooflineState, gone: list[RunPhase]) -> Any:
        said = []
        if not self.series:
            said.append("No run is shown: choose one above, or profile a model first.")
        if gone:
            said.append(f"Not in the collector: {', '.join(str(item) for item in gone)}.")
        for device in self.devices:
            if not set(device.dtypes()) & set(device.drawn):
                said.append(f"{device.title} has no compute roof in {' or '.join(device.drawn)}.")
        hidden = [str(r["name"]) for one in self.series for r in one.rows if not drawable(r)]
        if hidden:
            names = ", ".join(list(dict.fromkeys(hidden))[:4])
            more = " and others" if len(set(hidden)) > 4 else ""
            said.append(f"Not on the chart, as they move bytes but compute nothing: {names}{more}.")
        faults = [(one.label, row) for one in self.series for row in one.rows if row["fault"]]
        for label, row in faults[:3]:
            said.append(f"Above its roof: {row['name']} of {label}, {row['fault']}.")
        if len(faults) > 3:
            said.append(f"{len(faults) - 3} more points lie above their roof; each says why.")
        for device in self.devices:
            loads = [roof.other_load for roof in device.roofs if roof.other_load is not None]
            if loads and max(loads) > 0.1:
                said.append(
                    f"Roofs of {device.title} were measured while other work took up to "
                    f"{percent_text(max(loads))} of the processors, and may be too low."
                )
        said.append(
            "The star is the whole model. Solid roofs are the most that was seen on the device, dashed "
            "ones its datasheet's; the dotted slope is that of data that stay in caches. Choose an entry "
            "below the chart to hide or show it."
        )
        return [html.P(sentence) for sentence in said]


def _conditions(row: queries.Row) -> Conditions:
    return row["device_id"], row["threads"], row["torch_version"], row["driver_version"]


def _device_title(row: queries.Row, every: list[Conditions]) -> str:
    """The device, with the conditions where it is shown under several."""
    title = f"{row['device_name']} ({row['hostname']})"
    if sum(conditions[0] == row["device_id"] for conditions in every) == 1:
        return title
    threads = None if row["threads"] is None else f"{row['threads']} threads"
    torch = None if row["torch_version"] is None else f"torch {row['torch_version']}"
    return " · ".join(part for part in (title, threads, torch, row["driver_version"]) if part)


def _labels(runs: list[RunPhase], rows: list[queries.Row]) -> list[str]:
    """Short names for the legend, with the start of the run's id where they would be the same."""
    plain = [
        f"{row['model_name']} {item.phase} · {row['device_name']}"
        for item, row in zip(runs, rows, strict=True)
    ]
    return [
        label if plain.count(label) == 1 else f"{label} · {row['dtype']} · run {item.run_id[:8]}"
        for label, item, row in zip(plain, runs, rows, strict=True)
    ]


def hint() -> Any:
    return dmc.Paper(
        html.P("Choose a point of the chart to see its numbers here."),
        withBorder=True, p="md", radius="md", className="rf-faint",
    )  # fmt: skip


def details(source: Source, point: LayerAt) -> Any:
    run_id, phase = point.at.run_id, point.at.phase
    rows = queries.rows(source, "roofline_points", run_id, phase, point.level)
    found = [row for row in rows if row["level"] == point.level and row["name"] == point.name]
    if not found:
        return nothing("This point is not in the collector.", html.P(f"The link names {point}."))
    run = RunIndex(source, [run_id]).rows[run_id]
    parts: list[Any] = [
        html.H2(point.name, className="rf-path"),
        html.P(f"{point.level} · {phase} · {run_label(run)}", className="rf-faint"),
    ]
    if point.level == "layer":
        layer = queries.rows(source, "layer", run_id, phase, point.name)[0]
        parts += [_network(point.at, point.name, "Show in the network"), figures_table(layer_figures(layer))]
    else:
        parts += [_network(point.at, None, "Show the network"), figures_table(point_figures(found[0]))]
    if point.level == "role":
        parts += [html.H3("Its longest layers"), _longest(source, point)]
    return dmc.Paper(parts, withBorder=True, p="md", radius="md", **{"data-point": str(point)})


def _longest(source: Source, point: LayerAt) -> Any:
    layers = queries.rows(source, "roofline_points", point.at.run_id, point.at.phase, "layer")
    rows = [row for row in layers if row["level"] == "layer" and row["role"] == point.name][:8]
    body = [
        [_network(point.at, row["name"], row["name"]), *(f.text for f in point_figures(row)[:2])]
        for row in rows
    ]
    return rows_table(("Layer", "Own time", "Share"), body)


def _network(at: RunPhase, path: str | None, label: str) -> Any:
    opened = (path.rpartition(".")[0],) if path and "." in path else None
    state = NetworkState(run=at.run_id, phase=at.phase, opened=opened, node=path)
    return dcc.Link(label, href="/network" + state.search())
