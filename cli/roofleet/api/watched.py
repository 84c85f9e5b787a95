"""`with roofleet.profile(model) as run:` profiles a model in the user's own code."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from roofleet import console
from roofleet.errors import UserError, needs
from roofleet.running.runs import check_destination, open_runs

if TYPE_CHECKING:
    import pyarrow as pa

    from roofleet_agent.watching import Watch


_watched: WeakSet[Any] = WeakSet()


class Watched:
    """Watches the calls of a model between entering and leaving, then stores the run.

    `model` is any torch.nn.Module, or something with one as its `model`, such as a pipeline. The run goes to
    `collector` (host:port) or to the data folder `data`, the usual one unless told otherwise. Calls are timed
    with layer timing and without in turns; the first of each kind (prefill, decode, forward) is played twice
    more on copies of its inputs, to count its ops and its memory, and leaves the model as it was. The roofs
    of the device are measured in the end, once a machine, unless `roofs` is off. An error in your code is
    stored with the run and goes on its way.
    """

    def __init__(
        self,
        model: Any,
        name: str | None = None,
        *,
        collector: str | None = None,
        data: str | None = None,
        roofs: bool = True,
    ) -> None:
        needs("agent", "torch")
        from torch import nn

        module = model if isinstance(model, nn.Module) else getattr(model, "model", None)
        if not isinstance(module, nn.Module):
            raise UserError(
                f"roofleet.profile takes a torch.nn.Module or something with one as its .model, "
                f"not {type(model).__name__}"
            )
        self._collector, self._data = collector, None if data is None else Path(data)
        check_destination(self._collector, self._data)
        self._roofs = roofs
        self._module = module
        self._name = name or type(module).__name__
        self._watch: Watch | None = None
        self._stored = False

    @property
    def run_id(self) -> str:
        """Identity of the run; UserError before the model is watched."""
        if self._watch is None:
            raise UserError("the run begins when `with roofleet.profile(...) as run:` is entered")
        return self._watch.run_id

    def __enter__(self) -> Watched:
        from roofleet_agent.watching import Watch

        if self._module in _watched:
            raise UserError(
                f"{self._name} is being profiled already: one with statement at a time watches it"
            )
        self._watch, self._stored = Watch(self._module, self._name), False
        _watched.add(self._module)
        self._watch.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        watch = self._watch
        assert watch is not None
        watch.stop()
        _watched.discard(self._module)
        if not watch.phases:
            if error is None:
                raise UserError(
                    f"{self._name} was not called inside the with: call the model itself, which is "
                    f"{type(self._module).__name__}, there"
                )
            return
        status, reason = "done", None
        if isinstance(error, KeyboardInterrupt):
            status, reason = "cancelled", "interrupted"
        elif error is not None:
            status, reason = "failed", f"{type(error).__name__}: {error}"
        self._store(watch, status, reason)

    def _store(self, watch: Watch, status: str, reason: str | None) -> None:
        from roofleet.api.formulas import stated_cost

        with open_runs(self._collector, self._data) as runs:
            runs.register(watch.device)
            watch.write(runs.sink, status, reason, stated_cost)
            if status == "done" and self._roofs:
                with console.progress(self._name, quiet=not console.err().is_terminal) as show:
                    runs.measure_roofs(watch.device, show)
            runs.deliver()
        self._stored = True

    def summary(self) -> None:
        """Prints the run's summary and slowest layers, as a table in a terminal or a notebook."""
        from roofleet.reports.run import print_run

        self._check_stored()
        with open_runs(self._collector, self._data) as runs:
            print_run(console.out(), runs.query, self.run_id)

    def layers(self) -> pa.Table:
        """The run's rows of `layer_summary`, one a phase and layer, in the order of the module tree."""
        return self.sql(
            "SELECT * FROM layer_summary WHERE run_id = ? ORDER BY phase, layer_index", (self.run_id,)
        )

    def sql(self, query: str, parameters: tuple[object, ...] = ()) -> pa.Table:
        """Rows of one statement over everything stored where this run is."""
        self._check_stored()
        with open_runs(self._collector, self._data) as runs:
            return runs.query(query, parameters)

    def _check_stored(self) -> None:
        if not self._stored:
            raise UserError("the run is stored when the with statement ends: ask after it")
