"""`roofleet collector`: the process that takes rows in, keeps them and answers SQL."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from typing import Annotated

import typer

from roofleet import logs
from roofleet.commands import options, staying
from roofleet.commands.limits import bounding
from roofleet.errors import FAILED, UserError, needs
from roofleet.naming.folders import DEFAULT_GRPC, DEFAULT_SQL, address, data_folder
from roofleet_collector.limits import Bounds

KEYS = "Keys"

collector = typer.Typer(invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})


@collector.callback()
@bounding
def collect(
    context: typer.Context,
    *,
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
    metrics: staying.Metrics = None,
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
    keep: Annotated[
        list[str] | None,
        typer.Option(
            "--keep",
            metavar="WHAT=AGE",
            help="How long to keep what, such as readings=7d, spans=90d or runs=forever; may be given again.",
            show_default=False,
        ),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(
            "--config",
            metavar="FILE",
            help="How long to keep what. Default: collector.toml in the data folder; without it readings are "
            "rolled up after 7 days, and nothing else goes.",
            show_default=False,
            dir_okay=False,
        ),
    ] = None,
    bounds: Bounds,
    log_format: staying.LogFormat = logs.Format.text,
    log_level: staying.LogLevel = logs.Level.info,
    verbose: staying.Verbose = False,
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
    from roofleet_collector.policy import FILE_NAME, read_policy
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
    staying.log(log_format, log_level, verbose)
    staying.keep_private()
    policy = read_policy(config or folder / FILE_NAME, keep or (), must_be=config is not None)

    def ready(running: Running, kept: str) -> None:
        where = f"gRPC on {running.grpc}, Flight SQL on {running.sql}, data in {folder} ({kept})"
        logs.announce("collector", where, grpc=running.grpc, sql=running.sql, data=str(folder))

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
            bounds=bounds,
            lease_s=lease,
            metrics_at=metrics_at,
            policy=policy,
        )

    asyncio.run(main())
    logs.announce("collector", "stopped")


@collector.command()
def health(context: typer.Context, data: options.Data = None) -> None:
    """Ask the collector that holds this folder, by gRPC's health service, whether it can store rows.

    The exit status is 0 if so, 1 if not, such as while the disk is full, and 3 if nobody answers.
    """
    needs("collector", "duckdb")
    from roofleet.running.health import can_store

    folder = _folder(context, data)
    if not can_store(folder):
        raise UserError(f"the collector of {folder} cannot store rows now: its log says why", FAILED)
    print("rows can be stored")


@collector.command()
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

    print(f"{back_up(_folder(context, data), path)} batches in {path}")


def _folder(context: typer.Context, data: Path | None) -> Path:
    """The data folder that a sub-command, or the command before it, was given."""
    group = context.parent
    return data_folder(data or (group.params["data"] if group else None))
