"""The summary of one run under the table of runs, and the way to compare those that are ticked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import dash_mantine_components as dmc
from dash import dcc, html

from roofleet_analysis.units import workload_text
from roofleet_dashboard import queries
from roofleet_dashboard.figures.runs import bottleneck_table, phase_table, run_figures
from roofleet_dashboard.figures.tables import ABOVE, figures_table
from roofleet_dashboard.pages.common import nothing
from roofleet_dashboard.source import Source
from roofleet_dashboard.state import NetworkState, RooflineState, RunPhase

__all__ = ["compare", "summary"]

BOTTLENECKS = 5
"""Layers listed for each phase."""


def summary(source: Source, run_id: str | None) -> Any:
    if run_id is None:
        return None
    found = queries.rows(source, "run", run_id)
    if not found:
        return nothing("This run is not there.", html.P(f"The link names {run_id}."))
    run = found[0]
    phases = queries.rows(source, "phases", run_id)
    worst = queries.rows(source, "bottlenecks", run_id, BOTTLENECKS)
    measured = run["status"] != "analyzed"
    where = f"on {run['device_name']} ({run['hostname']})" if measured else "· analysed, not run"
    how = run["dtype"] if run["variant"] == "base" else f"{run['dtype']}, {run['variant']}"
    title = f"{run['model_name']} · {how} {where}"
    workload = workload_text(run["batch_size"], run["prompt_tokens"], run["new_tokens"])
    if run["run_name"]:
        title = f"{run['run_name']} · {title}"
    parts: list[Any] = [html.H2(title), html.P(workload, className="rf-faint")]
    if run["tags"]:
        parts.append(dmc.Group([dmc.Badge(tag, variant="light", tt="none") for tag in run["tags"]]))
    if run["note"]:
        parts.append(html.P(run["note"], className="rf-note"))
    if run["error"]:
        parts.append(dmc.Alert(run["error"], title=f"This run is {run['status']}", color="red"))
    if run["noise"]:
        parts.append(dmc.Alert(f"{run['noise']}.", title="Too noisy to rely on its times", color="yellow"))
    if run["fault"]:
        parts.append(
            dmc.Alert([f"{run['fault']}. ", ABOVE], title="Above its roof, marked (!)", color="orange")
        )
    if phases:
        parts.append(_links(run_id, [row["phase"] for row in phases] if measured else []))
    parts.append(figures_table(run_figures(run), exact=False))
    if phases:
        parts += [html.H3("Phases"), phase_table(phases)]
    if worst:
        parts += [
            html.H3("Where time could be saved"),
            html.P(
                "The layers whose own time lies furthest above what their operations would take at the roof.",
                className="rf-faint",
            ),
            bottleneck_table(worst, lambda row: _layer_link(run_id, row)),
        ]
    return dmc.Paper(parts, withBorder=True, p="md", radius="md", **{"data-run": run_id})


def _links(run_id: str, phases: list[str]) -> Any:
    """The ways to the charts of a run; what has no time, so that no phases are given, has no roofline."""
    roofline = RooflineState(runs=tuple(RunPhase(run_id, phase) for phase in phases))
    buttons = [_button("Show on the roofline", "/roofline" + roofline.search())] if phases else []
    buttons.append(_button("Show its network", "/network" + NetworkState(run=run_id).search()))
    return dmc.Group(buttons, className="rf-buttons")


def _button(label: str, href: str) -> Any:
    return dcc.Link(label, href=href, className="rf-button")


def _layer_link(run_id: str, row: Mapping[str, Any]) -> Any:
    state = NetworkState(run=run_id, phase=row["phase"], opened=_above(row["path"]), node=row["path"])
    return dcc.Link(row["path"] or "the model itself", href="/network" + state.search())


def _above(path: str) -> tuple[str, ...] | None:
    """What to open so that a layer is in sight; None, as it first is, for one that always is."""
    return (path.rpartition(".")[0],) if "." in path else None


def compare(source: Source, ticked: tuple[str, ...]) -> Any:
    if not ticked:
        return None
    picked = tuple(
        RunPhase(run_id, row["phase"]) for run_id in ticked for row in queries.rows(source, "phases", run_id)
    )
    count = f"{len(ticked)} run{'s' if len(ticked) != 1 else ''} ticked"
    if not picked:
        return html.P(f"{count}; nothing was measured in {'them' if len(ticked) != 1 else 'it'}.")
    href = "/roofline" + RooflineState(runs=picked).search()
    return dmc.Group([html.Span(count), _button("Compare on the roofline", href)], className="rf-buttons")
