"""`roofleet agent`: the process that stays on every host, and how a host joins."""

from __future__ import annotations

import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from roofleet import logs
from roofleet.commands import options, staying
from roofleet.commands.limits import spooling
from roofleet.commands.reaching import reaching
from roofleet.errors import UNREACHABLE, USAGE, UserError
from roofleet.naming.doors import agents_door, door
from roofleet.naming.folders import DEFAULT_GRPC, address, data_folder
from roofleet_agent.sending.dropping import Limits
from roofleet_proto.door import is_here

JOIN_S = 15.0
"""How long a collector may take to answer a code."""

agent = typer.Typer(context_settings={"help_option_names": ["-h", "--help"]})


@agent.callback(invoke_without_command=True)
@reaching
@spooling
def attach(
    context: typer.Context,
    *,
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
    metrics: staying.Metrics = None,
    limits: Limits,
    log_format: staying.LogFormat = logs.Format.text,
    log_level: staying.LogLevel = logs.Level.info,
    verbose: staying.Verbose = False,
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
    staying.log(log_format, log_level, verbose)
    staying.keep_private()
    can_run = jobs and find_spec("torch") is not None and find_spec("transformers") is not None
    hired = Hired(COMMAND, rules, labels) if can_run else None
    metrics_at = None if metrics is None else address(metrics)
    service = AgentService(collector, folder, agents_door(folder), limits, hired=hired, metrics_at=metrics_at)
    staying.on_end(service.stop)
    logs.say_always(agent_id=lambda: service.agent_id)
    logs.announce("agent", f"sending to {collector}")
    service.run()
    logs.announce("agent", "stopped")


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
