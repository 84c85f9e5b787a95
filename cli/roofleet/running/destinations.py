"""Where a run's rows go: a collector over gRPC, or the same ingest path in this process."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from roofleet.errors import UNREACHABLE, UserError, needs

if TYPE_CHECKING:
    import pyarrow as pa

    from roofleet_agent.sending.spool import Spool

REACH_S = 2.5
"""How long a collector has to answer; the caller hears within five seconds."""


class Destination(Protocol):
    """Takes a spool's rows and answers SQL over them; `warning` is why it may not be able to, or empty."""

    warning: str

    def deliver(self, spool: Spool) -> None:
        """Stores everything in the spool; what is not stored stays in it."""
        ...

    def query(self, sql: str, parameters: Sequence[object] = ()) -> pa.Table:
        """Rows of one statement over what is stored."""
        ...

    def close(self) -> None:
        """Lets go."""
        ...


class RemoteCollector:
    """A collector at HOST:PORT; `warning` says so if it did not answer when it was first asked."""

    def __init__(self, address: str) -> None:
        from roofleet_agent.errors import CollectorUnreachable
        from roofleet_agent.sending.uplink import open_channel, wait_until_ready

        self.address = address
        self._channel: Any = open_channel(address)
        self.warning = ""
        try:
            wait_until_ready(self._channel, address, REACH_S)
        except CollectorUnreachable as error:
            self.warning = str(error)

    def deliver(self, spool: Spool) -> None:
        """See Destination.deliver; CollectorUnreachable if the collector does not answer."""
        from roofleet_agent.sending.uplink import Uplink, wait_until_ready

        wait_until_ready(self._channel, self.address, REACH_S)
        Uplink(spool, self._channel).drain(30.0)

    def query(self, sql: str, parameters: Sequence[object] = ()) -> pa.Table:
        """See Destination.query; the collector says where its SQL is."""
        import grpc

        from roofleet.api.client import ServerAway, connect
        from roofleet_proto.records import Filter
        from roofleet_proto.services import GET_COLLECTOR

        try:
            info = GET_COLLECTOR.client(self._channel)(Filter(), timeout=REACH_S)
        except grpc.RpcError as error:
            raise ServerAway(f"{self.address} does not say where its SQL is ({error.details()})") from None
        host = self.address.rpartition(":")[0]
        with connect(f"{host}:{info.sql_port}") as connection:
            return connection.sql(sql, parameters)

    def close(self) -> None:
        """See Destination.close."""
        self._channel.close()


class EmbeddedCollector:
    """The collector's ingest and store in this process, on a data folder nobody else holds."""

    warning = ""

    def __init__(self, folder: Path) -> None:
        needs("collector", "duckdb")
        from roofleet_collector.ingest import Ingest
        from roofleet_collector.store import DuckDBStore

        self._store = DuckDBStore(folder)
        self._ingest = Ingest(self._store)

    def deliver(self, spool: Spool) -> None:
        """See Destination.deliver."""
        while batches := spool.pending():
            for batch in batches:
                try:
                    self._ingest.take(batch).result()
                except ValueError as error:
                    spool.set_aside(batch.sequence, str(error))
                else:
                    spool.acknowledge([batch.sequence])

    def query(self, sql: str, parameters: Sequence[object] = ()) -> pa.Table:
        """See Destination.query."""
        return self._store.query(sql, parameters).read_all()

    def close(self) -> None:
        """See Destination.close."""
        self._store.close()


def open_destination(collector: str | None, folder: Path) -> RemoteCollector | EmbeddedCollector:
    """The collector named, else the one that holds the folder, else one in this process."""
    if collector is not None:
        return RemoteCollector(collector)
    from roofleet_collector.presence import running_collector

    running = running_collector(folder)
    if running is not None:
        remote = RemoteCollector(running.grpc)
        if not remote.warning:
            return remote
        remote.close()
    return EmbeddedCollector(folder)


def kept(spool: Path, why: str) -> UserError:
    """The error of a run that was measured and not delivered."""
    return UserError(
        f"{why}\nThe run is kept in {spool} and sent by the next `roofleet agent` or "
        "`roofleet profile` that uses that spool and reaches a collector",
        UNREACHABLE,
    )
