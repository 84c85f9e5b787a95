"""`with roofleet.profile(model) as run:` profiles a model in the user's own code."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from roofleet import console
from roofleet.api.storing import store
from roofleet.errors import UserError, line_of, needs
from roofleet.running.runs import check_destination, open_runs

if TYPE_CHECKING:
    import pyarrow as pa

    from roofleet_agent.watching import Watch


_watched: WeakSet[Any] = WeakSet()


class Watched:
    """Watches the calls of a model between entering and leaving, then stores the run.

    `model` is any torch.nn.Module, or something with one as its `model`, such as a pipeline. The run goes to
    `collector` (host:port) or to the data folder `data`, the usual one unless told otherwise. Calls are timed
    with layer timing and without in turns; in the end the first of each kind (prefill, decode, forward) is
    played on copies of its inputs, to count its ops and its memory, and the model is left as it was. Backward
    is not profiled. The roofs of the device are measured then too, once a machine, unless `roofs` is off.

    Nothing that goes wrong with the profiling is raised between entering and leaving: it is a warning, and
    your code goes on. An error of your own is stored with the run and goes on its way.
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
        self._missing: str | None = "the run is stored when the with statement ends: ask after it"

    @property
    def run_id(self) -> str:
        """Identity of the run; UserError before the model is watched."""
        if self._watch is None:
            raise UserError("the run begins when `with roofleet.profile(...) as run:` is entered")
        return self._watch.run_id

    def __enter__(self) -> Watched:
        self._watch = None
        with _python_draws_on():
            try:
                self._begin()
            except Exception as error:  # nothing of ours may end the user's program
                self._not_stored(f"{self._name} is not profiled: {line_of(error)}")
        return self

    def _begin(self) -> None:
        from roofleet_agent.watching import Watch

        if self._module in _watched:
            raise UserError("it is being profiled already, and one with statement at a time watches it")
        try:
            with open_runs(self._collector, self._data):
                pass  # says what may keep the run from being stored, before hours of work
        except Exception as error:
            warn(f"{line_of(error)}. The run goes on and will be kept elsewhere")
        watch = Watch(self._module, self._name)
        watch.start()
        self._watch = watch
        _watched.add(self._module)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        watch = self._watch
        if watch is None:
            return
        _watched.discard(self._module)
        with _python_draws_on():
            try:
                self._end(watch, error)
            except Exception as problem:  # the user's program is not ours to end
                self._not_stored(f"the run of {self._name} is not stored: {line_of(problem)}")

    def _end(self, watch: Watch, error: BaseException | None) -> None:
        from roofleet_agent.watching.keeping import random_numbers

        watch.stop()
        if not watch.phases:
            if error is None:
                self._not_stored(f"{self._name} was not called inside the with: {watch.why_not_called()}")
            return
        status, reason, interrupted = *_outcome(error), None
        if status != "cancelled":
            try:
                with console.progress(self._name, quiet=not console.err().is_terminal) as show:
                    show("counting what its calls cost", 0.5)
                    watch.play()
            except KeyboardInterrupt as interrupt:  # what was timed is stored first
                status, reason, interrupted = "cancelled", "interrupted", interrupt
        with random_numbers(self._module):
            said = store(watch, self._collector, self._data, status, reason, roofs=self._roofs)
        if said is None:
            self._missing = None
        else:
            self._not_stored(said)
        if interrupted is not None:
            raise interrupted

    def _not_stored(self, why: str) -> None:
        self._missing = why
        warn(why)

    def summary(self) -> None:
        """Prints the run's summary and slowest layers, as a table in a terminal or a notebook."""
        from roofleet.reports.run import print_run

        if self._missing is not None:  # said, not raised: nothing of ours ends the user's program
            warn(self._missing)
            return
        with open_runs(self._collector, self._data, warn=False) as runs:
            print_run(console.out(), runs.query, self.run_id)

    def layers(self) -> pa.Table:
        """The run's rows of `layer_summary`, one a phase and layer, in the order of the module tree."""
        self._check_stored()
        return self.sql(
            "SELECT * FROM layer_summary WHERE run_id = ? ORDER BY phase, layer_index", (self.run_id,)
        )

    def sql(self, query: str, parameters: tuple[object, ...] = ()) -> pa.Table:
        """Rows of one statement over everything stored where this run is."""
        self._check_stored()
        with open_runs(self._collector, self._data, warn=False) as runs:
            return runs.query(query, parameters)

    def _check_stored(self) -> None:
        if self._missing is not None:
            raise UserError(self._missing)

    def __repr__(self) -> str:
        if self._watch is None:
            return f"<roofleet.profile of {self._name}, not entered>"
        about = f"run {self.run_id} of {self._name}"
        if self._missing is not None:
            return f"<{about}: {self._missing.splitlines()[0]}>"
        return f"<{about}: {self._watch.in_short()}; see .summary(), .layers(), .sql(query)>"

    def _repr_html_(self) -> str | None:
        """The summary and the layers, for a notebook; None, for the plain text, where nothing is stored."""
        from roofleet.reports.html import run_html

        if self._missing is not None:
            return None
        with open_runs(self._collector, self._data, warn=False) as runs:
            return run_html(runs.query, self.run_id)


@contextlib.contextmanager
def _python_draws_on() -> Iterator[None]:
    """Python's random numbers go on where they were: some libraries draw one when they are imported."""
    state = random.getstate()
    try:
        yield
    finally:
        random.setstate(state)


def _outcome(error: BaseException | None) -> tuple[str, str | None]:
    """Status and reason of a run that ended with an error of the user's code, or none."""
    if error is None or isinstance(error, GeneratorExit):
        return "done", None
    if isinstance(error, KeyboardInterrupt):
        return "cancelled", "interrupted"
    if isinstance(error, SystemExit) and error.code in (None, 0):
        return "done", None
    return "failed", f"{type(error).__name__}: {error}"


def warn(text: str) -> None:
    """Says something on standard error, if there is one."""
    with contextlib.suppress(Exception):
        console.warn(text)
