"""A sweep: the runs of a grid, one after the other; stopped and gone on with as one likes."""

from __future__ import annotations

import contextlib
import json
import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from roofleet import console
from roofleet.api.client import ServerAway
from roofleet.errors import UserError, line_of
from roofleet.naming.architecture import with_settings
from roofleet_agent.errors import SpoolUnusable
from roofleet_agent.inventory import device_id
from roofleet_agent.variants import parse
from roofleet_agent.workload import BUDGET_S, ModelRequest, Workload
from roofleet_analysis.sweeps import (
    FINISHED,
    Axes,
    Point,
    label,
    model_name,
    points,
    result_of,
    settings_of,
    varying,
)
from roofleet_dashboard import queries

if TYPE_CHECKING:
    from roofleet.running.runs import Runs, Show
    from roofleet_agent.devices.base import Device


MOST_IN_TURNS = 4
"""Points that are loaded beside one another; more take the place of others in caches and memory."""


@dataclass
class Sweep:
    """A row of `sweeps`."""

    model: str
    axes: Axes
    sweep_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    started_at: datetime = field(default_factory=lambda: datetime.now(UTC))

    @property
    def points(self) -> list[Point]:
        """Every point, in the order in which they are run."""
        return points(self.axes)

    @property
    def varying(self) -> list[str]:
        """Names of the axes with several values."""
        return varying(self.axes)

    def row(self) -> dict[str, Any]:
        """The row that is stored."""
        return {
            "sweep_id": self.sweep_id,
            "model_name": self.model,
            "axes": json.dumps(self.axes),
            "points": len(self.points),
            "started_at": self.started_at,
        }


@dataclass
class Outcome:
    """How a sweep went: why points failed this time, by their words, and whether it was stopped."""

    failed: dict[str, str] = field(default_factory=dict)
    stopped: bool = False


def known_sweep(runs: Runs, sweep_id: str) -> Sweep:
    """The sweep of that id; UserError if there is none."""
    rows = runs.query("SELECT * FROM sweeps WHERE sweep_id = ?", (sweep_id,)).to_pylist()
    if not rows:
        known = runs.query("SELECT sweep_id FROM sweeps ORDER BY started_at DESC LIMIT 3").to_pylist()
        latest = ", ".join(row["sweep_id"] for row in known)
        hint = f"The latest are {latest}" if known else "There is none there yet"
        raise UserError(f"there is no sweep {sweep_id!r} to go on with. {hint}")
    return _sweep(rows[0])


def unfinished(runs: Runs, model: str, axes: Axes, device: Device) -> Sweep | None:
    """The latest sweep of the same model and axes on this device that has points left; None if there is none,
    or nobody answers."""
    try:
        rows = runs.query(
            "SELECT * FROM sweeps WHERE model_name = ? AND axes = ? ORDER BY started_at DESC LIMIT 5",
            (model, json.dumps(axes)),
        ).to_pylist()
        for sweep in map(_sweep, rows):
            if missing(runs, sweep) and devices_of(runs, sweep) <= {device_id(device)}:
                return sweep
    except ServerAway:
        pass
    return None


def missing(runs: Runs, sweep: Sweep) -> list[Point]:
    """The points of a sweep without a run that settles them."""
    rows = results(runs, sweep)
    found = ((point, result_of(point, sweep.model, rows)) for point in sweep.points)
    return [point for point, row in found if row is None or row["status"] not in FINISHED]


def missing_or_all(runs: Runs, sweep: Sweep) -> list[Point]:
    """The same; all points where nobody answers, who would know."""
    try:
        return missing(runs, sweep)
    except ServerAway:
        return sweep.points


def results(runs: Runs, sweep: Sweep) -> list[dict[str, Any]]:
    """The runs of a sweep as the query `sweep_runs` gives them."""
    rows: list[dict[str, Any]] = runs.query(queries.sql("sweep_runs"), (sweep.sweep_id,)).to_pylist()
    return rows


def devices_of(runs: Runs, sweep: Sweep) -> set[str]:
    """Ids of the devices that ran points of a sweep."""
    rows = runs.query("SELECT DISTINCT device_id FROM runs WHERE sweep_id = ?", (sweep.sweep_id,))
    return set(rows.column("device_id").to_pylist())


