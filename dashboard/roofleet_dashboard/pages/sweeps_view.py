"""What the sweeps page shows for a state: the sweep, what can be chosen, and the table under the chart."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

from dash import dcc, html

from roofleet_analysis import units
from roofleet_analysis.sweeps import Axes, label, value_label, varying
from roofleet_dashboard import queries
from roofleet_dashboard.figures.sweeps import (
    METRICS,
    Metric,
    Result,
    axis_label,
    known_metrics,
    results,
)
from roofleet_dashboard.figures.tables import rows_table, term
from roofleet_dashboard.source import Source
from roofleet_dashboard.state import SweepsState

__all__ = ["SweepsView"]

_SHOWN = ("done", "analyzed")


class SweepsView:
    """A sweep that is looked at; `chosen` is the state with everything in it that was left open.

    Without any sweep `chosen.sweep` is None and there is nothing to draw.
    """

    def __init__(self, source: Source, state: SweepsState) -> None:
        self.rows = {row["sweep_id"]: row for row in queries.rows(source, "sweeps")}
        sweep = state.sweep if state.sweep in self.rows else next(iter(self.rows), None)
        self.axes: Axes = {}
        self.found: list[Result] = []
        self.metrics: list[Metric] = []
        self.chosen = SweepsState()
        if sweep is None:
            return
        row = self.rows[sweep]
        self.axes = json.loads(row["axes"])
        runs = queries.rows(source, "sweep_runs", sweep)
        self.found = results(row["model_name"], self.axes, runs)
        self.metrics = known_metrics(self.done)
        names = self.names
        # A number with the most values says most.
        best = max(names, key=lambda name: (isinstance(self.axes[name][0], int), len(self.axes[name])))
        across = state.across if state.across in names else best
        known = [metric.column for metric in self.metrics]
        figure = state.figure if state.figure in known else next(iter(known), None)
        known_values = {option["value"] for option in self.only_options()}
        only = tuple(item for item in state.only if item in known_values)
        self.chosen = SweepsState(sweep, across, figure, only)

    @property
    def names(self) -> list[str]:
        """The options that vary; the batch where none does."""
        return varying(self.axes) or ["batch_size"]

    @property
    def metric(self) -> Metric | None:
        """What is drawn; None where no run has any figure yet."""
        return METRICS[self.chosen.figure] if self.chosen.figure else None

    @property
    def done(self) -> list[Result]:
        """The results with figures."""
        return [one for one in self.found if one.row["status"] in _SHOWN]

    @property
    def drawn(self) -> list[Result]:
        """Of these the ones that were asked for: of each option any value that was named, or all."""
        wanted: dict[str, set[str]] = {}
        for item in self.chosen.only:
            name, _, value = item.partition(":")
            wanted.setdefault(name, set()).add(value)
        return [
            one for one in self.done if all(str(one.point[name]) in values for name, values in wanted.items())
        ]

    def sweep_options(self) -> list[dict[str, str]]:
        """Sweeps for a select."""
        return [{"value": key, "label": _sweep_label(row)} for key, row in self.rows.items()]

    def across_options(self) -> list[dict[str, str]]:
        """Options that can lie along the axis."""
        return [{"value": name, "label": axis_label(name)} for name in (self.names if self.axes else [])]

    def only_options(self) -> list[dict[str, str]]:
        """Values of the options that vary, to draw only some of the points."""
        return [
            {"value": f"{name}:{value}", "label": value_label(name, value)}
            for name in varying(self.axes)
            for value in self.axes[name]
        ]

    def metric_options(self) -> list[dict[str, str]]:
        """Figures that can be drawn."""
        return [{"value": metric.column, "label": metric.label} for metric in self.metrics]

    def table(self) -> Any:
        """Every point with its figures and a link to its run."""
        if self.chosen.sweep is None:
            return None
        row = self.rows[self.chosen.sweep]
        parts: list[Any] = [html.H2("Points", className="rf-summary"), self._note(row)]
        if self.drawn:
            parts.append(rows_table(self._heads(), map(self._line, self.drawn)))
        for one in self.found:
            if one.row["status"] not in _SHOWN:
                why = f": {one.row['status']}, {one.row['error'] or 'no result yet'}"
                parts.append(html.P([html.Strong(label(one.point, self.names)), why]))
        return parts

    def _note(self, row: queries.Row) -> Any:
        fixed = [
            value_label(name, values[0])
            for name, values in self.axes.items()
            if len(values) == 1 and name in ("dtype", "variant", "batch_size", "prompt_tokens", "new_tokens")
        ]
        devices = sorted({one.row["device_name"] for one in self.done if one.row["device_name"]})
        done = f"{len(self.done)} of {row['points']} points"
        return html.P(" · ".join([done, *devices, *fixed]), className="rf-faint")

    def _heads(self) -> list[Any]:
        figures = (term(metric.short, f"{metric.label}.") for metric in self.metrics)
        return ["Run", *map(axis_label, self.names), *figures]

    def _line(self, one: Result) -> list[Any]:
        cells: list[Any] = [dcc.Link("open", href=f"/runs?run={quote(one.row['run_id'])}")]
        cells += [_value(one.point[name]) for name in self.names]
        for metric in self.metrics:
            text = metric.text(one.row[metric.column])
            is_noisy = one.row["noise"] and metric.text is units.time_text and text != units.UNKNOWN
            cells.append(term(f"~ {text}", f"Uncertain: {one.row['noise']}") if is_noisy else text)
        return cells


def _sweep_label(row: queries.Row) -> str:
    axes: Axes = json.loads(row["axes"])
    over = ", ".join(axis_label(name).lower() for name in varying(axes)) or "one point"
    how = "analysed" if axes.get("analyze") == [True] else "run"
    return f"{row['model_name']} · {over} · {how} · {units.moment_text(row['started_at'])}"


def _value(value: Any) -> str:
    return "as usual" if value is None else f"{value:,}" if isinstance(value, int) else str(value)
