"""`roofleet runs`: list, show, delete, tag, note and pin what was measured."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from roofleet import console
from roofleet.commands import options
from roofleet.commands.reaching import reaching
from roofleet.errors import FAILED, UserError
from roofleet.naming.folders import data_folder

if TYPE_CHECKING:
    from roofleet.running.destinations import Destination
    from roofleet_proto.records import RunChange

runs = typer.Typer(
    help="List, show, delete, tag, note and pin runs.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)

SURE = 8
"""Characters of an id that name a run for what cannot be undone: fewer tell only about when it began."""


class Status(StrEnum):
    """How a run can stand."""

    running = "running"
    done = "done"
    failed = "failed"
    cancelled = "cancelled"
    lost = "lost"
    analyzed = "analyzed"


Collector = Annotated[
    str | None,
    typer.Option(
        "--collector", metavar="HOST:PORT", help="The collector's gRPC address.", show_default=False
    ),
]


@runs.command("list")
@reaching
def list_runs(
    text: Annotated[
        str,
        typer.Argument(
            metavar="[TEXT]", help="Text that must be in the name of run or model.", show_default=False
        ),
    ] = "",
    tag: Annotated[
        str | None, typer.Option("--tag", help="Only runs that have this tag.", show_default=False)
    ] = None,
    status: Annotated[
        Status | None, typer.Option("--status", help="Only runs that stand so.", show_default=False)
    ] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="The most runs to list.")] = 20,
    server: options.Server = None,
    data: options.Data = None,
    json_output: options.Json = False,
) -> None:
    """List the latest runs, newest first."""
    from roofleet.asking.reading import reading
    from roofleet.asking.runs import listed_runs
    from roofleet.reports.runs import runs_table

    with reading(server, data) as query:
        rows = listed_runs(query, text=text, tag=tag, status=status.value if status else None, most=limit)
    if json_output:
        print(json.dumps(rows, default=str, indent=1))
    elif rows:
        console.out().print(runs_table(rows))
    if not rows:
        console.err().print("there is no such run")
        raise typer.Exit(FAILED)


@runs.command()
@reaching
def show(
    run: options.Run = "latest",
    server: options.Server = None,
    data: options.Data = None,
    json_output: options.Json = False,
) -> None:
    """Show a run as `roofleet profile` did: times, memory, slowest layers, and what it generated if kept."""
    from roofleet.asking.pages import way_to_pages
    from roofleet.asking.reading import reading
    from roofleet.asking.runs import outputs_of
    from roofleet.naming.runs import chosen_runs
    from roofleet.reports.run import print_run, run_row

    with reading(server, data) as query:
        (run_id,) = chosen_runs(query, [run])
        if json_output:
            said = run_row(query, run_id) | {"outputs": outputs_of(query, run_id)}
            print(json.dumps(said, default=str, indent=1))
        else:
            print_run(console.out(), query, run_id, way_to_pages(run_id, data, server))


@runs.command()
@reaching
def delete(
    names: options.SeveralRuns,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    collector: Collector = None,
    data: options.Data = None,
) -> None:
    """Delete runs with everything measured in them, for good."""
    from roofleet.asking.runs import listed_by_id
    from roofleet.naming.runs import chosen_runs
    from roofleet.reports.runs import runs_table

    with _changing(collector, data) as place:
        run_ids = chosen_runs(place.query, names, least=SURE if yes else 1)
        for row in listed_by_id(place.query, run_ids):
            if row.get("pinned"):
                raise UserError(
                    f"run {row['run_id']} is pinned: `roofleet runs unpin {row['run_id'][:SURE]}` lets it go"
                )
        if not yes:
            if not is_asked():
                raise UserError("deleting is for good: say --yes where nobody can be asked")
            console.out().print(runs_table(listed_by_id(place.query, run_ids)))
            typer.confirm(f"Delete {_counted(len(run_ids))} for good?", abort=True)
        deleted = place.delete_runs(run_ids)
    print(f"deleted {_counted(len(deleted))}: {', '.join(deleted)}" if deleted else "deleted nothing")


@runs.command()
@reaching
def tag(
    run: options.RunNeeded,
    tags: Annotated[list[str], typer.Argument(metavar="TAG...", help="Words to find it by.")],
    remove: Annotated[bool, typer.Option("--remove", help="Take these tags away.")] = False,
    collector: Collector = None,
    data: options.Data = None,
) -> None:
    """Tag a run, so that `runs list --tag` and SQL find it."""
    from roofleet_proto.records import RunChange

    words = tuple(options.label(word, "tag") for word in tags)
    change = RunChange("", remove_tags=words) if remove else RunChange("", add_tags=words)
    _change(run, change, collector, data)


@runs.command()
@reaching
def name(
    run: options.RunNeeded,
    text: Annotated[str, typer.Argument(help="What it is called; empty takes the name away.")],
    collector: Collector = None,
    data: options.Data = None,
) -> None:
    """Give a run a name, or another one."""
    from roofleet_proto.records import RunChange

    _change(run, RunChange("", name=options.run_name(text) if text.strip() else ""), collector, data)


@runs.command()
@reaching
def note(
    run: options.RunNeeded,
    text: Annotated[str, typer.Argument(help="What is to be noted; empty takes the note away.")],
    collector: Collector = None,
    data: options.Data = None,
) -> None:
    """Note something about a run."""
    from roofleet_proto.records import RunChange

    _change(run, RunChange("", note=text.strip()), collector, data)


@runs.command()
@reaching
def pin(run: options.RunNeeded, collector: Collector = None, data: options.Data = None) -> None:
    """Keep a run for good, with all its rows, whatever the collector keeps of others."""
    from roofleet_proto.records import RunChange

    _change(run, RunChange("", pinned=True), collector, data)


@runs.command()
@reaching
def unpin(run: options.RunNeeded, collector: Collector = None, data: options.Data = None) -> None:
    """Keep a run as long as others are kept."""
    from roofleet_proto.records import RunChange

    _change(run, RunChange("", pinned=False), collector, data)


def _change(run: str, change: RunChange, collector: str | None, data: Path | None) -> None:
    from dataclasses import replace

    from roofleet.naming.runs import chosen_runs
    from roofleet.reports.runs import labels_text

    with _changing(collector, data) as place:
        (run_id,) = chosen_runs(place.query, [run])
        if not place.change_run(replace(change, run_id=run_id)):
            raise UserError(f"run {run_id} is no longer there: it was deleted meanwhile")
        said = place.query("SELECT * FROM run_summary WHERE run_id = ?", (run_id,)).to_pylist()[0]
    if change.pinned is not None and "pinned" not in said:
        raise UserError("the collector is too old for this: update it")
    print(f"run {run_id}: {labels_text(said) or 'nothing is said of it'}")


@contextmanager
def _changing(collector: str | None, data: Path | None) -> Iterator[Destination]:
    """The place whose runs are to be changed: a collector named, else the data folder."""
    from roofleet.asking.reading import store_kept
    from roofleet.running.destinations import open_destination
    from roofleet.running.runs import check_destination
    from roofleet_agent.errors import CollectorUnreachable

    check_destination(collector, data)
    folder = data_folder(data)
    if collector is None:
        store_kept(folder)
    place = open_destination(collector, folder)
    try:
        if collector is not None and place.warning:
            raise CollectorUnreachable(place.warning)
        yield place
    finally:
        place.close()


def is_asked() -> bool:
    """Whether somebody sits there who can be asked."""
    return sys.stdin.isatty()


def _counted(runs: int) -> str:
    return "1 run" if runs == 1 else f"{runs} runs"
