"""The roofline page: any runs on any devices on one chart, and the details of a point."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import dash
import dash_mantine_components as dmc
from dash import Input, Output, State, ctx, dcc, html, no_update

from roofleet_analysis.catalogs.hardware import hardware
from roofleet_dashboard.callbacks import callback
from roofleet_dashboard.figures.palette import theme_of
from roofleet_dashboard.figures.roofline import roofline_figure
from roofleet_dashboard.pages.common import away, head, no_runs, retry
from roofleet_dashboard.pages.roofline_view import RooflineView, details, hint
from roofleet_dashboard.shell import SCHEME, Page
from roofleet_dashboard.source import Source, SourceError
from roofleet_dashboard.state import LEVELS, LayerAt, RooflineState, RunPhase

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

_CHART_BUTTONS = ["toImage", "zoom2d", "pan2d", "zoomIn2d", "zoomOut2d", "resetScale2d"]
_LEVEL_LABELS = {"model": "Model", "role": "Role", "layer": "Layer"}


def layout(search: str) -> Any:
    """The page before its first answer, its controls as the URL says."""
    state = RooflineState.parse(search)
    return [
        dcc.Location(id=LOCATION, refresh="callback-nav"),
        dcc.Store(id=DRAWN),
        head(
            "Roofline",
            "How much each part of a model computes for every byte it moves (across), and how fast it does "
            "so (up). The lines are what a device allows: what lies above one is marked as a fault. Under "
            "the slope memory binds, under the flat part compute; far below both it is overhead. Larger "
            "points take more time.",
        ),
        html.Div(id=NOTICE),
        html.Div(_controls(state), className="rf-controls"),
        html.Div(
            [
                html.Div(
                    [
                        dcc.Graph(
                            id=CHART,
                            config={
                                "displaylogo": False,
                                "scrollZoom": True,
                                "responsive": True,
                                "modeBarButtons": [_CHART_BUTTONS],
                            },
                        ),
                        html.Div(id=NOTE, className="rf-faint"),
                    ],
                    className="rf-main",
                ),
                html.Div(id=DETAILS, className="rf-side"),
            ],
            className="rf-split",
        ),
        retry(RETRY),
    ]


def _controls(state: RooflineState) -> list[Any]:
    catalogue = [{"value": entry.name, "label": entry.title} for entry in hardware()]
    return [
        html.Div(
            dmc.MultiSelect(
                id=RUNS,
                label="Runs and phases",
                data=[],
                value=[],
                searchable=True,
                clearable=True,
                limit=60,
                placeholder="Add a run",
                nothingFoundMessage="No such run",
            ),
            className="rf-wide",
        ),
        html.Div(
            [
                html.Label("One point for each", className="rf-label"),
                dmc.SegmentedControl(
                    id=LEVEL,
                    value=state.level,
                    data=[{"value": k, "label": _LEVEL_LABELS[k]} for k in LEVELS],
                ),
            ]
        ),
        html.Div(
            dmc.MultiSelect(
                id=HARDWARE,
                label="Other hardware, from its datasheet",
                data=catalogue,
                searchable=True,
                value=list(state.hardware),
                clearable=True,
                placeholder="Add roofs",
            ),
            className="rf-wide",
        ),
        dmc.MultiSelect(
            id=DTYPES,
            label="Compute roofs of",
            data=[],
            value=list(state.dtypes),
            clearable=True,
            placeholder="Dtypes of the runs",
        ),
    ]


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
        Output(CHART, "style"),
        Output(NOTE, "children"),
        Output(NOTICE, "children"),
        Output(RETRY, "disabled"),
        Output(DRAWN, "data"),
        Input(LOCATION, "search"),
        Input(RUNS, "value"),
        Input(LEVEL, "value"),
        Input(HARDWARE, "value"),
        Input(DTYPES, "value"),
        Input(SCHEME, "data"),
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
            shown = RooflineView(source, state)
        except SourceError as error:
            return (*[no_update] * 10, away(error), False, None)
        figure = roofline_figure(shown.series, shown.devices, theme_of(scheme))
        return (
            state.search() if from_controls else no_update,
            shown.index.phase_options(),
            [str(item) for item in shown.runs],
            state.level,
            list(state.hardware),
            shown.all_dtypes,
            list(state.dtypes),
            figure,
            # a responsive chart fills its box, so the box has to be as tall as the figure says
            {"height": f"{figure.layout.height}px"},
            shown.note,
            None if shown.index.rows else no_runs(),
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
            return hint()
        try:
            return details(source, point)
        except SourceError:
            return no_update


PAGE = Page("/roofline", "Roofline", layout, register)
