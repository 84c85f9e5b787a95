"""The network page: a model's layers and the data between them, folded until opened."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import dash
import dash_cytoscape as cyto
import dash_mantine_components as dmc
from dash import ClientsideFunction, Input, Output, State, ctx, dcc, html, no_update

from roofleet_dashboard import queries
from roofleet_dashboard.callbacks import callback
from roofleet_dashboard.figures.layer_tree import LayerTree
from roofleet_dashboard.figures.network import (
    METRIC_LABELS,
    METRIC_MEANINGS,
    elements,
    legend,
    short_name,
    stylesheet,
)
from roofleet_dashboard.figures.palette import theme_of
from roofleet_dashboard.figures.tables import figures_table, layer_figures
from roofleet_dashboard.pages.common import RunIndex, away, head, nothing, retry, run_label
from roofleet_dashboard.shell import SCHEME, Page
from roofleet_dashboard.source import Source, SourceError
from roofleet_dashboard.state import LayerAt, NetworkState, RooflineState, RunPhase

__all__ = ["PAGE"]

LOCATION = "network-location"
NOTICE = "network-notice"
RUN = "network-run"
PHASE = "network-phase"
METRIC = "network-metric"
MEANING = "network-meaning"
LEGEND = "network-legend"
GRAPH = "network-graph"
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
            "The layers of a model from top to bottom in the order they run. A box with a double border holds "
            "more: choose it to open it, and the name at the top of its frame (▾) to fold it again. Colour and size show the metric; arrows are tensors, the wider the "
            "more bytes.",
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
            className="rf-split",
        ),
        retry(RETRY),
    ]


def _controls(state: NetworkState) -> list[Any]:
    metrics = [{"value": name, "label": label} for name, label in METRIC_LABELS.items()]
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
        Input(SCHEME, "computedColorScheme"),
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
            shown = _Shown(source, state)
            wanted = state
            if trigger == RUN and run != shown.state.run:
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
                shown = _Shown(source, wanted)
        except SourceError as error:
            return (*[no_update] * 13, away(error), False, None)
        return (
            wanted.search() if wanted != state else no_update,
            shown.index.options(),
            shown.state.run,
            list(shown.phases),
            shown.state.phase,
            wanted.metric,
            METRIC_MEANINGS[wanted.metric],
            *shown.drawn(scheme),
            None,
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


class _Shown:
    """A state with everything it leaves open decided, and the rows it shows. Raises SourceError."""

    def __init__(self, source: Source, state: NetworkState) -> None:
        self._source = source
        self.index = RunIndex(source, [state.run] if state.run else [])
        latest = self.index.latest["run_id"] if self.index.latest else None
        run = state.run or latest
        self.phases = self.index.phases(run) if run else ()
        phase = state.phase if state.phase in self.phases else next(iter(self.phases), None)
        self.state = replace(state, run=run, phase=phase)
        self.tree = LayerTree(
            *(self._rows(name) for name in ("network_layers", "network_order", "network_edges"))
        )
        first = self.tree.first_open() if state.opened is None else state.opened
        self.opened = self.tree.closure(first)

    def _rows(self, name: str) -> list[queries.Row]:
        if self.state.run is None or self.state.phase is None:
            return []
        return queries.rows(self._source, name, self.state.run, self.state.phase)

    def tapped(self, data: dict[str, Any]) -> NetworkState:
        """The state after a box was chosen: a folded one opens, a frame's head folds it, any shows its details."""
        path = data["path"]
        if data["kind"] == "head":
            return self.folded(path)
        opened = self.opened | {path} if data.get("folds") else self.opened
        return self._with(opened, path)

    def folded(self, path: str) -> NetworkState:
        """The state after a layer was folded, with all that is inside it."""
        return self._with({p for p in self.opened if p != path and not p.startswith(f"{path}.")}, path)

    def _with(self, opened: set[str], node: str) -> NetworkState:
        # Only the innermost need naming: what is above them is open with them.
        inner = {p for p in opened if not any(other.startswith(f"{p}.") for other in opened)}
        return replace(self.state, opened=tuple(sorted(inner)), node=node)

    def drawn(self, scheme: str | None) -> tuple[Any, ...]:
        """Legend, elements, stylesheet, note, details, and whether there is nothing to fold."""
        state = self.state
        if not self.tree.inside(""):
            return None, [], no_update, _no_layers(state.run), None, True
        node = state.node
        return (
            legend(self.tree, self.opened, state.metric),
            elements(self.tree, self.opened, state.metric, node),
            stylesheet(theme_of(scheme)),
            self._note(),
            _details(self._source, state, self.tree) if node is not None else _hint(),
            node not in self.opened,
        )

    def _note(self) -> Any:
        said = []
        if self.tree.skipped:
            count = len(self.tree.skipped)
            said.append(f"{count} layer{'s do' if count != 1 else ' does'} not run in this phase and "
                        f"{'are' if count != 1 else 'is'} left out.")  # fmt: skip
        said.append("“inputs” stands for what no layer makes: tokens, positions and the cache.")
        return " ".join(said)


def _no_layers(run: str | None) -> Any:
    if run is None:
        return nothing(
            "No model has been profiled yet.",
            html.P("Profile one on a machine that reports to this collector, then come back."),
        )
    return nothing("This run has no layers in the collector.", html.P(f"The run is {run}."))


def _hint() -> Any:
    return dmc.Paper(
        html.P("Choose a box to see all its numbers here."),
        withBorder=True, p="md", radius="md", className="rf-faint",
    )  # fmt: skip


def _details(source: Source, state: NetworkState, tree: LayerTree) -> Any:
    assert state.run is not None
    assert state.phase is not None
    path = state.node or ""
    found = queries.rows(source, "layer", state.run, state.phase, path)
    if not found:
        return nothing("This layer is not in the run.", html.P(path))
    row = found[0]
    run = RunIndex(source, [state.run]).rows[state.run]
    about = [row["module_type"], row["role"]]
    if row["block_index"] is not None:
        about.append(f"block {row['block_index']}")
    point = LayerAt(RunPhase(state.run, state.phase), "layer", path)
    roofline = RooflineState(runs=(point.at,), level="layer", point=point)
    has_point = bool(row["ops"])
    return dmc.Paper(
        [
            html.H2(path or short_name(tree, ""), className="rf-path"),
            html.P(f"{' · '.join(about)} · {state.phase}", className="rf-faint"),
            html.P(run_label(run), className="rf-faint"),
            dcc.Link("Show on the roofline", href="/roofline" + roofline.search()) if has_point else None,
            figures_table(layer_figures(row)),
        ],
        withBorder=True,
        p="md",
        radius="md",
        **{"data-layer": path},
    )


PAGE = Page("/network", "Network", layout, register)
