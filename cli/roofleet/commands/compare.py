"""`roofleet compare`: what changed between runs in time, memory, work, efficiency and quality."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from roofleet import console
from roofleet.commands import completion, options
from roofleet.commands.reaching import reaching
from roofleet.commands.signals import terminating_interrupts
from roofleet.errors import UserError, needs
from roofleet.running.runs import check_destination, dtype_for, open_runs

if TYPE_CHECKING:
    from roofleet.asking.reading import Query
    from roofleet_agent.profiling import Plan

BUDGET_S = 60.0
"""Seconds that steps in turns go on at most, for each model: a difference takes more than a time."""
_SEVERAL = "Given again, one for each side."


@reaching
def compare(
    runs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="RUN RUN...",
            help="Two runs or more: ids, their beginnings, latest, or latest~1 for the one before. The first "
            "is the baseline.",
            show_default=False,
            autocompletion=completion.runs,
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--run",
            metavar="MODEL",
            help="Instead of runs that are stored: run this model in two ways or more (--variant, --dtype, "
            "--attention), all loaded beside one another, their steps in turns.",
            show_default=False,
            autocompletion=completion.models,
        ),
    ] = None,
    variant: Annotated[
        list[str] | None,
        typer.Option(
            "--variant",
            metavar="NAME[+NAME]",
            help=f"With --run. {_SEVERAL}",
            autocompletion=completion.variants,
        ),
    ] = None,
    dtype: Annotated[
        list[options.Dtype] | None, typer.Option("--dtype", help=f"With --run. {_SEVERAL}")
    ] = None,
    attention: Annotated[
        list[str] | None, typer.Option("--attention", metavar="NAME", help=f"With --run. {_SEVERAL}")
    ] = None,
    device: options.DeviceName = "auto",
    batch_size: options.BatchSize = 1,
    prompt_tokens: Annotated[
        int, typer.Option("--prompt-tokens", min=1, help="With --run: random tokens in each prompt.")
    ] = 128,
    new_tokens: options.NewTokens = 32,
    iterations: options.Iterations = "auto",
    budget: options.Budget = BUDGET_S,
    weights: options.Weights = None,
    offline: options.Offline = False,
    collector: options.Collector = None,
    server: options.Server = None,
    data: options.Data = None,
    json_output: options.Json = False,
) -> None:
    """Say what changed between runs, with the confidence of the difference.

    Times are compared by Welch's t over the iterations; with --run, step by step, which finds small
    differences on a machine whose speed moves. Nothing is called faster or slower whose 95 % interval
    includes no difference, which differs by less than 2 %, or of which a run made by itself was too noisy.
    """
    from roofleet.asking.reading import reading
    from roofleet.naming.runs import chosen_runs

    if model is None:
        if variant or dtype or attention:
            raise UserError("--variant, --dtype and --attention say what to run: give --run MODEL too")
        if collector is not None:
            raise UserError("--collector is where --run sends to: to compare runs that it has give --server")
        if not runs or len(runs) < 2:
            given = f"{runs[0]!r} is one run" if runs else "no run is named"
            raise UserError(f"{given}, a comparison needs two: `roofleet compare latest~1 latest`")
        with reading(server, data) as query:
            _tell(query, chosen_runs(query, runs), json_output)
        return
    if runs:
        raise UserError("give either runs that are stored, or --run MODEL to make them")
    if server is not None:
        raise UserError("--server only answers; to send the runs of --run give --collector")
    sides = sides_of(variant or [], [d.value for d in dtype or ()], attention or [])
    check_destination(collector, data)
    _run_and_tell(
        model, sides, device, weights, offline, collector, data, json_output,
        {"batch_size": batch_size, "prompt_tokens": prompt_tokens, "new_tokens": new_tokens,
         "iterations": options.iterations_of(iterations), "budget_s": budget},
    )  # fmt: skip


def sides_of(
    variants: list[str], dtypes: list[str], attentions: list[str]
) -> list[tuple[str, str, str | None]]:
    """Variant, dtype and attention of each side: an option that is given once holds for all of them."""
    count = max(len(variants), len(dtypes), len(attentions))
    if count < 2:
        raise UserError(
            "a comparison needs two sides: give --variant, --dtype or --attention twice, such as "
            "--variant base --variant int8-weight-only"
        )
    for name, listed in (("variant", variants), ("dtype", dtypes), ("attention", attentions)):
        if len(listed) not in (0, 1, count):
            raise UserError(f"--{name} is given {len(listed)} times and another option {count} times")

    def spread(listed: list[Any], usual: Any) -> list[Any]:
        return listed if len(listed) == count else (listed or [usual]) * count

    return list(zip(spread(variants, "base"), spread(dtypes, "auto"), spread(attentions, None), strict=True))


def _run_and_tell(
    model: str,
    sides: list[tuple[str, str, str | None]],
    device: str,
    weights: options.WeightsChoice | None,
    offline: bool,
    collector: str | None,
    data: Path | None,
    json_output: bool,
    asked: dict[str, Any],
) -> None:
    from roofleet.naming.hub import settle_hub
    from roofleet.naming.models import resolve
    from roofleet_agent.registry import find_device
    from roofleet_agent.variants import parse
    from roofleet_agent.workload import Workload

    request = resolve(model, weights.value if weights else None)
    settle_hub(request, offline=offline, tokenizer=False)
    workloads = [Workload(**asked, attention=how, variant=parse(variant)) for variant, _, how in sides]
    with terminating_interrupts(), open_runs(collector, data) as made:
        needs("agent", "torch")
        from roofleet_agent.profiling import Plan

        chosen = find_device(device)
        plans: list[Plan] = [
            Plan(request, chosen, dtype_for(dtype, chosen), workload, {})
            for (_, dtype, _), workload in zip(sides, workloads, strict=True)
        ]
        with console.progress(request.name) as show:
            made.register(chosen)
            ids = made.profile_in_turns(plans, show)
            made.measure_roofs(chosen, show)
            show("storing", 1.0)
            made.deliver()
        _tell(made.query, ids, json_output)


def _tell(query: Query, ids: list[str], json_output: bool) -> None:
    from roofleet.asking.comparison import QUALITY, WHAT_RAN, compared_layers, compared_phases, read_run
    from roofleet.reports.comparison import print_comparison

    read = [read_run(query, run_id) for run_id in ids]
    if not json_output:
        print_comparison(console.out(), read)
        return
    columns = ("run_id", "status", "noise", "turns_id", *WHAT_RAN, *QUALITY)
    said: dict[str, Any] = {
        "runs": [{name: run.row[name] for name in columns} for run in read],
        "phases": [row for run in read[1:] for row in compared_phases(read[0], run)],
        "layers": [row for run in read[1:] for row in compared_layers(read[0], run)],
    }
    print(json.dumps(said, default=str, indent=1))
