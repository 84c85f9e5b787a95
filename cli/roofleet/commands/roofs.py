"""`roofleet roofs`: the roofs in force with their conditions, and measuring a device's by hand."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from roofleet import console
from roofleet.commands import options
from roofleet.commands.reaching import reaching
from roofleet.errors import FAILED, UserError


@reaching
def roofs(
    again: Annotated[
        bool, typer.Option("--again", help="Measure this machine's device now; what was measured stays.")
    ] = False,
    device: Annotated[
        str,
        typer.Option("--device", help="With --again: auto (an accelerator if any), cpu, cuda:0, …"),
    ] = "auto",
    collector: Annotated[
        str | None,
        typer.Option(
            "--collector",
            metavar="HOST:PORT",
            help="With --again: send it to this collector.",
            show_default=False,
        ),
    ] = None,
    server: options.Server = None,
    data: options.Data = None,
    json_output: options.Json = False,
) -> None:
    """List the roofs in force: the best that was seen of each device under the same conditions.

    A run is held against the roofs of its own device, threads, torch and driver. A later, lower measurement
    changes nothing, so measuring --again can only raise them.
    """
    from roofleet.asking.reading import reading
    from roofleet.reports.roofs import listed_roofs, roofs_table

    if not again:
        if collector is not None:
            raise UserError("--collector is where --again sends to: to list roofs give --server")
        with reading(server, data) as query:
            rows = listed_roofs(query)
    else:
        if server is not None:
            raise UserError("--server only answers; to send what --again measures give --collector")
        rows = _measured(device, collector, data)
    if json_output:
        print(json.dumps(rows, default=str, indent=1))
    else:
        console.out().print(roofs_table(rows))
    if not rows:
        raise typer.Exit(FAILED)


def _measured(name: str, collector: str | None, data: options.Data) -> list[dict[str, object]]:
    """The roofs in force after this machine's device was measured again."""
    from roofleet.commands.signals import terminating_interrupts
    from roofleet.errors import needs
    from roofleet.reports.roofs import listed_roofs
    from roofleet.running.runs import check_destination, open_runs

    check_destination(collector, data)
    with terminating_interrupts(), open_runs(collector, data) as runs:
        needs("agent", "torch")
        from roofleet_agent.inventory import device_id
        from roofleet_agent.registry import find_device

        chosen = find_device(name)
        with console.progress(chosen.info.name) as show:
            runs.register(chosen)
            runs.measure_roofs(chosen, show, again=True)
            show("storing", 1.0)
            runs.deliver()
        return listed_roofs(runs.query, device_id(chosen))
