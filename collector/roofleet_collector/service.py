"""The collector as a process: store, gRPC and Flight SQL together, from start to a clean end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Awaitable, Callable
from pathlib import Path

from roofleet_analysis.catalogs.hardware import hardware
from roofleet_analysis.catalogs.models import filter_models
from roofleet_analysis.costs import FORMULA_VERSION, derive_op_costs
from roofleet_collector.fleet import Roster
from roofleet_collector.flight_sql import FlightSqlServer
from roofleet_collector.ingest import Ingest
from roofleet_collector.jobs.service import LEASE_S, JobService
from roofleet_collector.keys.keeper import Keys, kept
from roofleet_collector.keys.opening import Protection
from roofleet_collector.keys.tokens import Tokens
from roofleet_collector.limits import USUAL, Bounds
from roofleet_collector.metrics import Metrics
from roofleet_collector.policy import Policy
from roofleet_collector.presence import Running, address_text, leave_note, running_collector
from roofleet_collector.retaining import retaining
from roofleet_collector.server import Catalogs, GrpcServer
from roofleet_collector.store import DuckDBStore, Store
from roofleet_collector.store.mending import open_mended
from roofleet_collector.store.visits import PATIENCE_S

log = logging.getLogger(__name__)

FLUSH_PERIOD_S = 2.0
DRAIN_S = 5.0
BACKUPS = "backups"
"""The folder in the data folder that copies of what is stored are made in."""


async def serve(
    folder: Path,
    grpc_at: tuple[str, int],
    sql_at: tuple[str, int],
    stop: asyncio.Event,
    *,
    strict: bool = False,
    protection: Protection | None = None,
    ready: Callable[[Running, str], None] = lambda running, kept: None,
    bounds: Bounds = USUAL,
    lease_s: float = LEASE_S,
    metrics_at: tuple[str, int] | None = None,
    policy: Policy | None = None,
) -> None:
    """Serves until `stop` is set; then lets what is under way end, commits it and closes the file.

    `ready` hears where it listens, and how its doors are kept; `bounds` are its limits.
    An agent that is not heard of for `lease_s` loses its jobs. Prometheus reads at `metrics_at`. What is
    older than `policy` says is rolled up or deleted. Raises StoreInUse, AddressInUse, Unprotected or
    KeysUnreadable before anything is served, with `strict` also StoreDamaged.
    """
    protection = protection or Protection()
    tokens = Tokens(folder, most_ids=bounds.callers.agents)
    protection.check([grpc_at[0], sql_at[0]], tokens.exist())
    # another collector stays, everybody else lets go of the folder in a moment
    patience_s = 0.0 if running_collector(folder) else PATIENCE_S
    store = await asyncio.to_thread(open_mended, folder, patience_s, strict=strict, engine=bounds.engine)
    try:
        rederive_outdated(store)
        keys = Keys(store, tokens, protection, bounds.callers)
        credentials = keys.grpc_credentials()
        reader = store.door(bounds.queries)
        try:
            flight = FlightSqlServer(reader, *sql_at, credentials=credentials, admit=keys.sql_door.admit)
        except BaseException:
            reader.close()
            raise
        try:
            roster = Roster(store)
            async with JobService(store, lease_s) as jobs:
                backups = folder.resolve() / BACKUPS
                metrics = Metrics()
                metrics.attached(roster)
                grpc_server = GrpcServer(
                    *(Ingest(store), roster, jobs, _catalogs(), flight.port, backups),
                    keys,
                    metrics,
                    bounds.senders,
                )
                scraped = None if metrics_at is None else metrics.serve(*metrics_at)
                await grpc_server.start(*grpc_at)
                health = Health(grpc_server.can_store)
                shown = protection.certificates
                running = Running(
                    os.getpid(),
                    address_text(grpc_at[0], grpc_server.port),
                    address_text(sql_at[0], flight.port),
                    tls_cert=None if shown is None else str(shown.cert.absolute()),
                )
                notes = [tokens.open_locally(), leave_note(folder, running)]
                ready(running, protection.told(tokens.exist()))
                try:
                    async with kept(keys), retaining(store, policy or Policy(), metrics):
                        while not stop.is_set():
                            with contextlib.suppress(TimeoutError):
                                await asyncio.wait_for(stop.wait(), FLUSH_PERIOD_S)
                            await health.say(await asyncio.to_thread(trouble, store, roster))
                            store.check()
                            await asyncio.to_thread(_settle, store)
                finally:
                    for note in notes:
                        note.unlink(missing_ok=True)
                    await grpc_server.stop(DRAIN_S)
                    if scraped is not None:
                        scraped.close()
        finally:
            reader.close()
            await asyncio.to_thread(flight.stop)
    finally:
        store.close()


class Health:
    """Whether rows can be stored, told when it changes."""

    def __init__(self, tell: Callable[[bool], Awaitable[None]]) -> None:
        self._tell, self._trouble = tell, False

    async def say(self, trouble: str | None) -> None:
        """Why nothing can be stored; None if that is not so."""
        if (trouble is not None) == self._trouble:
            return
        self._trouble = trouble is not None
        if trouble is None:
            log.warning("rows can be stored again")
        else:
            log.error("nothing can be stored, agents keep what they have: %s", trouble)
        await self._tell(trouble is None)


def trouble(store: Store, roster: Roster) -> str | None:
    """Writes what heartbeats said; why nothing can be stored now, such as a full disk, or None."""
    try:
        roster.flush()
        store.probe().result()
    except Exception as error:
        return str(error)
    return None


def _settle(store: DuckDBStore) -> None:
    """Lets the views know what came of runs that go on; what fails is tried again with their next rows."""
    try:
        failed: list[BaseException | None] = [settled.exception() for settled in store.settle()]
    except Exception as error:  # a busy reader, or an engine that has just given up
        failed = [error]
    for why in filter(None, failed):
        log.warning("the figures of a run could not be worked out: %s", why)


def rederive_outdated(store: DuckDBStore) -> int:
    """Works the costs out anew for runs whose costs are of older formulas; returns how many there were."""
    outdated = store.query(
        "SELECT DISTINCT run_id FROM op_costs WHERE formula_version < ?", [FORMULA_VERSION]
    ).read_all()
    for run_id in outdated.column("run_id").to_pylist():
        ops = store.query("SELECT * FROM ops WHERE run_id = ? ORDER BY phase, op_index", [run_id]).read_all()
        store.rederive(run_id, derive_op_costs(ops)).result()
    return int(outdated.num_rows)


def _catalogs() -> Catalogs:
    def hardware_names(text: str) -> list[str]:
        wanted = text.lower()
        return [h.name for h in hardware() if wanted in h.name or wanted in h.title.lower()]

    return Catalogs(lambda text: [model.name for model in filter_models(text)], hardware_names)
