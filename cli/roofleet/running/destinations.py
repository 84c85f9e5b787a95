"""Where a run's rows go: a collector over gRPC, or the same ingest path in this process."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from roofleet.errors import UNREACHABLE, UserError, needs
from roofleet.naming.doors import agents_door, here, local_door
from roofleet_proto.door import Door

if TYPE_CHECKING:
    import pyarrow as pa

    from roofleet_agent.sending.spool import Spool
    from roofleet_collector.store import DuckDBStore
    from roofleet_proto.records import RunChange
    from roofleet_proto.services import Method

REACH_S = 2.5
"""How long a collector has to answer; the caller hears within five seconds."""

CHANGE_S = 30.0
"""How long it may take to change or delete runs."""


class Destination(Protocol):
    """Takes a spool's rows and answers SQL over them; `warning` is why it may not be able to, or empty.

    `collector` is the address that rows are kept for, None for those that are stored in the folder.
    """

    collector: str | None
    warning: str

    def deliver(self, spool: Spool) -> None:
        """Stores everything in the spool; NotDelivered if that cannot be, and what is left stays in it."""
        ...

    def query(self, sql: str, parameters: Sequence[object] = ()) -> pa.Table:
        """Rows of one statement over what is stored."""
        ...

    def sql_address(self) -> str | None:
        """HOST:PORT of a named collector's Flight SQL; None for a folder."""
        ...

    def change_run(self, change: RunChange) -> bool:
        """Changes what is said of a stored run; False if there is none of that id."""
        ...

    def delete_runs(self, run_ids: Sequence[str]) -> list[str]:
        """Deletes stored runs; the ids of those that were there."""
        ...

    def close(self) -> None:
        """Lets go."""
        ...


class NotDelivered(Exception):
    """Rows stay in their spool; the message says why."""


class RemoteCollector:
    """A collector at HOST:PORT; `warning` says so if it did not answer when it was first asked."""

    def __init__(self, address: str, door: Door) -> None:
        from roofleet_agent.errors import CollectorUnreachable
        from roofleet_agent.sending.uplink import open_channel, wait_until_ready

        self.address, self._door = address, door
        self.collector: str | None = address
        self._channel: Any = open_channel(address, door)
        self.warning = ""
        try:
            wait_until_ready(self._channel, address, REACH_S)
        except CollectorUnreachable as error:
            self.warning = str(error)

    def deliver(self, spool: Spool) -> None:
        """See Destination.deliver."""
        from roofleet_agent.errors import CollectorUnreachable
        from roofleet_agent.sending.uplink import Uplink, wait_until_ready

        try:
            wait_until_ready(self._channel, self.address, REACH_S)
            Uplink(spool, self._channel).drain(30.0)
        except CollectorUnreachable as error:
            raise NotDelivered(str(error)) from None

    def query(self, sql: str, parameters: Sequence[object] = ()) -> pa.Table:
        """See Destination.query; the collector says where its SQL is."""
        from roofleet.api.client import connect

        with connect(self.sql_address(), self._door) as connection:
            return connection.sql(sql, parameters)

    def sql_address(self) -> str:
        """See Destination.sql_address; ServerAway if the collector does not answer."""
        import grpc

        from roofleet.api.client import ServerAway
        from roofleet_proto.records import Filter
        from roofleet_proto.services import GET_COLLECTOR

        try:
            info = GET_COLLECTOR.client(self._channel)(Filter(), timeout=REACH_S)
        except grpc.RpcError as error:
            raise ServerAway(f"{self.address} does not say where its SQL is ({error.details()})") from None
        return f"{self.address.rpartition(':')[0]}:{info.sql_port}"

    def change_run(self, change: RunChange) -> bool:
        """See Destination.change_run."""
        from roofleet_proto.services import CHANGE_RUN

        return bool(self._call(CHANGE_RUN, change))

    def delete_runs(self, run_ids: Sequence[str]) -> list[str]:
        """See Destination.delete_runs."""
        from roofleet_proto.records import RunIds
        from roofleet_proto.services import DELETE_RUNS

        return list(self._call(DELETE_RUNS, RunIds(tuple(run_ids))).run_ids)

    def _call(self, method: Method, request: Any) -> Any:
        """The collector's answer; UserError if it gives none, or is too old to know the question."""
        import grpc

        try:
            return method.client(self._channel)(request, timeout=CHANGE_S)
        except grpc.RpcError as error:
            if error.code() == grpc.StatusCode.UNIMPLEMENTED:
                raise UserError(f"the collector at {self.address} is too old for this: update it") from None
            raise UserError(
                f"the collector at {self.address} did not do it: {error.details()}", UNREACHABLE
            ) from None

    def close(self) -> None:
        """See Destination.close."""
        self._channel.close()


