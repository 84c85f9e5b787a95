"""`roofleet dashboard`: the process that serves pages, over a collector or a data folder."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable
from contextlib import ExitStack
from typing import Annotated

import typer

from roofleet import logs
from roofleet.commands import options, staying
from roofleet.commands.reaching import reaching
from roofleet.errors import UserError, needs
from roofleet.naming.doors import door
from roofleet.naming.folders import DEFAULT_DASHBOARD, address, data_folder

_NO_LOGIN = (
    "{} is reached from other machines, and anybody there would see everything: make tokens for those who "
    "may (`roofleet tokens create NAME --role reader`) and give the dashboard none of its own, or insist "
    "with --insecure-no-login"
)


dashboard = typer.Typer(invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})


@dashboard.callback()
@reaching
def show(
    context: typer.Context,
    server: options.Server = None,
    data: options.Data = None,
    listen: Annotated[
        str, typer.Option("--listen", metavar="HOST:PORT", help="Where the pages are served.")
    ] = DEFAULT_DASHBOARD,
    host_name: Annotated[
        list[str] | None,
        typer.Option(
            "--host-name",
            help="Another name that browsers know it by, such as a proxy's; may be given again.",
            show_default=False,
        ),
    ] = None,
    insecure_no_login: Annotated[
        bool,
        typer.Option(
            "--insecure-no-login",
            help="Show everything to everybody who reaches it, beyond this machine too.",
        ),
    ] = False,
    log_format: staying.LogFormat = logs.Format.text,
    log_level: staying.LogLevel = logs.Level.info,
    verbose: staying.Verbose = False,
) -> None:
    """Serve the dashboard's pages over a collector, or over a data folder alone.

    Without --server the data folder is shown, new runs as they come; if a collector holds it, through that.
    Where the collector asks for tokens, users log in with theirs. With a token of the dashboard's own nobody
    is asked, so it then serves this machine alone.
    """
    if context.invoked_subcommand is not None:
        return
    needs("dashboard", "dash")
    from roofleet.asking.entry import FolderEntry, ServerEntry
    from roofleet.asking.pages import noted
    from roofleet.asking.reading import store_kept
    from roofleet.asking.source import FlightSource, FolderSource
    from roofleet_dashboard.app import create_app, serve
    from roofleet_dashboard.guard import own_names

    if server is not None and data is not None:
        raise UserError("give --server or --data, not both")
    host, port = address(listen)
    folder = data_folder(data)
    staying.log(log_format, log_level, verbose)
    way, beyond = door(), _is_reached_from_elsewhere(host)
    answers = own_names(host, host_name or ())
    if beyond and not way.insecure_plaintext:
        raise UserError(
            f"{host} is reached from other machines, and pages and logins go there in plain text: listen on "
            "loopback behind a proxy with TLS (--host-name is its name), or insist with --insecure-plaintext"
        )
    if server is not None:
        address(server)
        entry = None
        if way.shown() is None and not insecure_no_login:
            entry = ServerEntry(server, way, always=beyond)
        if beyond and not insecure_no_login and (entry is None or entry.asks() is False):
            raise UserError(_NO_LOGIN.format(host))
        shown = _dashboard_ready(host, f"of the collector {server}")
        serve(create_app(FlightSource(server, way), entry=entry, answers=answers), host, port, ready=shown)
        return
    needs("collector", "duckdb")
    of_folder = FolderEntry(folder) if beyond and not insecure_no_login else None
    if of_folder is not None and not of_folder.is_asked():
        raise UserError(_NO_LOGIN.format(host))
    store_kept(folder)
    with ExitStack() as stack:
        shown = _dashboard_ready(host, f"of the runs in {folder}")

        def note_and_show(port: int) -> None:
            stack.enter_context(noted(folder, _pages(host, port)))
            shown(port)

        serve(
            create_app(FolderSource(folder), entry=of_folder, answers=answers),
            host,
            port,
            ready=note_and_show,
        )


def _dashboard_ready(host: str, of: str) -> Callable[[int], None]:
    return lambda port: logs.announce("dashboard", f"{_pages(host, port)} {of}")


def _pages(host: str, port: int) -> str:
    """The address of the pages as a browser on this machine takes it."""
    here = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://[{here}]:{port}" if ":" in here else f"http://{here}:{port}"


def _is_reached_from_elsewhere(host: str) -> bool:
    """Whether other machines reach what listens there; what does not resolve nobody reaches."""
    try:
        found = {str(entry[4][0]).partition("%")[0] for entry in socket.getaddrinfo(host, None)}
    except OSError:
        return False
    return not all(ipaddress.ip_address(text).is_loopback for text in found)
