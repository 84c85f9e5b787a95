"""`roofleet collector`, `roofleet agent` and `roofleet dashboard`: the processes that stay."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import signal
import socket
import sys
import threading
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from roofleet.commands import options
from roofleet.commands.reaching import reaching
from roofleet.errors import UNREACHABLE, USAGE, UserError, needs
from roofleet.naming.doors import agents_door, door
from roofleet.naming.folders import address, data_folder
from roofleet_proto.door import is_here

DEFAULT_GRPC = "127.0.0.1:7700"
DEFAULT_SQL = "127.0.0.1:7701"
DEFAULT_DASHBOARD = "127.0.0.1:7702"

KEYS = "Keys"
_NO_LOGIN = (
    "{} is reached from other machines, and anybody there would see everything: make tokens for those who "
    "may (`roofleet tokens create NAME --role reader`) and give the dashboard none of its own, or insist "
    "with --insecure-no-login"
)
JOIN_S = 15.0
Metrics = Annotated[
    str | None,
    typer.Option(
        "--metrics",
        metavar="HOST:PORT",
        help="Where Prometheus reads figures; nowhere by default.",
        show_default=False,
    ),
]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Say more.")]


collector_app = typer.Typer(
    invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]}
)
agent = typer.Typer(context_settings={"help_option_names": ["-h", "--help"]})


@collector_app.callback()
def collector(
    context: typer.Context,
    data: options.Data = None,
    grpc: Annotated[
        str, typer.Option("--grpc", metavar="HOST:PORT", help="Where agents connect.")
    ] = DEFAULT_GRPC,
    sql: Annotated[
        str, typer.Option("--sql", metavar="HOST:PORT", help="Where SQL is asked, over Flight SQL.")
    ] = DEFAULT_SQL,
    tls_cert: Annotated[
        Path | None,
        typer.Option(
            "--tls-cert", metavar="FILE", help="Certificate to show; TLS then.", rich_help_panel=KEYS
        ),
    ] = None,
    tls_key: Annotated[
        Path | None, typer.Option("--tls-key", metavar="FILE", help="Its key.", rich_help_panel=KEYS)
    ] = None,
    tls_ca: Annotated[
        Path | None,
        typer.Option(
            "--tls-ca",
            metavar="FILE",
            help="Ask callers for a certificate too, one that these authorities vouch for.",
            rich_help_panel=KEYS,
        ),
    ] = None,
    insecure_plaintext: Annotated[
        bool,
        typer.Option(
            "--insecure-plaintext",
            help="Listen beyond this machine without TLS: who is on the way reads and changes everything.",
            rich_help_panel=KEYS,
        ),
    ] = False,
    insecure_no_tokens: Annotated[
        bool,
        typer.Option(
            "--insecure-no-tokens",
            help="Listen beyond this machine without tokens: who reaches it reads, writes and deletes.",
            rich_help_panel=KEYS,
        ),
    ] = False,
    metrics: Metrics = None,
    strict: Annotated[
        bool,
        typer.Option("--strict", help="Refuse to start on damaged data, instead of setting it aside."),
    ] = False,
    lease: Annotated[
        float,
        typer.Option(
            "--lease",
            metavar="SECONDS",
            min=1.0,
            help="How long an agent may not be heard of before its jobs are handed on.",
        ),
    ] = 20.0,
    verbose: Verbose = False,
) -> None:
    """Take rows in from agents, keep them, and answer SQL.

    Ctrl-C or SIGTERM ends it cleanly: what is under way is committed first. Beyond this machine it listens
    with TLS and tokens only (`roofleet certs`, `roofleet tokens`); on loopback it is open to its user.
    `roofleet collector backup` copies what is stored.
    """
    if context.invoked_subcommand is not None:
        return
    needs("collector", "duckdb")
    from roofleet_collector.keys.opening import Protection
    from roofleet_collector.keys.tls import Certificates
    from roofleet_collector.presence import Running
    from roofleet_collector.service import serve

    certificates = None
    if tls_cert is not None and tls_key is not None:
        certificates = Certificates(tls_cert, tls_key, tls_ca)
    elif tls_cert is not None or tls_key is not None or tls_ca is not None:
        raise UserError("TLS needs a certificate and its key: give --tls-cert and --tls-key")
    protection = Protection(certificates, insecure_plaintext, insecure_no_tokens)
    grpc_at, sql_at = address(grpc), address(sql)
    metrics_at = None if metrics is None else address(metrics)
    folder = data_folder(data)
    _log(verbose)

    def ready(running: Running, kept: str) -> None:
        where = f"gRPC on {running.grpc}, Flight SQL on {running.sql}, data in {folder}"
        print(f"collector: {where} ({kept})", flush=True)

    async def main() -> None:
        stop = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        await serve(
            folder,
            grpc_at,
            sql_at,
            stop,
            strict=strict,
            protection=protection,
            ready=ready,
            lease_s=lease,
            metrics_at=metrics_at,
        )

    asyncio.run(main())
    print("collector: stopped", flush=True)


@collector_app.command()
def backup(
    context: typer.Context,
    path: Annotated[Path, typer.Argument(metavar="PATH", help="The file to be made.", show_default=False)],
    data: options.Data = None,
) -> None:
    """Copy what is stored to a file, consistent, while rows come in.

    As `roofleet.duckdb` in a data folder it is a store again. Agents send what they still hold; what the
    copy has of it is stored once.
    """
    needs("collector", "duckdb")
    from roofleet.running.backup import back_up

    group = context.parent
    folder = data_folder(data or (group.params["data"] if group else None))
    print(f"{back_up(folder, path)} batches in {path}")


@agent.callback(invoke_without_command=True)
@reaching
def attach(
    context: typer.Context,
    collector: Annotated[
        str, typer.Option("--collector", metavar="HOST:PORT", help="The collector's gRPC address.")
    ] = DEFAULT_GRPC,
    data: options.Data = None,
    label: Annotated[
        list[str] | None,
        typer.Option(
            "--label",
            metavar="NAME=VALUE",
            help="What jobs can pick this host by, such as site=lab1; may be given again.",
            show_default=False,
        ),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(
            "--config",
            metavar="FILE",
            help="What jobs may do here. Default: agent.toml in the data folder; without it models of the "
            "catalogue with random weights.",
            show_default=False,
            dir_okay=False,
        ),
    ] = None,
    jobs: Annotated[bool, typer.Option("--jobs/--no-jobs", help="Take jobs from the collector.")] = True,
    metrics: Metrics = None,
    verbose: Verbose = False,
) -> None:
    """Stay attached to a collector: register this host, send readings once a second, run jobs.

    A collector that goes away is waited for; rows are kept in the spool meanwhile.
    """
    if context.invoked_subcommand is not None:
        return
    from roofleet.running.job import COMMAND
    from roofleet_agent.jobs.rules import FILE_NAME, read_rules
    from roofleet_agent.service import AgentService, Hired

    address(collector)
    folder = data_folder(data)
    rules = read_rules(config or folder / FILE_NAME, must_be=config is not None)
    labels = options.labels_of(label or [])
    _log(verbose)
    can_run = jobs and find_spec("torch") is not None and find_spec("transformers") is not None
    hired = Hired(COMMAND, rules, labels) if can_run else None
    metrics_at = None if metrics is None else address(metrics)
    service = AgentService(collector, folder, agents_door(folder), hired=hired, metrics_at=metrics_at)
    _on_end(service.stop)
    print(f"agent: sending to {collector}", flush=True)
    service.run()
    print("agent: stopped", flush=True)


@reaching
def dashboard(
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
    verbose: Verbose = False,
) -> None:
    """Serve the dashboard's pages over a collector, or over a data folder alone.

    Without --server the data folder is shown, new runs as they come; if a collector holds it, through that.
    Where the collector asks for tokens, users log in with theirs. With a token of the dashboard's own nobody
    is asked, so it then serves this machine alone.
    """
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
    _log(verbose)
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
    return lambda port: print(f"dashboard: {_pages(host, port)} {of}", flush=True)


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


@agent.command()
@reaching
def join(
    code: Annotated[
        str,
        typer.Argument(
            metavar="CODE", help="What `roofleet tokens join-code` printed; - reads it from standard input."
        ),
    ],
    collector: Annotated[
        str, typer.Option("--collector", metavar="HOST:PORT", help="The collector's gRPC address.")
    ] = DEFAULT_GRPC,
    data: options.Data = None,
) -> None:
    """Exchange a one-time code for this host's token, which is kept in the data folder.

    A code that says how to know the collector needs no --tls-ca: the authority comes with the token.
    """
    import grpc

    from roofleet.naming.doors import AGENT_AUTHORITY, AGENT_TOKEN
    from roofleet.running.recognizing import recognized
    from roofleet_agent.sending.spool import AGENT_SPOOL, Spool
    from roofleet_agent.sending.uplink import open_channel
    from roofleet_proto.door import write_secret
    from roofleet_proto.records import JoinRequest
    from roofleet_proto.services import JOIN

    address(collector)
    folder = data_folder(data)
    way = replace(door(), token=None, token_file=None)
    code, _, known_by = (sys.stdin.readline() if code == "-" else code).strip().partition(".")
    if known_by and way.tls_ca is None:
        folder.mkdir(parents=True, exist_ok=True)
        way = replace(way, tls_ca=recognized(collector, known_by, folder))
    if not (way.tls or way.insecure_plaintext or is_here(collector)):
        raise UserError(f"a code is not sent to {collector} in plain text: give --tls-ca FILE")
    spool = Spool(folder / AGENT_SPOOL)
    spool.close()
    with open_channel(collector, way) as channel:
        try:
            joined = JOIN.client(channel)(JoinRequest(code, spool.agent_id), timeout=JOIN_S)
        except grpc.RpcError as error:
            away = error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
            raise UserError(
                f"the collector at {collector} did not take the code: {error.details()}",
                UNREACHABLE if away else USAGE,
            ) from None
    write_secret(folder / AGENT_TOKEN, joined.token)
    if known_by and joined.authority:
        write_secret(folder / AGENT_AUTHORITY, joined.authority)
    print(f"joined as {joined.name!r}: `roofleet agent --collector {collector}` needs no more now")