class EmbeddedCollector:
    """The collector's ingest and store in this process, on a data folder that nobody holds for long.

    The store is open only while rows are stored or a query runs, so that others take their turns.
    """

    collector: str | None = None

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.warning = ""
        try:
            needs("collector", "duckdb")
        except UserError as error:
            self.warning = str(error)
        else:
            from roofleet_collector.store.visits import visited

            visited(folder).check()

    def deliver(self, spool: Spool) -> None:
        """See Destination.deliver."""
        if self.warning:
            raise NotDelivered(self.warning)
        from roofleet_collector.errors import StoreInUse, StoreUnreadable
        from roofleet_collector.ingest import Ingest
        from roofleet_collector.store.visits import visited

        try:
            with visited(self._folder).writing() as store:
                ingest = Ingest(store)
                while batches := spool.pending():
                    for batch in batches:
                        try:
                            receipt = ingest.take(batch).result()
                        except ValueError as error:
                            spool.set_aside(batch.sequence, str(error))
                        else:
                            stored = receipt.duplicate or not batch.given_up
                            spool.acknowledge([batch.sequence], stored=stored)
        except (StoreInUse, StoreUnreadable) as error:
            raise NotDelivered(str(error)) from None

    def query(self, sql: str, parameters: Sequence[object] = ()) -> pa.Table:
        """See Destination.query."""
        if self.warning:
            raise UserError(self.warning)
        from roofleet_collector.store.visits import visited

        return visited(self._folder).query(sql, parameters)

    def sql_address(self) -> None:
        """See Destination.sql_address."""

    def change_run(self, change: RunChange) -> bool:
        """See Destination.change_run."""
        with self._writing() as store:
            return store.change_run(change).result()

    def delete_runs(self, run_ids: Sequence[str]) -> list[str]:
        """See Destination.delete_runs."""
        with self._writing() as store:
            deleted = store.delete_runs(run_ids).result()
            for _ in store.give_back():
                pass
            return deleted

    def _writing(self) -> AbstractContextManager[DuckDBStore]:
        if self.warning:
            raise UserError(self.warning)
        from roofleet_collector.store.visits import visited

        return visited(self._folder).writing()

    def close(self) -> None:
        """See Destination.close."""


class DataFolder:
    """A data folder: the collector that holds it at the moment, or else this process itself."""

    collector: str | None = None

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._embedded = EmbeddedCollector(folder)
        with self._holder() as holder:
            self.warning = "" if holder is not None else self._embedded.warning

    def deliver(self, spool: Spool) -> None:
        """See Destination.deliver."""
        with self._holder() as holder:
            (holder or self._embedded).deliver(spool)

    def query(self, sql: str, parameters: Sequence[object] = ()) -> pa.Table:
        """See Destination.query."""
        with self._holder() as holder:
            return (holder or self._embedded).query(sql, parameters)

    def sql_address(self) -> None:
        """See Destination.sql_address."""

    def change_run(self, change: RunChange) -> bool:
        """See Destination.change_run."""
        with self._holder() as holder:
            return (holder or self._embedded).change_run(change)

    def delete_runs(self, run_ids: Sequence[str]) -> list[str]:
        """See Destination.delete_runs."""
        with self._holder() as holder:
            return (holder or self._embedded).delete_runs(run_ids)

    def close(self) -> None:
        """See Destination.close."""

    @contextmanager
    def _holder(self) -> Iterator[RemoteCollector | None]:
        from roofleet_collector.presence import running_collector

        running = running_collector(self._folder)
        if running is None:
            yield None
            return
        remote = RemoteCollector(here(running.grpc, running), local_door(self._folder, running))
        try:
            yield None if remote.warning else remote
        finally:
            remote.close()


def open_destination(collector: str | None, folder: Path) -> RemoteCollector | DataFolder:
    """The collector named, else the data folder."""
    return DataFolder(folder) if collector is None else RemoteCollector(collector, agents_door(folder))


def kept(spool: Path, collector: str | None, why: str) -> UserError:
    """The error of a run that was measured and not delivered."""
    if collector is None:
        sent = "stored by the next command that runs or asks something with that data folder"
    else:
        sent = (
            "sent by the next `roofleet agent` or `roofleet profile` with that data folder and "
            f"--collector {collector}"
        )
    return UserError(f"{why}\nThe run is kept in {spool} and {sent}", UNREACHABLE)
