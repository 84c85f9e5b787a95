"""What the pages share: their head, the notice when the collector is away, and choosing runs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import dash_mantine_components as dmc
from dash import dcc, html

from roofleet_analysis import units
from roofleet_dashboard import queries
from roofleet_dashboard.source import Source, SourceError
from roofleet_dashboard.state import phases_of

__all__ = ["RunIndex", "away", "head", "no_runs", "nothing", "retry", "run_label"]

RETRY_MS = 5000


def head(title: str, explanation: Any) -> Any:
    """The title of a page and one line on how to read it."""
    return html.Div([html.H1(title), html.P(explanation, className="rf-explanation")])


def away(error: SourceError) -> Any:
    """The notice while the collector does not answer. Nothing is lost: the page comes back by itself."""
    return dmc.Alert(
        [str(error), html.Br(), "This page asks again every few seconds and comes back by itself."],
        title="The collector does not answer; retrying",
        color="yellow",
        className="rf-away",
    )


def nothing(title: str, *what_to_do: Any) -> Any:
    """What stands in place of an empty page: why it is empty and what to do."""
    return dmc.Paper(
        [html.Strong(title), html.Div(list(what_to_do))], withBorder=True, p="lg", className="rf-nothing"
    )


def no_runs() -> Any:
    """What stands on a page about runs before there is one."""
    return nothing(
        "No model has been profiled yet.",
        html.P("Profile one on any machine that reaches this collector:"),
        html.Pre("roofleet profile gpt2 --collector HOST:7700"),
        html.P("HOST is the machine the collector runs on."),
    )


def retry(identity: str) -> Any:
    """A clock that ticks while the collector is away."""
    return dcc.Interval(id=identity, interval=RETRY_MS, disabled=True)


def run_label(row: queries.Row) -> str:
    """A run in one line: model, dtype, device and when."""
    what = [row["model_name"] or "unknown model", row["dtype"]]
    if row["variant"] != "base":
        what.append(row["variant"])
    where = row["device_name"] or "unknown device"
    return " · ".join((*what, f"{where} ({row['hostname']})", units.moment_text(row["started_at"])))


class RunIndex:
    """The runs one can choose from, latest first, and those that a URL names."""

    def __init__(self, source: Source, named: Iterable[str] = ()) -> None:
        self.rows = {row["run_id"]: row for row in queries.rows(source, "run_index")}
        self.latest: queries.Row | None = next(iter(self.rows.values()), None)
        for run_id in dict.fromkeys(named):
            if run_id not in self.rows:
                self.rows |= {row["run_id"]: row for row in queries.rows(source, "run_choice", run_id)}

    def phases(self, run_id: str) -> tuple[str, ...]:
        """The phases of a run; none for one that is not known."""
        row = self.rows.get(run_id)
        return phases_of(row["task"], row["new_tokens"]) if row else ()

    def options(self) -> list[dict[str, str]]:
        """Runs for a select."""
        return [{"value": run_id, "label": run_label(row)} for run_id, row in self.rows.items()]

    def phase_options(self) -> list[dict[str, str]]:
        """Runs and phases for a select, as `run:phase`."""
        return [
            {"value": f"{run_id}:{phase}", "label": f"{phase} · {run_label(row)}"}
            for run_id, row in self.rows.items()
            for phase in self.phases(run_id)
        ]
