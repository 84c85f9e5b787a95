"""The runs page: a table of all runs, the summary of one, and the way to compare several."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Any

import dash
import dash_ag_grid as dag
from dash import Input, Output, State, dcc, html, no_update

from roofleet_dashboard import queries
from roofleet_dashboard.callbacks import callback
from roofleet_dashboard.figures.runs import column_definitions, grid_rows
from roofleet_dashboard.pages.common import away, head, no_runs, retry
from roofleet_dashboard.pages.run_summary import compare, summary
from roofleet_dashboard.shell import Page
from roofleet_dashboard.source import Source, SourceError
from roofleet_dashboard.state import RunsState

__all__ = ["PAGE"]

LOCATION = "runs-location"
NOTICE = "runs-notice"
EMPTY = "runs-empty"
GRID = "runs-grid"
SUMMARY = "runs-summary"
COMPARE = "runs-compare"
RETRY = "runs-retry"

_GRID_STYLE = {"height": None, "width": "100%"}
_THEME = (
    "themeQuartz.withParams({backgroundColor: 'var(--mantine-color-body)',"
    " foregroundColor: 'var(--mantine-color-text)', accentColor: 'var(--mantine-color-blue-6)',"
    " fontFamily: 'inherit', browserColorScheme: 'inherit', headerFontWeight: 600, spacing: 6})"
)


def layout(search: str) -> Any:
    """The page before its first answer."""
    return [
        dcc.Location(id=LOCATION, refresh="callback-nav"),
        head(
            "Runs",
            "One line for each time a model was profiled. Choose a line to see its phases and where its "
            "time goes; tick several to compare them. Point at a column's head for what it means.",
        ),
        html.Div(id=NOTICE),
        html.Div(id=EMPTY),
        html.Div(id=COMPARE),
        _grid(RunsState.parse(search)),
        html.Div(id=SUMMARY, className="rf-summary"),
        retry(RETRY),
    ]


def _grid(state: RunsState) -> Any:
    return dag.AgGrid(
        id=GRID,
        columnDefs=column_definitions(),
        rowData=[],
        getRowId="params.data.run_id",
        filterModel=json.loads(state.filters) if state.filters else {},
        defaultColDef={"sortable": True, "resizable": True, "wrapHeaderText": True, "autoHeaderHeight": True},
        dashGridOptions={
            "theme": {"function": _THEME},
            "rowSelection": {"mode": "multiRow", "enableClickSelection": False},
            "selectionColumnDef": {"pinned": "left", "width": 44},
            "tooltipShowDelay": 300,
            "localeText": {"noRowsToShow": "No run to show"},
            "pagination": True,
            "paginationPageSize": 20,
            "paginationPageSizeSelector": [20, 50, 100],
            "domLayout": "autoHeight",
        },
        style=_GRID_STYLE,
        className="rf-grid",
    )


def register(app: dash.Dash, source: Source) -> None:
    """The callbacks: rows once, and the state from the URL, the ticks, the filters and the click."""

    @callback(
        app,
        Output(GRID, "columnDefs"),
        Output(GRID, "rowData"),
        Output(GRID, "style"),
        Output(EMPTY, "children"),
        Output(NOTICE, "children"),
        Output(RETRY, "disabled"),
        Input(RETRY, "n_intervals"),
        Input(GRID, "id"),
    )
    def load(_ticks: int | None, _grid: str) -> tuple[Any, ...]:
        try:
            rows = queries.rows(source, "runs")
        except SourceError as error:
            return no_update, no_update, no_update, no_update, away(error), False
        style = _GRID_STYLE if rows else {"display": "none"}
        return column_definitions(rows), grid_rows(rows), style, None if rows else no_runs(), None, True

    @callback(
        app,
        Output(LOCATION, "search"),
        Output(GRID, "filterModel"),
        Output(GRID, "selectedRows"),
        Input(LOCATION, "search"),
        Input(GRID, "cellClicked"),
        Input(GRID, "selectedRows"),
        Input(GRID, "filterModel"),
        Input(GRID, "rowData"),
        State(LOCATION, "pathname"),
        prevent_initial_call=True,
    )
    def follow(
        search: str | None, clicked: Any, selected: Any, filters: Any, data: Any, pathname: str | None
    ) -> tuple[Any, ...]:
        if pathname != PAGE.path:
            raise dash.exceptions.PreventUpdate
        state = RunsState.parse(search)
        shown = tuple(row["run_id"] for row in selected or [])
        trigger = _Trigger.now()
        if trigger.url or trigger.rows:
            model = json.loads(state.filters) if state.filters else {}
            ticks = no_update if set(state.ticked) == set(shown) else {"ids": list(state.ticked)}
            return no_update, no_update if model == (filters or {}) else model, ticks
        new = state
        if trigger.click and clicked and clicked.get("rowId") and clicked.get("colId") != _TICKS:
            new = replace(new, run=clicked["rowId"])
        if trigger.ticks and data:
            new = replace(new, ticked=shown)
        if trigger.filters:
            new = replace(new, filters=json.dumps(filters, sort_keys=True) if filters else None)
        return no_update if new == state else new.search(), no_update, no_update

    @callback(
        app,
        Output(SUMMARY, "children"),
        Output(COMPARE, "children"),
        Input(LOCATION, "search"),
        Input(NOTICE, "children"),
        State(LOCATION, "pathname"),
    )
    def sum_up(search: str | None, _notice: Any, pathname: str | None) -> tuple[Any, Any]:
        if pathname not in (None, PAGE.path):
            raise dash.exceptions.PreventUpdate
        state = RunsState.parse(search)
        try:
            return summary(source, state.run), compare(source, state.ticked)
        except SourceError:
            return no_update, no_update


_TICKS = "ag-Grid-SelectionColumn"


@dataclass(frozen=True)
class _Trigger:
    """Which of the inputs changed; several may at once."""

    url: bool
    rows: bool
    click: bool
    ticks: bool
    filters: bool

    @staticmethod
    def now() -> _Trigger:
        changed = set(dash.ctx.triggered_prop_ids)
        return _Trigger(
            url=f"{LOCATION}.search" in changed,
            rows=f"{GRID}.rowData" in changed,
            click=f"{GRID}.cellClicked" in changed,
            ticks=f"{GRID}.selectedRows" in changed,
            filters=f"{GRID}.filterModel" in changed,
        )


PAGE = Page("/runs", "Runs", layout, register)
