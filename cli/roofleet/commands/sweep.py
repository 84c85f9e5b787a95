"""`roofleet sweep`: one model over a grid of workloads, variants and sizes, run or analysed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from roofleet import console, logs
from roofleet.commands import completion, options
from roofleet.commands.analyze import chosen_hardware
from roofleet.commands.grid import Asked, gridded
from roofleet.commands.reaching import reaching
from roofleet.commands.signals import terminating_interrupts
from roofleet.errors import FAILED, INTERRUPTED, UserError, needs
from roofleet.running.runs import Runs, check_destination, dtype_for, open_runs

if TYPE_CHECKING:
    from roofleet.naming.models import Weights
    from roofleet.running.sweeping import Sweep
    from roofleet_agent.devices.base import Device
    from roofleet_agent.workload import ModelRequest
    from roofleet_analysis.catalogs.hardware import Hardware

MANY = 200
"""Points of a grid that are not begun without being asked for twice."""


@reaching
@gridded
def sweep(
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="MODEL",
            help="As for `roofleet profile`; not with --resume.",
            show_default=False,
            autocompletion=completion.models,
        ),
    ] = None,
    *,
    asked: Asked,
    analyze: Annotated[
        bool, typer.Option("--analyze", help="Run nothing: trace every point on torch's meta device.")
    ] = False,
    hardware: Annotated[
        list[str] | None,
        typer.Option(
            "--hardware",
            metavar="NAME",
            help="Add the time no step can beat on this catalogue hardware; may be given again.",
            show_default=False,
            autocompletion=completion.hardware,
        ),
    ] = None,
    collector: options.Collector = None,
    data: options.Data = None,
    device: options.DeviceName = "auto",
    resume: Annotated[
        str | None,
        typer.Option(
            "--resume",
            metavar="SWEEP_ID",
            help="Do what is left of this sweep, with the options it was begun with.",
            show_default=False,
        ),
    ] = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Begin anew even if the same sweep was left unfinished.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help=f"Do not stop at more than {MANY} points.")] = False,
    chart: Annotated[
        Path | None,
        typer.Option(
            "--chart", metavar="FILE.html", help="Draw the results into this file.", show_default=False
        ),
    ] = None,
    offline: options.Offline = False,
    json_output: options.Json = False,
) -> None:
    """Run or analyse a model at every point of a grid, and tell what each option does to time and memory.

    Every point is a run. Ctrl-C keeps those that are done; the same command, or --resume, does the rest.
    """
    check_destination(collector, data)
    if (model is None) == (resume is None):
        raise UserError("give either MODEL, or --resume SWEEP_ID to go on with a sweep")
    if chart is not None and chart.suffix.lower() not in (".html", ".htm"):
        raise UserError(f"--chart {chart}: charts are written as .html, which any browser opens")
    if chart is not None and not chart.parent.is_dir():
        raise UserError(f"--chart {chart}: there is no folder {chart.parent}")
    chips = chosen_hardware(hardware or [])
    wanted = asked.pop("weights")[0]
    asked["analyze"] = [analyze]
    logs.keep_warnings()
    with terminating_interrupts(), open_runs(collector, data) as runs:
        needs("agent", "torch")
        from roofleet.running import sweeping

        if resume is not None:
            begun = sweeping.known_sweep(runs, resume)
            request, place = _again(runs, begun, offline)
        else:
            request, place, axes = _plan(str(model), device, wanted, asked, offline)
            found = None if fresh else sweeping.unfinished(runs, request.name, axes, place)
            begun = found or sweeping.Sweep(request.name, axes)
            if found is None and len(begun.points) > MANY and not yes:
                raise UserError(
                    f"the grid has {len(begun.points)} points, more than {MANY}: take some values out, or "
                    "say --yes"
                )
        reasons = _go_on(runs, begun, request, place)
        _report(runs, begun, reasons, chips, chart, json_output)


def _plan(
    model: str,
    device: str,
    weights: Weights | None,
    asked: dict[str, list[Any]],
    offline: bool,
) -> tuple[ModelRequest, Device, dict[str, list[Any]]]:
    """The model, where it runs, and the axes of the sweep that was asked for."""
    from roofleet.analyzing.counting import Nowhere
    from roofleet.naming.architecture import check_settings
    from roofleet.naming.hub import settle_hub
    from roofleet.naming.models import resolve, suggesting
    from roofleet_agent.engines.checkpoints import load_config, published_dtype, task_of
    from roofleet_agent.registry import find_device
    from roofleet_agent.variants import parse
    from roofleet_analysis.sweeps import RUN_OPTIONS, WORKLOAD

    analyze = asked["analyze"][0]
    changed = [name for name in asked if name not in (*WORKLOAD, *RUN_OPTIONS)]
    request = resolve(model, weights)
    if request.origin == "module":
        raise UserError(f"{model} brings its own inputs, so nothing can be swept: profile it as it is")
    with suggesting(request):
        settle_hub(request, offline=offline)
    place: Device = Nowhere() if analyze else find_device(device)
    with suggesting(request):
        config = load_config(request)
        check_settings(request, changed)
    usual = published_dtype(config) if analyze else dtype_for("auto", place)
    generates = (request.task or task_of(config)) != "encode"
    axes = asked | {
        "variant": _unique(parse(name).name for name in asked["variant"]),
        "dtype": _unique(usual if name == "auto" else name for name in asked["dtype"]),
        "new_tokens": asked["new_tokens"] if generates else [0],
        "device": [place.torch_name],
        "weights": [request.weights],
    }
    if request.origin == "folder":
        axes["folder"] = [request.checkpoint]  # to be found again by --resume
    return request, place, axes


def _again(runs: Runs, begun: Sweep, offline: bool) -> tuple[ModelRequest, Device]:
    """The model and the device of a sweep that was begun; UserError if this is another machine."""
    from roofleet.analyzing.counting import Nowhere
    from roofleet.naming.hub import settle_hub
    from roofleet.naming.models import resolve, suggesting
    from roofleet.running.sweeping import devices_of
    from roofleet_agent.inventory import device_id
    from roofleet_agent.registry import find_device

    if "device" not in begun.axes:
        raise UserError(f"sweep {begun.sweep_id} was handed out as jobs: `roofleet jobs` says how they are")
    request = resolve(begun.axes.get("folder", [begun.model])[0], begun.axes["weights"][0])
    with suggesting(request):
        settle_hub(request, offline=offline)
    place: Device = Nowhere() if begun.axes["analyze"][0] else find_device(begun.axes["device"][0])
    elsewhere = devices_of(runs, begun) - {device_id(place)}
    if elsewhere and not begun.axes["analyze"][0]:
        raise UserError(
            f"sweep {begun.sweep_id} was begun on another device than {place.info.name} here, and points of "
            "two devices are no sweep: go on there, or begin one here"
        )
    return request, place


def _go_on(runs: Runs, begun: Sweep, request: ModelRequest, place: Device) -> dict[str, str]:
    """Does the points that are left; returns why points failed. Ends the command if it is interrupted."""
    from roofleet.running import sweeping

    todo = sweeping.missing_or_all(runs, begun)
    done = len(begun.points) - len(todo)
    if done:
        console.err().print(f"sweep {begun.sweep_id}: {done} of {len(begun.points)} points are done already")
    if not todo:
        return {}
    with console.progress(request.name) as show:
        outcome = sweeping.run_points(runs, begun, todo, request, place, show)
    runs.deliver()
    if outcome.stopped:
        left = len(sweeping.missing_or_all(runs, begun))
        console.err().print(
            f"stopped: {len(begun.points) - left} of {len(begun.points)} points are done and kept. The same "
            f"command does the rest, or\n  roofleet sweep --resume {begun.sweep_id}",
            markup=False,
        )
        raise typer.Exit(INTERRUPTED)
    return outcome.failed


def _report(
    runs: Runs,
    begun: Sweep,
    reasons: dict[str, str],
    chips: list[Hardware],
    chart: Path | None,
    json_output: bool,
) -> None:
    """Prints the results; the status says so if there are none."""
    from roofleet.reports.sweep import as_json, print_sweep, write_chart
    from roofleet.running import sweeping

    rows = sweeping.results(runs, begun)
    if chart is not None:
        needs("dashboard", "plotly")
        write_chart(chart, begun, rows)
        console.err().print(f"chart: {chart}", markup=False)
    if json_output:
        print(json.dumps(as_json(begun, rows, reasons, chips), default=str))
    else:
        print_sweep(console.out(), begun, rows, reasons, chips)
    if not any(row["status"] in ("done", "analyzed") for row in rows):
        raise typer.Exit(FAILED)


def _unique(names: Any) -> list[str]:
    return list(dict.fromkeys(names))
