"""The sweeps page: what batch, sequence, size and variant do to time and memory, as a chart and a table."""

from __future__ import annotations

from typing import Any

import dash
import dash_mantine_components as dmc
from dash import Input, Output, State, ctx, dcc, html, no_update

from roofleet_dashboard.callbacks import callback
from roofleet_dashboard.figures.palette import theme_of
from roofleet_dashboard.figures.sweeps import sweep_figure
from roofleet_dashboard.pages.common import away, head, nothing, retry
from roofleet_dashboard.pages.sweeps_view import SweepsView
from roofleet_dashboard.shell import SCHEME, Page
from roofleet_dashboard.source import Source, SourceError
from roofleet_dashboard.state import SweepsState

__all__ = ["PAGE"]

LOCATION = "sweeps-location"
NOTICE = "sweeps-notice"
SWEEP = "sweeps-sweep"
ACROSS = "sweeps-across"
FIGURE = "sweeps-figure"
ONLY = "sweeps-only"
CHART = "sweeps-chart"
TABLE = "sweeps-table"
DRAWN = "sweeps-drawn"
RETRY = "sweeps-retry"

_CONTROLS = (SWEEP, ACROSS, FIGURE, ONLY)


def layout(search: str) -> Any:
    """The page before its first answer."""
    return [
        dcc.Location(id=LOCATION, refresh="callback-nav"),
        dcc.Store(id=DRAWN),
        head(
            "Sweeps",
            "One model at every point of a grid: what the batch, the length of the prompt, the sizes of the "
            "model or a variant do to its time, its memory and its work. Each point is a run.",
        ),
        html.Div(id=NOTICE),
        html.Div(
            [
                html.Div(_select(SWEEP, "Sweep", searchable=True), className="rf-wide"),
                _select(FIGURE, "Show"),
                _select(ACROSS, "Along the axis"),
                dmc.MultiSelect(
                    id=ONLY, label="Only", data=[], value=[], clearable=True, placeholder="Add a value"
                ),
            ],
            className="rf-controls",
        ),
        dcc.Graph(
            id=CHART,
            style={"display": "none"},
            config={"displaylogo": False, "responsive": True, "modeBarButtons": [["toImage"]]},
        ),
        html.Div(id=TABLE),
        retry(RETRY),
    ]


def _select(identity: str, label: str, *, searchable: bool = False) -> Any:
    return dmc.Select(id=identity, label=label, data=[], searchable=searchable, allowDeselect=False)


def register(app: dash.Dash, source: Source) -> None:
    """The callbacks: one keeps URL, controls, chart and table in step, one opens the run of a point."""

    @callback(
        app,
        Output(LOCATION, "search"),
        Output(SWEEP, "data"),
        Output(SWEEP, "value"),
        Output(ACROSS, "data"),
        Output(ACROSS, "value"),
        Output(FIGURE, "data"),
        Output(FIGURE, "value"),
        Output(ONLY, "data"),
        Output(ONLY, "value"),
        Output(CHART, "figure"),
        Output(CHART, "style"),
        Output(TABLE, "children"),
        Output(NOTICE, "children"),
        Output(RETRY, "disabled"),
        Output(DRAWN, "data"),
        Input(LOCATION, "search"),
        Input(SWEEP, "value"),
        Input(ACROSS, "value"),
        Input(FIGURE, "value"),
        Input(ONLY, "value"),
        Input(SCHEME, "data"),
        Input(RETRY, "n_intervals"),
        State(LOCATION, "pathname"),
        State(DRAWN, "data"),
    )
    def draw(
        search: str | None,
        sweep: str | None,
        across: str | None,
        figure: str | None,
        only: list[str] | None,
        scheme: str | None,
        _ticks: int | None,
        pathname: str | None,
        drawn: str | None,
    ) -> tuple[Any, ...]:
        if search is None or pathname not in (None, PAGE.path):
            raise dash.exceptions.PreventUpdate
        state = SweepsState.parse(search)
        from_controls = ctx.triggered_id in _CONTROLS and drawn is not None
        if from_controls:
            state = SweepsState(sweep, across, figure, tuple(only or ()))
        key = f"{state.search()} {scheme}"
        if key == drawn:
            raise dash.exceptions.PreventUpdate
        try:
            shown = SweepsView(source, state)
        except SourceError as error:
            return (*[no_update] * 12, away(error), False, None)
        if shown.metric is None or shown.chosen.across is None:
            chart, style = no_update, {"display": "none"}
        else:
            chart = sweep_figure(shown.axes, shown.drawn, shown.chosen.across, shown.metric, theme_of(scheme))
            style = {"height": f"{chart.layout.height}px"}
        return (
            state.search() if from_controls else no_update,
            shown.sweep_options(),
            shown.chosen.sweep,
            shown.across_options(),
            shown.chosen.across,
            shown.metric_options(),
            shown.chosen.figure,
            shown.only_options(),
            list(shown.chosen.only),
            chart,
            style,
            shown.table(),
            None if shown.rows else _no_sweeps(),
            True,
            key,
        )

    @callback(
        app,
        Output(LOCATION, "href"),
        Input(CHART, "clickData"),
        prevent_initial_call=True,
    )
    def open_run(click: Any) -> Any:
        run_id = (click or {}).get("points", [{}])[0].get("customdata")
        return f"/runs?run={run_id}" if run_id else no_update


def _no_sweeps() -> Any:
    return nothing(
        "No model has been swept yet.",
        html.P("Run or analyse one over a grid on any machine that reaches this collector:"),
        html.Pre("roofleet sweep gpt2 --batch-size 1,2,4 --prompt-tokens 128,512 --collector HOST:7700"),
        html.P(
            "HOST is the machine the collector runs on. With --analyze nothing is run, so any model will do."
        ),
    )


PAGE = Page("/sweeps", "Sweeps", layout, register)
