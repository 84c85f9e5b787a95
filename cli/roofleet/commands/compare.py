"""`roofleet compare`: what changed between runs in time, memory, work, efficiency and quality."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from roofleet import console
from roofleet.commands import completion, options
from roofleet.errors import UserError


def compare(
    runs: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN RUN...",
            help="Two runs or more: ids, their beginnings, latest, or latest~1 for the one before. The first "
            "is the baseline.",
            show_default=False,
            autocompletion=completion.runs,
        ),
    ],
    server: options.Server = None,
    data: options.Data = None,
    json_output: options.Json = False,
) -> None:
    """Say what changed between runs, with the confidence of the difference.

    Times are compared by Welch's t over the iterations. Nothing is called faster or slower whose 95 %
    interval includes no difference, which differs by less than 2 %, or of which one run was too noisy.
    """
    if len(runs) < 2:
        raise UserError(f"{runs[0]!r} is one run, a comparison needs two: `roofleet compare latest~1 latest`")
    from roofleet.asking.comparison import QUALITY, WHAT_RAN, compared_layers, compared_phases, read_run
    from roofleet.asking.reading import reading
    from roofleet.naming.runs import chosen_runs
    from roofleet.reports.comparison import print_comparison

    with reading(server, data) as query:
        read = [read_run(query, run_id) for run_id in chosen_runs(query, runs)]
    if not json_output:
        print_comparison(console.out(), read)
        return
    said: dict[str, Any] = {
        "runs": [
            {name: run.row[name] for name in ("run_id", "status", "noise", *WHAT_RAN, *QUALITY)}
            for run in read
        ],
        "phases": [row for run in read[1:] for row in compared_phases(read[0], run)],
        "layers": [row for run in read[1:] for row in compared_layers(read[0], run)],
    }
    print(json.dumps(said, default=str, indent=1))
