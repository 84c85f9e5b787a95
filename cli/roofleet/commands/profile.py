"""`roofleet profile`: one run of one model on one device."""

from __future__ import annotations

import json
from importlib.util import find_spec
from typing import Annotated

import typer

from roofleet import console, logs
from roofleet.commands import options
from roofleet.commands.reaching import reaching
from roofleet.commands.signals import terminating_interrupts
from roofleet.errors import UNREACHABLE, UserError, needs
from roofleet.running.runs import check_destination, dtype_for, open_runs
from roofleet_agent.workload import BUDGET_S


@reaching
def profile(
    model: options.Model,
    collector: options.Collector = None,
    data: options.Data = None,
    device: options.DeviceName = "auto",
    dtype: Annotated[
        options.Dtype, typer.Option("--dtype", help="auto is fp32 on a CPU and bf16 on an accelerator.")
    ] = options.Dtype.auto,
    batch_size: options.BatchSize = 1,
    prompt_tokens: options.PromptTokens = None,
    prompt: options.Prompt = None,
    new_tokens: options.NewTokens = 32,
    iterations: options.Iterations = "auto",
    budget: options.Budget = BUDGET_S,
    warmup: Annotated[int, typer.Option("--warmup", min=0, help="Iterations before them, left out.")] = 2,
    logits: options.LogitsOption = options.Logits.last,
    weights: options.Weights = None,
    variant: options.VariantOption = "base",
    attention: options.Attention = None,
    quality_text: options.QualityText = None,
    keep_outputs: options.KeepOutputs = False,
    name: Annotated[
        str | None, typer.Option("--name", help="What to call the run.", show_default=False)
    ] = None,
    tag: Annotated[
        list[str] | None,
        typer.Option("--tag", help="A word to find the run by; may be given again.", show_default=False),
    ] = None,
    offline: options.Offline = False,
    json_output: options.Json = False,
) -> None:
    """Run a model, time its layers, and store what was measured.

    Without --collector the run is stored in the data folder, by the collector that serves it or, where none
    does, by this command itself.
    """
    check_destination(collector, data)
    called = None if name is None else options.run_name(name)
    tags = [options.label(word, "tag") for word in tag or ()]
    from roofleet.naming.hub import settle_hub
    from roofleet.naming.models import resolve, suggesting
    from roofleet_agent.variants import parse
    from roofleet_agent.workload import Workload

    request = resolve(model, weights.value if weights else None)
    workload = Workload(
        batch_size,
        options.prompt_tokens_of(prompt, prompt_tokens),
        new_tokens,
        options.iterations_of(iterations),
        warmup,
        logits.value,
        prompt=prompt,
        attention=attention,
        variant=parse(variant),
        keep_outputs=keep_outputs,
        budget_s=budget,
        quality_text=options.text_of(quality_text),
    )
    with suggesting(request):
        settle_hub(request, offline=offline, tokenizer=prompt is not None or quality_text is not None)
    if quality_text is not None and request.weights == "random":
        console.warn("the weights are random, and what they predict means nothing: no quality will be known")
    from roofleet.api.client import NotLetIn, ServerAway
    from roofleet.asking.pages import way_to_pages
    from roofleet.reports.run import print_run, run_row
    from roofleet_agent.registry import find_device

    if find_spec("torch") is None:
        needs("agent", "torch")
    logs.keep_warnings()
    with (
        terminating_interrupts(),
        open_runs(collector, data) as runs,
    ):  # before torch, which takes its time to import
        needs("agent", "torch")
        chosen = find_device(device)
        runs.label(called, tags)
        with console.progress(request.name) as show:
            runs.register(chosen)
            run_id = runs.profile(request, chosen, dtype_for(dtype.value, chosen), workload, show)
            runs.measure_roofs(chosen, show)
            show("storing", 1.0)
            runs.deliver()
        try:
            if json_output:
                print(json.dumps(run_row(runs.query, run_id), default=str))
            else:
                print_run(console.out(), runs.query, run_id, way_to_pages(run_id, data, runs.sql_address()))
        except (ServerAway, NotLetIn) as error:
            raise UserError(
                f"run {run_id} is stored, but its summary could not be read: {error}", UNREACHABLE
            ) from None
