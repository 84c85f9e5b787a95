"""`roofleet analyze`: exact costs of a model of any size, without running it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from roofleet import console
from roofleet.commands import options
from roofleet.errors import UserError, needs

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
        ),
    ] = None,
    dtype: Annotated[
        options.Dtype, typer.Option("--dtype", help="auto is the one the model was published in.")
    ] = options.Dtype.auto,
    batch_size: options.BatchSize = 1,
    prompt_tokens: options.PromptTokens = 128,
    prompt: options.Prompt = None,
    new_tokens: options.NewTokens = 32,
    logits: options.LogitsOption = options.Logits.last,
    json_output: options.Json = False,
) -> None:
    """Count a model's FLOPs, bytes and memory, and bound its time on hardware.

    Nothing is run and no weights are needed: the model is traced on torch's meta device, so any size works.
    """
    from roofleet.models import resolve, suggesting
    from roofleet_agent.workload import Workload

    chips = chosen_hardware(hardware or list(_USUAL))
    request = resolve(model, None)
    workload = Workload(batch_size, prompt_tokens, new_tokens, logits=logits.value, prompt=prompt)
    needs("agent", "torch")
    from roofleet.analysis import analyze as analyze_model

    with console.progress(request.name, quiet=json_output) as show:
        show("tracing on meta", 0.2)
        with suggesting(request):
            result = analyze_model(request, dtype.value, workload, chips)
    if json_output:
        print(json.dumps(result))
    else:
        _print(result, chips)


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


def _print(result: dict[str, Any], chips: list[Hardware]) -> None:
    from rich.markup import escape

    from roofleet_analysis.units import capacity_text, count_text, flops_text, time_text, traffic_text

    out = console.out()
    memory = result["memory"]
    kv = result["kv_bytes_per_token"]
    out.print(
        f"\n[bold]{escape(result['model'])}[/bold], {result['dtype']}, batch {result['batch_size']}, "
        f"{result['prompt_tokens']} prompt tokens, logits {result['logits']}"
    )
    facts = [
        ("parameters", f"{count_text(result['parameters'])} ({result['parameters']:,})"),
        ("weights", capacity_text(result["parameter_bytes"])),
        ("KV cache", f"{capacity_text(kv)} a token" if kv is not None else "none"),
        ("memory needed", f"{capacity_text(memory['total_bytes'])} with a cache of all tokens"),
    ]
    out.print(console.facts(facts))
    rows = [
        [
            phase,
            flops_text(f["matmul_flops"]),
            flops_text(f["other_flops"]),
            traffic_text(f["weight_bytes"]),
            traffic_text(f["activation_bytes"]),
            traffic_text(f["kv_bytes"]),
            str(f["unknown_ops"]),
        ]
        for phase, f in result["phases"].items()
    ]
    headers = ["phase", "matmul", "other", "weights", "activations", "KV cache", "unknown ops"]
    out.print(console.table("One step", headers, rows, right=range(1, 7)))
    for figures in result["phases"].values():
        if figures["unknown_ops"]:
            out.print("no formula for: " + ", ".join(figures["unknown_op_names"]), markup=False)
    bounds = []
    for chip, of_chip in zip(chips, result["hardware"], strict=True):
        fits = memory["total_bytes"] <= chip.memory_bytes
        cells = [chip.name, "yes" if fits else f"no, has {capacity_text(chip.memory_bytes)}"]
        for bound in of_chip["phases"].values():
            cells += [time_text(bound["lower_bound_ns"]), bound["bound"]] if bound else ["no roof", "–"]
        bounds.append(cells)
    headers = ["hardware", "fits"]
    for phase in result["phases"]:
        headers += [f"{phase} at least", "bound"]
    out.print(console.table("Lower bounds", headers, bounds, right=range(2, len(headers), 2)))
