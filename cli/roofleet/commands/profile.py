"""`roofleet profile`: one run of one model on one device."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Annotated

import typer

from roofleet import console
from roofleet.commands import options
from roofleet.errors import UserError, needs
from roofleet.folders import address, data_folder

if TYPE_CHECKING:
    from roofleet_agent.devices.base import Device
    from roofleet_agent.sending.spool import Spool


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
    needs("agent", "torch")
    from roofleet.embedded import RemoteCollector, kept, open_destination
    from roofleet.models import resolve
    from roofleet.report import print_run, run_row
    from roofleet_agent import profiling
    from roofleet_agent.engines.base import Workload
    from roofleet_agent.errors import CollectorUnreachable
    from roofleet_agent.registry import find_device
    from roofleet_agent.roofs import measured_roofs
    from roofleet_agent.rows import table_of
    from roofleet_agent.sending.spool import Spool

    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    request = resolve(model, weights.value if weights else None)
    workload = Workload(
        batch_size, prompt_tokens, new_tokens, iterations, warmup, logits.value, prompt=prompt
    )
    chosen = find_device(device)
    folder = data_folder(data)
    destination = open_destination(collector, folder)
    try:
        if isinstance(destination, RemoteCollector) and not destination.reachable:
            console.err().print(
                f"warning: {destination.why}. The run goes on and is kept in {folder / 'spool.sqlite'}",
                markup=False,
            )
        spool = Spool(folder / "spool.sqlite")
        try:
            with console.progress(request.name) as show:
                _register(spool, chosen)
                roofs = measured_roofs(
                    chosen, folder, done=lambda roof: show(f"measuring roofs: {roof}", 0.0)
                )
                spool.write("roofs", table_of("roofs", roofs))
                run_id = profiling.profile(
                    request, chosen, _dtype(dtype.value, chosen), workload, spool, progress=show
                )
                show("storing", 1.0)
                try:
                    destination.deliver(spool, lambda count: None)
                except CollectorUnreachable as error:
                    raise kept(folder, str(error)) from None
        finally:
            spool.close()
        if json_output:
            print(json.dumps(run_row(destination.query, run_id), default=str))
        else:
            print_run(console.out(), destination.query, run_id)
    finally:
        destination.close()


def _register(spool: Spool, device: Device) -> None:
    from roofleet_agent.service import register, take_readings

    register(spool, spool.agent_id, [device])
    take_readings(spool, [device])


def _dtype(wanted: str, device: Device) -> str:
    if wanted != "auto":
        return wanted
    return "fp32" if device.info.kind == "cpu" else "bf16"
