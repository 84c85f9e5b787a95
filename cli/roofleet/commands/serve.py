"""`roofleet collector`, `roofleet agent` and `roofleet dashboard`: the processes that stay."""

from __future__ import annotations

import asyncio
import logging
import signal
import threading
from collections.abc import Callable
from contextlib import ExitStack
from typing import Annotated

import typer

from roofleet.commands import options
from roofleet.errors import UserError, needs
from roofleet.naming.folders import address, data_folder

DEFAULT_GRPC = "127.0.0.1:7700"
DEFAULT_SQL = "127.0.0.1:7701"
DEFAULT_DASHBOARD = "127.0.0.1:7702"

Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Say more.")]


def collector(
    data: options.Data = None,
    grpc: Annotated[
        str, typer.Option("--grpc", metavar="HOST:PORT", help="Where agents connect.")
    ] = DEFAULT_GRPC,
    sql: Annotated[
        str, typer.Option("--sql", metavar="HOST:PORT", help="Where SQL is asked, over Flight SQL.")
    ] = DEFAULT_SQL,
    verbose: Verbose = False,
) -> None:
    """Take rows in from agents, keep them, and answer SQL.

    Ctrl-C or SIGTERM ends it cleanly: what is under way is committed first.
    """
    needs("collector", "duckdb")
    from roofleet_collector.presence import Running
    from roofleet_collector.service import serve

    grpc_at, sql_at = address(grpc), address(sql)
    folder = data_folder(data)
    _log(verbose)

    def ready(running: Running) -> None:
        print(f"collector: gRPC on {running.grpc}, Flight SQL on {running.sql}, data in {folder}", flush=True)

    async def main() -> None:
        stop = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        await serve(folder, grpc_at, sql_at, stop, ready=ready)

    asyncio.run(main())
    print("collector: stopped", flush=True)


def agent(
    collector: Annotated[
        str, typer.Option("--collector", metavar="HOST:PORT", help="The collector's gRPC address.")
    ] = DEFAULT_GRPC,
    data: options.Data = None,
    verbose: Verbose = False,
) -> None:
    """Stay attached to a collector: register this host, send readings once a second.

    A collector that goes away is waited for; rows are kept in the spool meanwhile.
    """
    from roofleet_agent.service import AgentService

    address(collector)
    _log(verbose)
    service = AgentService(collector, data_folder(data))
    _on_end(service.stop)
    print(f"agent: sending to {collector}", flush=True)
    service.run()
    print("agent: stopped", flush=True)


def dashboard(
    server: options.Server = None,
    data: options.Data = None,
    listen: Annotated[
        str, typer.Option("--listen", metavar="HOST:PORT", help="Where the pages are served.")
    ] = DEFAULT_DASHBOARD,
    verbose: Verbose = False,
) -> None:
    """Serve the dashboard's pages over a collector, or over a data folder alone.

    Without --server the data folder is shown, new runs as they come; if a collector holds it, through that.
    """
    needs("dashboard", "dash")
    from roofleet.asking.pages import noted
    from roofleet.asking.reading import store_kept
    from roofleet.asking.source import FlightSource, FolderSource
    from roofleet_dashboard.app import create_app, serve

    if server is not None and data is not None:
        raise UserError("give --server or --data, not both")
    host, port = address(listen)
    folder = data_folder(data)
    _log(verbose)
    if server is not None:
        address(server)
        shown = _dashboard_ready(host, f"of the collector {server}")
        serve(create_app(FlightSource(server)), host, port, ready=shown)
        return
    needs("collector", "duckdb")
    store_kept(folder)
    with ExitStack() as stack:
        shown = _dashboard_ready(host, f"of the runs in {folder}")

        def note_and_show(port: int) -> None:
            stack.enter_context(noted(folder, _pages(host, port)))
            shown(port)

        serve(create_app(FolderSource(folder)), host, port, ready=note_and_show)


def _dashboard_ready(host: str, of: str) -> Callable[[int], None]:
    return lambda port: print(f"dashboard: {_pages(host, port)} {of}", flush=True)


def _pages(host: str, port: int) -> str:
    """The address of the pages as a browser on this machine takes it."""
    here = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://[{here}]:{port}" if ":" in here else f"http://{here}:{port}"


def _on_end(stop: Callable[[], None]) -> None:
    """Ctrl-C and SIGTERM ask for a clean end; a second Ctrl-C ends at once."""

    def handle(number: int, frame: object) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        threading.Thread(target=stop, daemon=True).start()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, handle)


def _log(verbose: bool) -> None:
    level = logging.DEBUG if verbose else logging.INFO
    logging.basicConfig(level=level, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    for noisy in ("waitress.queue", "grpc"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