def run_points(
    runs: Runs, sweep: Sweep, todo: list[Point], request: ModelRequest, device: Device, show: Show
) -> Outcome:
    """Runs the points, or analyses them, and delivers each as it ends.

    A point that fails is stored, or said, with its reason, and the next one has its turn. An interrupt ends
    the sweep; the points that are done are kept.
    """
    outcome = Outcome()
    runs.register(device)
    runs.write("sweeps", [sweep.row()])
    if _in_turns(runs, sweep, todo, request, device, show, outcome):
        return outcome
    done = len(sweep.points) - len(todo)
    inside = console.err().is_terminal
    roofs = device.torch_name == "meta"  # nowhere has none
    try:
        for number, point in enumerate(todo):
            key = label(point, sweep.varying)  # empty for the only point of a sweep
            words = key or model_name(sweep.model, point)
            counted = f"{done + number + 1} of {len(sweep.points)}, {words}"

            def tell(what: str, fraction: float, counted: str = counted, number: int = number) -> None:
                # a bar shows both; lines, one a point
                show(f"{counted}: {what}" if inside else counted, (number + min(fraction, 1.0)) / len(todo))

            try:
                _run_point(runs, sweep, point, request, device, tell)
                if not roofs:
                    runs.measure_roofs(device, tell)
                    roofs = True
            except SpoolUnusable:
                raise
            except Exception as error:
                outcome.failed[key] = line_of(error) or type(error).__name__
                console.err().print(f"{counted} failed: {outcome.failed[key]}", markup=False)
            runs.deliver_if_possible()
    except KeyboardInterrupt:
        outcome.stopped = True
    return outcome


def _in_turns(
    runs: Runs,
    sweep: Sweep,
    todo: list[Point],
    request: ModelRequest,
    device: Device,
    show: Show,
    outcome: Outcome,
) -> bool:
    """Runs a few points of one size beside one another, their steps in turns, so that what the machine does
    meanwhile is done to all; whether that was possible. Where it is not, each is run by itself."""
    from roofleet_agent.profiling import Plan

    sizes = {tuple(point[name] for name in ("batch_size", "prompt_tokens", "new_tokens")) for point in todo}
    if not 2 <= len(todo) <= MOST_IN_TURNS or len(sizes) > 1 or todo[0]["analyze"]:
        return False
    plans = [
        Plan(
            with_settings(request, settings_of(point), model_name(sweep.model, point)),
            device,
            point["dtype"],
            _workload(point),
            {"sweep_id": sweep.sweep_id},
        )
        for point in todo
    ]
    try:
        runs.profile_in_turns(plans, show)
    except KeyboardInterrupt:
        outcome.stopped = True
        return True
    except SpoolUnusable:
        raise
    except Exception as error:  # one of them cannot run, or not beside the others: by itself each says which
        reason = line_of(error) or type(error).__name__
        console.warn(f"the points cannot run beside one another ({reason}): each runs by itself")
        return False
    runs.measure_roofs(device, show)
    runs.deliver_if_possible()
    return True


def _workload(point: Point) -> Workload:
    return Workload(
        point["batch_size"],
        point["prompt_tokens"],
        point["new_tokens"],
        point["iterations"],
        point["warmup"],
        point["logits"],
        attention=point["attention"],
        variant=parse(point["variant"]),
        budget_s=point.get("budget_s", BUDGET_S),  # a sweep of an older version has none
    )


def _run_point(
    runs: Runs, sweep: Sweep, point: Point, request: ModelRequest, device: Device, show: Show
) -> None:
    from roofleet.analyzing.counting import store_analysis, store_refusal

    changed = with_settings(request, settings_of(point), model_name(sweep.model, point))
    workload = _workload(point)
    before = set(runs.sink.run_ids)
    try:
        if point["analyze"]:
            store_analysis(changed, point["dtype"], workload, runs.sink, show, sweep.sweep_id)
        else:
            runs.profile(changed, device, point["dtype"], workload, show, sweep_id=sweep.sweep_id)
    except Exception as error:
        if runs.sink.run_ids == before:
            # It never became a run. Its reason is kept all the same, unless not even the model can be built.
            with contextlib.suppress(Exception):
                store_refusal(
                    changed, device, point["dtype"], workload, runs.sink, line_of(error), sweep.sweep_id
                )
        raise


def _sweep(row: dict[str, Any]) -> Sweep:
    return Sweep(row["model_name"], json.loads(row["axes"]), row["sweep_id"], row["started_at"])
