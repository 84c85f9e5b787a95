"""`roofleet analyze`: exact costs of a model of any size, without running it."""

from __future__ import annotations

import json
from contextlib import nullcontext
from typing import TYPE_CHECKING, Annotated

import typer

from roofleet import console
from roofleet.commands import completion, options
from roofleet.errors import UserError, needing
from roofleet.reports.analysis import print_analysis

if TYPE_CHECKING:
    from roofleet_analysis.catalogs.hardware import Hardware

# What a first look compares with: one of each generation and vendor.
_USUAL = ("l4", "a100-80gb-sxm", "h100-sxm", "mi300x", "tpu-v5e")


def analyze(
    model: options.Model,
    hardware: Annotated[
        list[str] | None,
        typer.Option(
            "--hardware",
            metavar="NAME",
            help="Catalogue hardware, or all; may be given again. See `roofleet hardware`.",
            show_default=False,
            autocompletion=completion.hardware,
        ),
    ] = None,
    dtype: Annotated[
        options.Dtype, typer.Option("--dtype", help="auto is the one the model was published in.")
    ] = options.Dtype.auto,
    batch_size: options.BatchSize = 1,
    prompt_tokens: options.PromptTokens = None,
    prompt: options.Prompt = None,
    new_tokens: options.NewTokens = 32,
    logits: options.LogitsOption = options.Logits.last,
    variant: options.VariantOption = "base",
    attention: options.Attention = None,
    largest: Annotated[
        bool | None,
        typer.Option(
            "--largest/--no-largest",
            help="Look for the largest batch and prompt that each hardware holds. Default: where --hardware "
            "names it.",
            show_default=False,
        ),
    ] = None,
    offline: options.Offline = False,
    json_output: options.Json = False,
) -> None:
    """Count a model's FLOPs, bytes and memory, say what it fits on, and bound its time on hardware.

    Nothing is run and no weights are needed: the model is traced on torch's meta device, so any size works.
    """
    from roofleet.analyzing.importing import tracing_alone
    from roofleet.naming.hub import settle_hub
    from roofleet.naming.models import resolve, suggesting
    from roofleet_agent.variants import parse
    from roofleet_agent.workload import Workload

    chips = chosen_hardware(hardware or list(_USUAL))
    if largest is None:
        largest = hardware is not None and len(chips) == len(hardware)  # `all` would take its time
    request = resolve(model, None)
    workload = Workload(
        batch_size,
        options.prompt_tokens_of(prompt, prompt_tokens),
        new_tokens,
        logits=logits.value,
        prompt=prompt,
        attention=attention,
        variant=parse(variant),
    )
    with suggesting(request):
        settle_hub(request, offline=offline, tokenizer=prompt is not None)
    # code of the user's own, and what quantises, may do more with torch than trace
    only_traces = request.origin != "module" and workload.variant.name == "base"
    with needing("agent"), tracing_alone() if only_traces else nullcontext():
        from roofleet.analyzing.analysis import analyze as analyze_model

        with console.progress(request.name, quiet=json_output) as show, suggesting(request):
            result = analyze_model(request, dtype.value, workload, chips, largest=largest, show=show)
    if json_output:
        print(json.dumps(result))
    else:
        print_analysis(console.out(), result)


def chosen_hardware(names: list[str]) -> list[Hardware]:
    """The catalogue entries of these names; UserError with the nearest for one that is not there."""
    from roofleet_analysis.catalogs import hardware as catalog

    if [name.lower() for name in names] == ["all"]:
        return list(catalog.hardware())
    chips = []
    for name in names:
        chip = catalog.find_hardware(name)
        if chip is None:
            nearest = ", ".join(catalog.nearest_hardware(name))
            raise UserError(
                f"there is no hardware {name!r} in the catalogue. "
                + (f"Did you mean {nearest}? " if nearest else "")
                + "`roofleet hardware` lists it"
            )
        chips.append(chip)
    return chips
