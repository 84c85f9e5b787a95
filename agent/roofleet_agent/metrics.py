"""What Prometheus reads of an agent: what waits in its spool, what is gone, and whether it is attached."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from roofleet_agent.errors import SpoolUnusable
from roofleet_agent.sending.spool import Spool


class _Spooled(Collector):
    """The spool and the attachment, looked at when they are asked for."""

    def __init__(self, spool: Spool, is_attached: Callable[[], bool]) -> None:
        self._spool, self._is_attached = spool, is_attached

    def collect(self) -> Iterator[Metric]:
        """The families of one scrape; those of a spool that cannot be read are left out."""
        yield GaugeMetricFamily(
            "roofleet_agent_attached", "1 while a collector knows of it.", float(self._is_attached())
        )
        try:
            batches, size, gone = self._spool.count(), self._spool.size_bytes(), self._spool.dropped()
        except SpoolUnusable:
            return
        yield GaugeMetricFamily("roofleet_agent_waiting_batches", "Batches not acknowledged.", batches)
        yield GaugeMetricFamily("roofleet_agent_waiting_bytes", "Their bytes.", size)
        dropped = GaugeMetricFamily(
            "roofleet_agent_dropped_rows",
            "Rows let go of unsent that no collector has heard of yet.",
            labels=["table", "reason"],
        )
        for one in gone:
            dropped.add_metric([one.table, one.reason], one.rows)
        yield dropped


def serve_metrics(
    host: str, port: int, spool: Spool, is_attached: Callable[[], bool]
) -> tuple[int, Callable[[], None]]:
    """Serves them over HTTP; the port, and what ends it. OSError if something else listens there."""
    registry = CollectorRegistry()
    registry.register(_Spooled(spool, is_attached))
    server, _ = start_http_server(port, host, registry=registry)

    def close() -> None:
        server.shutdown()
        server.server_close()

    return int(server.server_port), close
