"""The record of a run: it takes what passes find, writes it under the run's id, and says how it ended."""

from __future__ import annotations

import time
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from roofleet_agent.inventory import host_id
from roofleet_agent.passes.base import Found
from roofleet_agent.rows import Sink, table_of
from roofleet_agent.run_ids import new_run_id
from roofleet_proto.tables import TABLES


class Record:
    """One run on its way to a sink. `row` is its row of `runs`, written again when there is more to say."""

    def __init__(self, sink: Sink, device_id: str, run_id: str | None = None, **columns: Any) -> None:
        self.run_id = run_id or new_run_id()
        self.began_ns = time.perf_counter_ns()
        self._sink = sink
        self.row: dict[str, Any] = {
            "run_id": self.run_id,
            "host_id": host_id(),
            "device_id": device_id,
            "status": "running",
            "started_at": datetime.now(UTC),
            **columns,
        }

    def take(self, found: Iterable[Found]) -> None:
        """Writes rows as they come; columns of the run are kept for its own row."""
        for table, rows in found:
            if table == "runs":
                for columns in rows:
                    self.row |= columns
            elif rows:
                mine = {"run_id": self.run_id} if "run_id" in TABLES[table].schema.names else {}
                self._sink.write(table, table_of(table, ({**mine, **row} for row in rows)))

    def say(self) -> None:
        """Writes the run as it is known by now."""
        self._sink.write("runs", table_of("runs", [self.row]))

    def finish(self, status: str, error: str | None = None) -> None:
        """Writes how the run ended; nothing if it never came to a model: then the caller's error says why."""
        if "model_id" in self.row:
            self.row |= {"status": status, "error": error, "finished_at": datetime.now(UTC)}
            self.say()
