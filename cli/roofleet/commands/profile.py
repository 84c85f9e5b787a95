"""`roofleet profile`: one run of one model on one device."""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from roofleet import console
from roofleet.commands import options
from roofleet.errors import UNREACHABLE, UserError, needs
from roofleet.folders import address, data_folder

if TYPE_CHECKING:
    from roofleet.embedded import Destination
    from roofleet_agent.devices.base import Device
    from roofleet_agent.sending.spool import Spool
    from roofleet_agent.workload import ModelRequest, Workload


def profile(
    model: options.Model,
    collector: Annotated[
        str | None,
        typer.Option(
            "--collector", metavar="HOST:PORT", help="Send the run to this collector.", show_default=False
        ),
    ] = None,
    data: options.Data = None,
    device: Annotated[
        str, typer.Option("--device", help="auto (an accelerator if there is one), cpu, cuda:0, …")
    ] = "auto",
    dtype: Annotated[
        options.Dtype, typer.Option("--dtype", help="auto is fp32 on a CPU and bf16 on an accelerator.")
    ] = options.Dtype.auto,
    batch_size: options.BatchSize = 1,
    prompt_tokens: options.PromptTokens = 128,
    prompt: options.Prompt = None,
    new_tokens: options.NewTokens = 32,
    iterations: Annotated[int, typer.Option("--iterations", min=1, help="Measured iterations.")] = 5,
    warmup: Annotated[int, typer.Option("--warmup", min=0, help="Iterations before them, left out.")] = 2,
    logits: options.LogitsOption = options.Logits.last,
    weights: options.Weights = None,
    json_output: options.Json = False,
) -> None:
    """Run a model, time its layers, and store what was measured.

    Without --collector the run is stored in the data folder, by the collector that serves it or, where none
    does, by this command itself.
    """
    if collector is not None and data is not None:
        raise UserError("give --collector or --data, not both: the collector has a data folder of its own")
    if collector is not None:
        address(collector)
    from roofleet.models import resolve
    from roofleet_agent.workload import Workload

    request = resolve(model, weights.value if weights else None)
    workload = Workload(
        batch_size, prompt_tokens, new_tokens, iterations, warmup, logits.value, prompt=prompt
    )
    from roofleet.client import ServerAway
    from roofleet.embedded import open_destination
    from roofleet.report import print_run, run_row
    from roofleet_agent.registry import find_device
    from roofleet_agent.sending.spool import Spool

    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    folder = data_folder(data)
    destination = open_destination(collector, folder)  # before torch, which takes its time to import
    try:
        spool = Spool(folder / "spool.sqlite")
        try:
            if destination.warning:
                console.err().print(
                    f"warning: {destination.warning}. The run goes on and is kept in {spool.path}",
                    markup=False,
                )
            needs("agent", "torch")
            chosen = find_device(device)
            with console.progress(request.name) as show:
                run_id = _run(
                    request, chosen, _dtype(dtype.value, chosen), workload, spool, folder, destination, show
                )
        finally:
            spool.close()
        try:
            if json_output:
                print(json.dumps(run_row(destination.query, run_id), default=str))
            else:
                print_run(console.out(), destination.query, run_id)
        except ServerAway as error:
            raise UserError(
                f"run {run_id} is stored, but its summary could not be read: {error}", UNREACHABLE
            ) from None
    finally:
        destination.close()


def _run(
    request: ModelRequest,
    device: Device,
    dtype: str,
    workload: Workload,
    spool: Spool,
    folder: Path,
    destination: Destination,
    show: Callable[[str, float], None],
) -> str:
    """Registers, profiles and delivers; what a run that failed or was stopped had to say is delivered too."""
    from roofleet.embedded import kept
    from roofleet.models import suggesting
    from roofleet_agent import profiling
    from roofleet_agent.errors import CollectorUnreachable
    from roofleet_agent.roofs import measured_roofs
    from roofleet_agent.rows import table_of
    from roofleet_agent.service import register, take_readings

    register(spool, spool.agent_id, [device])

    def deliver_if_possible() -> None:
        # so that the run is seen while it goes on; if not, everything is delivered in the end
        if not destination.warning:
            with contextlib.suppress(CollectorUnreachable):
                destination.deliver(spool)

    try:
        with suggesting(request):
            run_id = profiling.profile(
                request, device, dtype, workload, spool, progress=show, loaded=deliver_if_possible
            )
    except BaseException:
        deliver_if_possible()  # the run's own error is the one to report
        raise
    roofs = measured_roofs(device, folder, done=lambda roof: show(f"measuring the {roof} roof", 1.0))
    spool.write("roofs", table_of("roofs", roofs))
    take_readings(spool, [device])
    show("storing", 1.0)
    try:
        destination.deliver(spool)
    except CollectorUnreachable as error:
        raise kept(spool.path, str(error)) from None
    finally:
        for sequence, table, reason in spool.set_aside_reasons():
            console.err().print(
                f"warning: batch {sequence} of {table} was refused and is set aside: {reason}", markup=False
            )
    return run_id


def _dtype(wanted: str, device: Device) -> str:
    if wanted != "auto":
        return wanted
    return "fp32" if device.info.kind == "cpu" else "bf16"
