"""What the network page shows for a state: the graph, its legend, and the details of the chosen layer."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import dash_mantine_components as dmc
from dash import dcc, html, no_update

from roofleet_dashboard import queries
from roofleet_dashboard.figures.layer_tree import LayerTree
from roofleet_dashboard.figures.network import elements, short_name, stylesheet
from roofleet_dashboard.figures.network_metrics import METRICS, legend
from roofleet_dashboard.figures.palette import theme_of
from roofleet_dashboard.figures.tables import figures_table, layer_figures
from roofleet_dashboard.pages.common import RunIndex, no_runs, nothing, run_label
from roofleet_dashboard.source import Source
from roofleet_dashboard.state import LayerAt, NetworkState, RooflineState, RunPhase

__all__ = ["NetworkView"]


class NetworkView:
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
        """The state after a box was chosen: a folded one opens, a frame's head folds it."""
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
        """Legend, elements, stylesheet, style of the body, note, details, whether nothing folds, notice."""
        state = self.state
        if not self.tree.inside(""):
            return None, [], no_update, {"display": "none"}, None, None, True, _no_layers(state.run)
        node = state.node
        return (
            legend(self.tree, self.opened, METRICS[state.metric]),
            elements(self.tree, self.opened, METRICS[state.metric], node),
            stylesheet(theme_of(scheme)),
            {},
            self._note(),
            _details(self._source, state, self.tree) if node is not None else _hint(),
            node not in self.opened,
            None,
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
        return no_runs()
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
