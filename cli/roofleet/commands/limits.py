"""The options that bound what is taken of a collector, and what waits at an agent, with their checks."""

from __future__ import annotations

import math
from typing import Annotated, Any

import typer

from roofleet.commands.gathering import gathering
from roofleet.errors import UserError
from roofleet_agent.sending.dropping import Limits as SpoolLimits
from roofleet_collector.limits import Bounds, Callers, Engine, Limits, Senders
from roofleet_proto.sizes import size_bytes

LEAST_BYTES, MOST_BYTES = 2**20, 2**60
DAY_S = 86_400.0


def _option(name: str, metavar: str, help: str, panel: str, shown: str | bool = True) -> Any:
    return typer.Option(name, metavar=metavar, help=help, rich_help_panel=panel, show_default=shown)


def _query(name: str, metavar: str, help: str, shown: str | bool = True) -> Any:
    return _option(name, metavar, help, "Limits of queries (none switches one off)", shown)


def _caller(name: str, metavar: str, help: str) -> Any:
    return _option(name, metavar, help, "Limits of agents and other callers")


def bounds_of(
    query_time: Annotated[
        str, _query("--query-time", "SECONDS", "How long the engine may work for a query.")
    ] = "60",
    query_idle: Annotated[
        str, _query("--query-idle", "SECONDS", "How long a result may be left unread.")
    ] = "60",
    query_plan: Annotated[
        str, _query("--query-plan", "SECONDS", "How long planning a statement may take; not `none`.")
    ] = "3",
    query_rows: Annotated[str, _query("--query-rows", "N", "Rows of a result.")] = "100000000",
    query_bytes: Annotated[str, _query("--query-bytes", "SIZE", "Bytes of a result.")] = "4GiB",
    queries: Annotated[str, _query("--queries", "N", "Queries at once, of all callers.")] = "32",
    queries_each: Annotated[str, _query("--queries-each", "N", "Queries at once, of one caller.")] = "16",
    engine_memory: Annotated[
        str | None,
        _query(
            "--engine-memory", "SIZE", "Memory of all queries and of writing.", "a quarter of the machine's"
        ),
    ] = None,
    engine_disk: Annotated[
        str | None,
        _query(
            "--engine-disk",
            "SIZE",
            "Temporary files of what does not fit in that.",
            "a quarter of what is free, 16 GiB at most",
        ),
    ] = None,
    apart_memory: Annotated[
        str | None,
        _query(
            "--apart-memory",
            "SIZE",
            "Memory of a statement that runs in a process of its own, since it could not be interrupted.",
            "an eighth of the machine's, 2 GiB at most",
        ),
    ] = None,
    calls_each: Annotated[str, _caller("--calls-each", "N", "Calls a second that one may begin.")] = "50",
    burst_each: Annotated[str, _caller("--burst-each", "N", "Calls at once after a pause.")] = "200",
    streams_each: Annotated[
        str, _caller("--streams-each", "N", "Streams and queries that one may have open.")
    ] = "32",
    agents_each: Annotated[
        str, _caller("--agents-each", "N", "Agents that one token's name may be of, as on a cluster.")
    ] = "64",
    waiting: Annotated[
        str, _caller("--waiting", "SIZE", "Rows that wait for their commit, of all.")
    ] = "256MiB",
    waiting_each: Annotated[str, _caller("--waiting-each", "SIZE", "The same of one stream.")] = "32MiB",
) -> Bounds:
    """The limits of a collector; UserError for one that is none."""
    bounds = Bounds(
        Limits(
            timeout_s=_or_none(_seconds, "query-time", query_time),
            idle_s=_or_none(_seconds, "query-idle", query_idle),
            at_once=_or_none(_number, "queries", queries),
            at_once_each=_or_none(_number, "queries-each", queries_each),
            max_bytes=_or_none(_size, "query-bytes", query_bytes),
            max_rows=_or_none(_number, "query-rows", query_rows),
        ),
        Engine(
            memory_bytes=None if engine_memory is None else _size("engine-memory", engine_memory, 64),
            temporary_bytes=None if engine_disk is None else _size("engine-disk", engine_disk),
            apart_bytes=None if apart_memory is None else _size("apart-memory", apart_memory, 256),
            plan_s=_seconds("query-plan", query_plan),
        ),
        Callers(
            calls_per_s=_number("calls-each", calls_each),
            burst=_number("burst-each", burst_each),
            streams=_number("streams-each", streams_each),
            agents=_number("agents-each", agents_each),
        ),
        Senders(all_bytes=_size("waiting", waiting), stream_bytes=_size("waiting-each", waiting_each)),
    )
    if bounds.senders.stream_bytes > bounds.senders.all_bytes:
        raise UserError(f"--waiting-each {waiting_each} is more than --waiting {waiting}, which is of all")
    return bounds


def spool_of(
    spool_size: Annotated[
        str, typer.Option("--spool-size", metavar="SIZE", help="What waits on the disk at most.")
    ] = "512MiB",
    spool_days: Annotated[
        str, typer.Option("--spool-days", metavar="DAYS", help="How long it waits at most.")
    ] = "30",
) -> SpoolLimits:
    """The limits of what waits at an agent; UserError for one that is none."""
    return SpoolLimits(_size("spool-size", spool_size), _seconds("spool-days", spool_days) * DAY_S)


bounding = gathering(bounds=bounds_of)
"""Gives a command the limits of a collector in the place of its keyword `bounds`."""
spooling = gathering(limits=spool_of)
"""Gives a command the limits of an agent's spool in the place of its keyword `limits`."""


def _or_none(parse: Any, option: str, written: str) -> Any:
    return None if written.strip().lower() == "none" else parse(option, written)


def _number(option: str, written: str) -> int:
    if not written.strip().isdecimal() or not 1 <= int(written) <= 10**12:
        raise UserError(f"--{option} {written!r:.40} is no whole number of 1 or more")
    return int(written)


def _seconds(option: str, written: str) -> float:
    try:
        number = float(written)
    except ValueError:
        number = math.nan
    if not 0.01 <= number <= 1e9:
        raise UserError(f"--{option} {written!r:.40} is no number of 0.01 or more")
    return number


def _size(option: str, written: str, least_mib: int = 1) -> int:
    try:
        size = size_bytes(written)
    except ValueError as error:
        raise UserError(f"--{option} {error}") from None
    if not least_mib * LEAST_BYTES <= size <= MOST_BYTES:
        raise UserError(f"--{option} {written!r:.40}: it has to be {least_mib}MiB or more")
    return size
