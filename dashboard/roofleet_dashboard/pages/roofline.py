"""The roofline page: any runs on any devices on one chart, and the details of a point."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import dash
import dash_mantine_components as dmc
from dash import Input, Output, State, ctx, dcc, html, no_update

from roofleet_analysis.catalogs.hardware import find_hardware, hardware
from roofleet_dashboard import queries
from roofleet_dashboard.callbacks import callback
from roofleet_dashboard.figures.palette import theme_of
from roofleet_dashboard.figures.roofline import (
    Series,
    drawable,
    hardware_roofs,
    measured_roofs,
    roofline_figure,
)
from roofleet_dashboard.figures.tables import figures_table, layer_figures, point_figures, rows_table
from roofleet_dashboard.pages.common import RunIndex, away, head, nothing, retry, run_label
from roofleet_dashboard.shell import SCHEME, Page
from roofleet_dashboard.source import Source, SourceError
from roofleet_dashboard.state import LEVELS, LayerAt, NetworkState, RooflineState, RunPhase

__all__ = ["PAGE"]

LOCATION = "roofline-location"
NOTICE = "roofline-notice"
RUNS = "roofline-runs"
LEVEL = "roofline-level"
HARDWARE = "roofline-hardware"
DTYPES = "roofline-dtypes"
CHART = "roofline-chart"
NOTE = "roofline-note"
DETAILS = "roofline-details"
DRAWN = "roofline-drawn"
RETRY = "roofline-retry"

_LEVEL_LABELS = {"model": "Model", "role": "Role", "layer": "Layer"}


def layout(search: str) -> Any:
    """The page before its first answer, its controls as the URL says."""
    state = RooflineState.parse(search)
    return [
        dcc.Location(id=LOCATION, refresh="callback-nav"),
        dcc.Store(id=DRAWN),
        head(
            "Roofline",
            "How much each part of a model computes for every byte it moves (across), and how fast it does so "
            "(up). The lines are what a device allows: nothing can lie above them. Under the slope memory "
            "binds, under the flat part compute; far below both it is overhead. Larger points take more time.",
        ),
        html.Div(id=NOTICE),
        html.Div(_controls(state), className="rf-controls"),
        html.Div(
            [
                html.Div(
                    [
                        dcc.Graph(id=CHART, config={"displaylogo": False, "scrollZoom": True, "responsive": True,
                                                    "modeBarButtonsToRemove": ["select2d", "lasso2d"]}),
                        html.Div(id=NOTE, className="rf-faint"),
                    ],
                    className="rf-main",
                ),
                html.Div(id=DETAILS, className="rf-side"),
            ],
            className="rf-split",
        ),
        retry(RETRY),
    ]  # fmt: skip


def _controls(state: RooflineState) -> list[Any]:
    catalogue = [{"value": entry.name, "label": entry.title} for entry in hardware()]
    return [
        dmc.MultiSelect(
            id=RUNS, label="Runs and phases", data=[], value=[], searchable=True, clearable=True, limit=60,
            placeholder="The latest run", className="rf-wide", nothingFoundMessage="No such run",
        ),
        html.Div(
            [
                html.Label("One point for each", className="rf-label"),
                dmc.SegmentedControl(
                    id=LEVEL, value=state.level, data=[{"value": k, "label": _LEVEL_LABELS[k]} for k in LEVELS],
                ),
            ]
        ),
        dmc.MultiSelect(
            id=HARDWARE, label="Other hardware, from its datasheet", data=catalogue, value=list(state.hardware),
            searchable=True, clearable=True, placeholder="Add roofs", className="rf-wide",
        ),
        dmc.MultiSelect(
            id=DTYPES, label="Compute roofs of", data=[], value=list(state.dtypes), clearable=True,
            placeholder="Dtypes of the runs",
        ),
    ]  # fmt: skip


def register(app: dash.Dash, source: Source) -> None:
    """The callbacks: one keeps URL, controls and chart in step, one shows the chosen point."""

    @callback(
        app,
        Output(LOCATION, "search"),
        Output(RUNS, "data"),
        Output(RUNS, "value"),
        Output(LEVEL, "value"),
        Output(HARDWARE, "value"),
        Output(DTYPES, "data"),
        Output(DTYPES, "value"),
        Output(CHART, "figure"),
        Output(NOTE, "children"),
        Output(NOTICE, "children"),
        Output(RETRY, "disabled"),
        Output(DRAWN, "data"),
        Input(LOCATION, "search"),
        Input(RUNS, "value"),
        Input(LEVEL, "value"),
        Input(HARDWARE, "value"),
        Input(DTYPES, "value"),
        Input(SCHEME, "computedColorScheme"),
        Input(RETRY, "n_intervals"),
        State(LOCATION, "pathname"),
        State(DRAWN, "data"),
    )
    def draw(
        search: str | None,
        runs: list[str] | None,
        level: str,
        added: list[str] | None,
        dtypes: list[str] | None,
        scheme: str | None,
        _ticks: int | None,
        pathname: str | None,
        drawn: str | None,
    ) -> tuple[Any, ...]:
        if search is None or pathname not in (None, PAGE.path):
            raise dash.exceptions.PreventUpdate
        state = RooflineState.parse(search)
        from_controls = ctx.triggered_id in (RUNS, LEVEL, HARDWARE, DTYPES) and drawn is not None
        if from_controls:
            state = replace(
                state,
                runs=tuple(found for item in runs or [] if (found := RunPhase.parse(item))),
                level=level,
                hardware=tuple(added or ()),
                dtypes=tuple(dtypes or ()),
            )
        key = f"{replace(state, point=None).search()} {scheme}"
        if key == drawn:
            raise dash.exceptions.PreventUpdate
        try:
            shown = _Shown(source, state)
        except SourceError as error:
            return (*[no_update] * 9, away(error), False, None)
        figure = roofline_figure(shown.series, shown.devices, shown.dtypes, theme_of(scheme))
        return (
            state.search() if from_controls else no_update,
            shown.index.phase_options(),
            [str(item) for item in shown.runs],
            state.level,
            list(state.hardware),
            shown.all_dtypes,
            list(state.dtypes),
            figure,
            shown.note,
            None,
            True,
            key,
        )

    @callback(
        app,
        Output(LOCATION, "search", allow_duplicate=True),
        Input(CHART, "clickData"),
        State(LOCATION, "search"),
        prevent_initial_call=True,
    )
    def choose(click: Any, search: str | None) -> Any:
        chosen = (click or {}).get("points", [{}])[0].get("customdata")
        if not chosen:
            return no_update
        run_id, phase, level, name = chosen
        point = LayerAt(RunPhase(run_id, phase), level, name)
        return replace(RooflineState.parse(search), point=point).search()

    @callback(
        app,
        Output(DETAILS, "children"),
        Input(LOCATION, "search"),
        Input(DRAWN, "data"),
        State(LOCATION, "pathname"),
    )
    def detail(search: str | None, _drawn: Any, pathname: str | None) -> Any:
        if pathname not in (None, PAGE.path):
            raise dash.exceptions.PreventUpdate
        point = RooflineState.parse(search).point
        if point is None:
            return _hint()
        try:
            return _details(source, point)
        except SourceError:
            return no_update


class _Shown:
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
        devices = {row["device_id"]: f"{row['device_name']} ({row['hostname']})" for row in rows}
        self.devices = [
            measured_roofs(title, queries.rows(source, "roofs", d)) for d, title in devices.items()
        ]
        self.devices += [hardware_roofs(entry) for name in state.hardware if (entry := find_hardware(name))]
        self.all_dtypes = sorted({dtype for device in self.devices for dtype in device.dtypes()})
        self.dtypes = list(state.dtypes) or sorted({row["dtype"] for row in rows}) or ["bf16"]
        self.note = self._note(state, [item for item in state.runs if item not in self.runs])

    def _note(self, state: RooflineState, gone: list[RunPhase]) -> Any:
        said = []
        if not self.series:
            said.append("No run is shown: choose one above, or profile a model first.")
        if gone:
            said.append(f"Not in the collector: {', '.join(str(item) for item in gone)}.")
        without = [d.title for d in self.devices if not set(d.dtypes()) & set(self.dtypes)]
        if without:
            said.append(f"No compute roof in {', '.join(self.dtypes)}: {', '.join(without)}.")
        hidden = [str(r["name"]) for one in self.series for r in one.rows if not drawable(r)]
        if hidden:
            names = ", ".join(list(dict.fromkeys(hidden))[:4])
            more = " and others" if len(set(hidden)) > 4 else ""
            said.append(f"Not on the chart, as they move bytes but compute nothing: {names}{more}.")
        said.append("Solid roofs were measured on the device, dashed ones are its datasheet's. "
                    "Choose an entry below the chart to hide or show it.")  # fmt: skip
        return [html.P(sentence) for sentence in said]


def _labels(runs: list[RunPhase], rows: list[queries.Row]) -> list[str]:
    """Short names for the legend, with the start of the run's id where they would be the same."""
    plain = [
        f"{row['model_name']} {item.phase} · {row['device_name']}"
        for item, row in zip(runs, rows, strict=True)
    ]
    return [
        label if plain.count(label) == 1 else f"{label} · {row['dtype']} · run {item.run_id[:6]}"
        for label, item, row in zip(plain, runs, rows, strict=True)
    ]


def _hint() -> Any:
    return dmc.Paper(
        html.P("Choose a point of the chart to see its numbers here."),
        withBorder=True, p="md", radius="md", className="rf-faint",
    )  # fmt: skip


def _details(source: Source, point: LayerAt) -> Any:
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


PAGE = Page("/roofline", "Roofline", layout, register)
