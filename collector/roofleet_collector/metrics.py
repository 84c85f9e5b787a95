"""What Prometheus reads of a collector: what comes in and how fast it is stored, and who is attached."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from roofleet_collector.errors import AddressInUse
from roofleet_collector.fleet import Roster
from roofleet_collector.store import Receipt

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class Metrics:
    """The figures of one collector; safe to change from any thread."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._batches = Counter(
            "roofleet_collector_batches", "Batches that were answered.", ["outcome"], registry=self.registry
        )
        self._rows = Counter(
            "roofleet_collector_rows", "Rows that were stored.", ["table"], registry=self.registry
        )
        self._rejected = Counter(
            "roofleet_collector_rejected_rows", "Rows that were set aside.", registry=self.registry
        )
        self._answered = Histogram(
            "roofleet_collector_answer_seconds",
            "From when a batch came in until it was committed.",
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._refused = Counter(
            "roofleet_collector_refused_streams",
            "Streams of batches that were ended, by why.",
            ["reason"],
            registry=self.registry,
        )
        self.waiting_bytes = Gauge(
            "roofleet_collector_waiting_bytes",
            "Batches that came in and are not committed.",
            registry=self.registry,
        )
        self.can_store = Gauge(
            "roofleet_collector_can_store", "1 while rows can be stored.", registry=self.registry
        )

        self._retained = Counter(
            "roofleet_collector_retention_rows",
            "Rows that were rolled up or deleted for their age.",
            ["table", "what"],
            registry=self.registry,
        )
        self._file_bytes = Gauge(
            "roofleet_collector_file_bytes", "What the database takes on the disk.", registry=self.registry
        )
        self._free_bytes = Gauge(
            "roofleet_collector_file_free_bytes", "What of it new rows can take.", registry=self.registry
        )

    def retained(self, table: str, what: str, rows: int) -> None:
        """Retention did something to so many rows of a table."""
        if rows:
            self._retained.labels(table, what).inc(rows)

    def sized(self, file_bytes: int, free_bytes: int) -> None:
        """What the database takes, and what of that is free."""
        self._file_bytes.set(file_bytes)
        self._free_bytes.set(free_bytes)

    def answered(self, receipt: Receipt, rows: Mapping[str, int], seconds: float) -> None:
        """A batch is committed, with so many rows of each table, after so long."""
        self._answered.observe(seconds)
        there = "duplicate" if receipt.duplicate else "foreign" if receipt.foreign else None
        self._batches.labels(there or "stored").inc()
        self._rejected.inc(receipt.rejected)
        for table, count in () if there else rows.items():
            self._rows.labels(table).inc(count)

    def ended(self, error: Exception) -> None:
        """A stream was ended by an error."""
        self._refused.labels(type(error).__name__).inc()

    def attached(self, roster: Roster) -> None:
        """From now on who is attached is told too."""
        self.registry.register(_Attached(roster))

    def serve(self, host: str, port: int) -> _Serving:
        """Serves them over HTTP until closed; AddressInUse if something else listens there."""
        try:
            server, _ = start_http_server(port, host, registry=self.registry)
        except OSError as error:
            text = f"{host}:{port} cannot be listened on ({error.strerror}): choose another with --metrics"
            raise AddressInUse(error.errno, text) from error
        return _Serving(server)


class _Serving:
    def __init__(self, server: object) -> None:
        self._server = server
        self.port = int(server.server_port)  # type: ignore[attr-defined]

    def close(self) -> None:
        """Listens no more."""
        self._server.shutdown()  # type: ignore[attr-defined]
        self._server.server_close()  # type: ignore[attr-defined]


class _Attached(Collector):
    """The roster, looked at when it is asked for."""

    def __init__(self, roster: Roster) -> None:
        self._roster = roster

    def collect(self) -> Iterator[Metric]:
        """The families of one scrape."""
        agents = self._roster.agents()
        yield GaugeMetricFamily("roofleet_collector_agents", "Agents that are attached.", len(agents))
        waiting = GaugeMetricFamily(
            "roofleet_collector_agent_waiting_batches",
            "Batches that an agent holds.",
            labels=["host", "agent"],
        )
        silent = GaugeMetricFamily(
            "roofleet_collector_agent_silent_seconds", "Since an agent was heard.", labels=["host", "agent"]
        )
        for agent in agents:
            waiting.add_metric([agent.hostname, agent.agent_id], agent.spooled_batches)
            since = max(time.time() - agent.last_seen_unix_us / 1e6, 0.0)
            silent.add_metric([agent.hostname, agent.agent_id], since)
        yield from (waiting, silent)
