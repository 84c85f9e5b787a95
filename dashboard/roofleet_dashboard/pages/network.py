"""The network page: a model's layers and the data between them, folded until opened."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import dash
import dash_cytoscape as cyto
import dash_mantine_components as dmc
from dash import ClientsideFunction, Input, Output, State, ctx, dcc, html, no_update

from roofleet_dashboard.callbacks import callback
from roofleet_dashboard.figures.network import stylesheet
from roofleet_dashboard.figures.network_metrics import METRICS
from roofleet_dashboard.figures.palette import theme_of
from roofleet_dashboard.pages.common import away, head, retry
from roofleet_dashboard.pages.network_view import NetworkView
from roofleet_dashboard.shell import SCHEME, Page
from roofleet_dashboard.source import Source, SourceError
from roofleet_dashboard.state import NetworkState

__all__ = ["PAGE"]

LOCATION = "network-location"
NOTICE = "network-notice"
RUN = "network-run"
PHASE = "network-phase"
METRIC = "network-metric"
MEANING = "network-meaning"
LEGEND = "network-legend"
GRAPH = "network-graph"
BODY = "network-body"
NOTE = "network-note"
EDGE = "network-edge"
DETAILS = "network-details"
FOLD = "network-fold"
FOLD_ALL = "network-fold-all"
DRAWN = "network-drawn"
FOCUSED = "network-focused"
RETRY = "network-retry"


def layout(search: str) -> Any:
    """The page before its first answer, its controls as the URL says."""
    state = NetworkState.parse(search)
    return [
        dcc.Location(id=LOCATION, refresh="callback-nav"),
        dcc.Store(id=DRAWN),
        dcc.Store(id=FOCUSED),
        head(
            "Network",
            "The layers of a model from top to bottom in the order they run. A box with a double border "
            "holds more: choose it to open it, and the name at the top of its frame (▾) to fold it again. "
            "Colour and size show the metric; arrows are tensors, the wider the more bytes.",
        ),
        html.Div(id=NOTICE),
        html.Div(_controls(state), className="rf-controls"),
        html.Div(id=MEANING, className="rf-faint"),
        html.Div(
            [
                html.Div(
                    [
                        html.Div(id=LEGEND),
                        cyto.Cytoscape(
                            id=GRAPH,
                            elements=[],
                            layout={"name": "preset", "fit": False},
                            stylesheet=stylesheet(theme_of(None)),
                            minZoom=0.15,
                            maxZoom=2.5,
                            autoungrabify=True,
                            responsive=True,
                            className="rf-graph",
                            style={},
                        ),
                        html.Div("Point at an arrow to see what it carries.", id=EDGE, className="rf-edge"),
                        html.Div(id=NOTE, className="rf-faint"),
                    ],
                    className="rf-main",
                ),
                html.Div(
                    [
                        html.Div(
                            [
                                html.Button("Fold this layer", id=FOLD, className="rf-button", disabled=True),
                                html.Button("Start over", id=FOLD_ALL, className="rf-button"),
                            ],
                            className="rf-buttons",
                        ),
                        html.Div(id=DETAILS),
                    ],
                    className="rf-side",
                ),
            ],
            id=BODY,
            className="rf-split",
        ),
        retry(RETRY),
    ]


def _controls(state: NetworkState) -> list[Any]:
    metrics = [{"value": name, "label": metric.label} for name, metric in METRICS.items()]
    return [
        dmc.Select(
            id=RUN, label="Run", data=[], searchable=True, allowDeselect=False, limit=60, className="rf-wide",
            nothingFoundMessage="No such run",
        ),
        dmc.Select(id=PHASE, label="Phase", data=[], allowDeselect=False, className="rf-narrow"),
        dmc.Select(
            id=METRIC, label="Colour and size by", data=metrics, value=state.metric, allowDeselect=False,
            className="rf-narrow",
        ),
    ]  # fmt: skip


def register(app: dash.Dash, source: Source) -> None:
    """The callbacks: one keeps URL, controls and graph in step; the browser moves the view by itself."""

    @callback(
        app,
        Output(LOCATION, "search"),
        Output(RUN, "data"),
        Output(RUN, "value"),
        Output(PHASE, "data"),
        Output(PHASE, "value"),
        Output(METRIC, "value"),
        Output(MEANING, "children"),
        Output(LEGEND, "children"),
        Output(GRAPH, "elements"),
        Output(GRAPH, "stylesheet"),
        Output(BODY, "style"),
        Output(NOTE, "children"),
        Output(DETAILS, "children"),
        Output(FOLD, "disabled"),
        Output(NOTICE, "children"),
        Output(RETRY, "disabled"),
        Output(DRAWN, "data"),
        Input(LOCATION, "search"),
        Input(RUN, "value"),
        Input(PHASE, "value"),
        Input(METRIC, "value"),
        Input(GRAPH, "tapNode"),
        Input(FOLD, "n_clicks"),
        Input(FOLD_ALL, "n_clicks"),
        Input(SCHEME, "data"),
        Input(RETRY, "n_intervals"),
        State(LOCATION, "pathname"),
        State(DRAWN, "data"),
    )
    def draw(
        search: str | None,
        run: str | None,
        phase: str | None,
        metric: str,
        tapped: Any,
        _fold: int | None,
        _fold_all: int | None,
        scheme: str | None,
        _ticks: int | None,
        pathname: str | None,
        drawn: str | None,
    ) -> tuple[Any, ...]:
        if search is None or pathname not in (None, PAGE.path):
            raise dash.exceptions.PreventUpdate
        state = NetworkState.parse(search)
        trigger = ctx.triggered_id if drawn is not None else None
        try:
            shown = NetworkView(source, state)
            wanted = state
            if trigger == RUN and run is not None and run != shown.state.run:
                wanted = NetworkState(run=run, metric=state.metric)
            elif trigger == PHASE and phase != shown.state.phase:
                wanted = replace(state, run=shown.state.run, phase=phase)
            elif trigger == METRIC:
                wanted = replace(state, metric=metric)
            elif trigger == GRAPH and tapped:
                wanted = shown.tapped(tapped["data"])
            elif trigger == FOLD:
                wanted = shown.folded(state.node or "")
            elif trigger == FOLD_ALL:
                wanted = replace(state, opened=None, node=None)
            key = f"{wanted.search()} {scheme}"
            if key == drawn:
                raise dash.exceptions.PreventUpdate
            if wanted != state:
                shown = NetworkView(source, wanted)
        except SourceError as error:
            return (*[no_update] * 14, away(error), False, None)
        return (
            wanted.search() if wanted != state else no_update,
            shown.index.options(),
            shown.state.run,
            list(shown.phases),
            shown.state.phase,
            wanted.metric,
            METRICS[wanted.metric].meaning,
            *shown.drawn(scheme),
            True,
            key,
        )

    app.clientside_callback(
        ClientsideFunction("roofleet", "focus"),
        Output(FOCUSED, "data"),
        Input(GRAPH, "elements"),
        State(GRAPH, "id"),
    )
    app.clientside_callback(
        ClientsideFunction("roofleet", "say"),
        Output(EDGE, "children"),
        Input(GRAPH, "mouseoverEdgeData"),
        Input(GRAPH, "tapEdgeData"),
        prevent_initial_call=True,
    )


PAGE = Page("/network", "Network", layout, register)
