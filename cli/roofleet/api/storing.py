"""Stores a watched run where it was to go, or keeps it where it can be sent from later."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from roofleet import console
from roofleet.api.formulas import stated_cost
from roofleet.errors import UserError, line_of
from roofleet.running.runs import open_runs

if TYPE_CHECKING:
    import pyarrow as pa

    from roofleet_agent.rows import Sink
    from roofleet_agent.watching import Watch


def store(
    watch: Watch, collector: str | None, data: Path | None, status: str, reason: str | None, *, roofs: bool
) -> str | None:
    """Stores the run; None when it is, else where it is kept, why, and what to do."""
    seen = _Held()
    watch.write(seen, status, reason, stated_cost)
    try:
        with open_runs(collector, data, warn=False) as runs:
            runs.register(watch.device)
            seen.give(runs.sink)
            problem = None
            if status == "done" and roofs:
                try:
                    with console.progress(watch.name, quiet=not console.err().is_terminal) as show:
                        runs.measure_roofs(watch.device, show)
                except Exception as error:  # the run is worth keeping without
                    problem = f"the roofs could not be measured: {line_of(error)}"
            try:
                runs.deliver()
            except UserError as error:
                return str(error)
            if problem is not None:
                console.warn(problem)
            return None
    except Exception as error:  # the folder or the spool cannot be used at all
        return f"{line_of(error)}\n{_kept_elsewhere(seen, watch)}"


class _Held:
    """A sink that holds rows until it is clear where they go."""

    def __init__(self) -> None:
        self._rows: list[tuple[str, pa.Table]] = []

    def write(self, table: str, rows: pa.Table) -> None:
        """See Sink.write."""
        self._rows.append((table, rows))

    def give(self, sink: Sink) -> None:
        """Writes them to another."""
        for table, rows in self._rows:
            sink.write(table, rows)


def _kept_elsewhere(seen: _Held, watch: Watch) -> str:
    from roofleet_agent.sending.spool import Spool, run_spool
    from roofleet_agent.service import register

    folder = Path(tempfile.mkdtemp(prefix="roofleet-"))
    spool = Spool(run_spool(folder, None))
    try:
        register(spool, spool.agent_id, [watch.device])
        seen.give(spool)
    finally:
        spool.close()
    return f"The run is kept in {spool.path}: `roofleet sql --data {folder} …` stores and shows it"
