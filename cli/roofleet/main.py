"""The `roofleet` command: its sub-commands, and errors in one line."""

from __future__ import annotations

import atexit
import gc
import os
import sys
from typing import Annotated

import typer

import roofleet
from roofleet.commands import (
    agent,
    analyze,
    catalogs,
    certs,
    collector,
    compare,
    dashboard,
    demo,
    fleet,
    jobs,
    profile,
    roofs,
    runs,
    sql,
    sweep,
    tokens,
)
from roofleet.commands.install import installing
from roofleet.console import speak_plainly
from roofleet.errors import FAILED, INTERRUPTED, line_of, status_of
from roofleet.installing.unit import Role
from roofleet.logs import complain

app = typer.Typer(
    name="roofleet",
    help="See where every layer of a language model spends its time, on every machine a team owns.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"roofleet {roofleet.__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    pass


app.command("profile", rich_help_panel="One machine")(profile.profile)
app.command("analyze", rich_help_panel="One machine")(analyze.analyze)
app.command("sweep", rich_help_panel="One machine")(sweep.sweep)
app.command("demo", rich_help_panel="One machine")(demo.demo)
app.command("fleet", rich_help_panel="A fleet")(fleet.fleet)
app.add_typer(collector.collector, name="collector", rich_help_panel="A fleet")
app.add_typer(agent.agent, name="agent", rich_help_panel="A fleet")
app.add_typer(dashboard.dashboard, name="dashboard", rich_help_panel="A fleet")
app.command("submit", rich_help_panel="A fleet")(jobs.submit)
app.command("jobs", rich_help_panel="A fleet")(jobs.jobs)
app.command("cancel", rich_help_panel="A fleet")(jobs.cancel)
app.command("label", rich_help_panel="A fleet")(jobs.label)
app.add_typer(tokens.tokens, name="tokens", rich_help_panel="A fleet")
app.add_typer(certs.certs, name="certs", rich_help_panel="A fleet")
app.add_typer(runs.runs, name="runs", rich_help_panel="Asking")
app.command("roofs", rich_help_panel="Asking")(roofs.roofs)
app.command("compare", rich_help_panel="Asking")(compare.compare)
app.command("sql", rich_help_panel="Asking")(sql.sql)
app.command("models", rich_help_panel="Asking")(catalogs.models)
app.command("hardware", rich_help_panel="Asking")(catalogs.hardware)

installing(agent.agent, Role.agent)
installing(collector.collector, Role.collector)
installing(dashboard.dashboard, Role.dashboard)


def _freeze() -> None:
    """Leaves what is left as it is; DuckDB 2 complains of every object that is not collected, so not then."""
    if "duckdb" not in sys.modules:
        gc.freeze()


def run() -> None:
    """What the console script calls: a user's mistake is one line, and the status says what it was."""
    speak_plainly()
    # what is left ends with the process: where torch is loaded, to look through it first takes a second
    atexit.register(_freeze)
    try:
        app(prog_name="roofleet")
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        # the reader of our output has gone, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(FAILED)
    except Exception as error:
        status = status_of(error)
        if status is None or os.environ.get("ROOFLEET_TRACEBACK") == "1":
            raise
        complain(line_of(error))
        sys.exit(status)
