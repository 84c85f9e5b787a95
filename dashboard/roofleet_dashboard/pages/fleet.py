"""The fleet page: every host and device, and what they are doing now."""

from __future__ import annotations

from typing import Any

import dash
from dash import Input, Output, dcc, html

from roofleet_dashboard import queries
from roofleet_dashboard.callbacks import callback
from roofleet_dashboard.figures.fleet import fleet_cards
from roofleet_dashboard.pages.common import away, head, nothing
from roofleet_dashboard.shell import Page
from roofleet_dashboard.source import Source, SourceError

__all__ = ["PAGE"]

REFRESH_MS = 3000

CARDS = "fleet-cards"
NOTICE = "fleet-notice"
TICK = "fleet-tick"


def layout(_search: str) -> Any:
    """The page before its first answer."""
    return [
        head(
            "Fleet",
            "Every machine that runs an agent and the devices in it, with their latest readings. "
            "The page keeps itself up to date.",
        ),
        html.Div(id=NOTICE),
        html.Div(id=CARDS),
        dcc.Interval(id=TICK, interval=REFRESH_MS),
    ]


def register(app: dash.Dash, source: Source) -> None:
    """The one callback: draws all cards anew at every tick."""

    @callback(app, Output(CARDS, "children"), Output(NOTICE, "children"), Input(TICK, "n_intervals"))
    def draw(_ticks: int | None) -> tuple[Any, Any]:
        try:
            devices = queries.rows(source, "fleet")
            recent = queries.rows(source, "recent_utilization")
        except SourceError as error:
            return dash.no_update, away(error)
        if not devices:
            return _empty(), None
        return fleet_cards(devices, recent), None


def _empty() -> Any:
    return nothing(
        "No machine has reported yet.",
        html.P("Start an agent on each machine you want to see. It dials this collector:"),
        html.Pre("roofleet agent --collector HOST:7700"),
        html.P("HOST is the machine the collector runs on. The machine appears here within seconds."),
    )


PAGE = Page("/", "Fleet", layout, register)
