"""What one run and a whole sweep have in common: spool, destination, registration, roofs and delivery."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from roofleet import console
from roofleet.errors import UserError
from roofleet.naming.folders import address, data_folder
from roofleet_analysis.units import percent_text

if TYPE_CHECKING:
    import pyarrow as pa

    from roofleet.running.destinations import Destination
    from roofleet_agent.devices.base import Device
    from roofleet_agent.profiling import Plan
    from roofleet_agent.sending.spool import Spool
    from roofleet_agent.workload import ModelRequest, Workload

Show = Callable[[str, float], None]
"""Hears what is being done and how far it is, from 0 to 1."""


def check_destination(collector: str | None, data: Path | None) -> None:
    """UserError if both are given, or the collector's address is none."""
    if collector is not None and data is not None:
        raise UserError("give --collector or --data, not both: the collector has a data folder of its own")
    if collector is not None:
        address(collector)


class _Noting:
    """A sink that keeps rows in a spool, and in mind which runs they are of; new ones get its labels."""

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self.run_ids: set[str] = set()
        self.labels: dict[str, Any] = {}
        self.said: Callable[[pa.Table], None] = lambda rows: None
        """Hears every row of `runs` once it is kept."""

    def write(self, table: str, rows: pa.Table) -> None:
        """See Sink.write."""
        self._spool.write(table, rows)
        if table == "runs":
            from roofleet_agent.rows import table_of

            new = set(rows.column("run_id").to_pylist()) - self.run_ids
            self.run_ids |= new
            if self.labels and new:  # once: what is said of a run later stands when its row comes again
                labelled = [{"run_id": run_id} | self.labels for run_id in sorted(new)]
                self._spool.write("run_labels", table_of("run_labels", labelled))
            self.said(rows)


class Runs:
    """Runs of one command: they share a spool, and all go to one destination.

    `sink` takes rows and knows the ids of the runs it has seen; `spool` is the file they are kept in.
    """

    def __init__(
        self, folder: Path, destination: Destination, *, warn: bool = True, spool: Path | None = None
    ) -> None:
        """Without `spool` the file is that of runs in this folder with this destination."""
        from roofleet_agent.sending.spool import Spool, run_spool

        self.folder = folder
        self._destination = destination
        self._spool = Spool(spool or run_spool(folder, destination.collector))
        self.spool = self._spool.path
        self.sink = _Noting(self._spool)
        self._said: set[int] = set()
        if destination.warning and warn:
            console.warn(f"{destination.warning}. The run goes on and is kept in {self._spool.path}")

    def label(self, name: str | None, tags: Sequence[str]) -> None:
        """What the runs to come are called and tagged."""
        if name or tags:
            self.sink.labels = {"name": name, "tags": sorted(set(tags)) or None}

    def register(self, device: Device) -> None:
        """Says what this host and the device are."""
        from roofleet_agent.service import register

        register(self.sink, self._spool.agent_id, [device])

    def profile(
        self,
        request: ModelRequest,
        device: Device,
        dtype: str,
        workload: Workload,
        show: Show,
        **options: Any,
    ) -> str:
        """Profiles a model and keeps its rows, to be delivered; returns the run's id.

        `options` go to `profiling.profile`. What a run that failed or was stopped had to say is delivered.
        """
        from roofleet_agent import profiling

        with self._measuring(request, show) as given:
            return profiling.profile(
                request, device, dtype, workload, self.sink, progress=show, **given, **options
            )

    def profile_in_turns(self, plans: Sequence[Plan], show: Show) -> list[str]:
        """Profiles several models with their steps in turns; returns the runs' ids. What failed is
        delivered as with `profile`."""
        from roofleet_agent import profiling

        with self._measuring(plans[0].request, show) as given:
            return profiling.profile_in_turns(plans, self.sink, progress=show, **given)

    @contextlib.contextmanager
    def _measuring(self, request: ModelRequest, show: Show) -> Iterator[dict[str, Any]]:
        """What every profile is given: the user's formulas, and a moment to be seen while it goes on."""
        from roofleet.api.formulas import stated_cost
        from roofleet.naming.models import suggesting

        try:
            with suggesting(request):
                yield {"loaded": self.deliver_if_possible, "stated_cost": stated_cost}
        except BaseException as error:
            self.deliver_if_possible()  # the run's own error is the one to report
            if isinstance(error, KeyboardInterrupt):
                show("cancelled", 1.0)
            raise

    def measure_roofs(self, device: Device, show: Show, again: bool = False) -> None:
        """Keeps the roofs of a device, measured if they are not remembered, and one reading of it.

        They are measured `again` if that is asked. Says so if other work was under way each time.
        """
        from roofleet_agent.roofs.remembered import disturbance, measured_roofs
        from roofleet_agent.service import take_readings

        def measured(roof: str) -> None:
            show(f"measuring the {roof} roof", 1.0)

        rows = measured_roofs(device, self.folder, again=again, done=measured)
        self.write("roofs", rows)
        take_readings(self.sink, [device])
        if (load := disturbance(rows)) is not None:
            console.warn(
                f"the roofs of {device.info.name} were measured while other work took {percent_text(load)} "
                "of the processors, and may be too low. The next run measures them again if it is quiet; "
                "`roofleet roofs --again` does so now"
            )

    def write(self, table: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Keeps rows of a table, to be delivered."""
        from roofleet_agent.rows import table_of

        self.sink.write(table, table_of(table, rows))

    def deliver(self) -> None:
        """Stores what is kept; UserError, saying where it stays, if the collector does not answer, the store
        is held by another process, or there is none."""
        from roofleet.running.destinations import NotDelivered, kept

        try:
            self._destination.deliver(self._spool)
        except NotDelivered as error:
            raise kept(self._spool.path, self._destination.collector, str(error)) from None
        finally:
            for sequence, table, reason in self._spool.set_aside_reasons():
                if sequence not in self._said:
                    self._said.add(sequence)
                    console.warn(f"batch {sequence} of {table} was refused and is set aside: {reason}")

    def deliver_if_possible(self) -> None:
        """Stores what is kept if that is possible; if not, everything is delivered in the end."""
        from roofleet.running.destinations import NotDelivered

        if not self._destination.warning:
            with contextlib.suppress(NotDelivered):
                self._destination.deliver(self._spool)

    def query(self, sql: str, parameters: Sequence[object] = ()) -> pa.Table:
        """Rows of one statement over what is stored; ServerAway if the collector does not answer."""
        return self._destination.query(sql, parameters)

    def sql_address(self) -> str | None:
        """Where a collector that was named answers SQL; None for a data folder."""
        return self._destination.sql_address()

    def close(self) -> None:
        """Closes the spool; what was not delivered stays in it."""
        self._spool.close()


@contextlib.contextmanager
def open_runs(collector: str | None, data: Path | None, *, warn: bool = True) -> Iterator[Runs]:
    """Spool and destination for runs; both are closed in the end. It imports no torch.

    What may keep a run from being stored is told at once, unless `warn` is off.
    """
    from roofleet.running.destinations import open_destination

    folder = data_folder(data)
    destination = open_destination(collector, folder)
    try:
        runs = Runs(folder, destination, warn=warn)
        try:
            yield runs
        finally:
            runs.close()
    finally:
        destination.close()


def dtype_for(wanted: str, device: Device) -> str:
    """The dtype asked for; `auto` is fp32 on a CPU and bf16 on an accelerator."""
    if wanted != "auto":
        return wanted
    return "fp32" if device.info.kind == "cpu" else "bf16"
