"""`roofleet models` and `roofleet hardware`: the catalogues, with a filter."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer

from roofleet.commands.options import Json
from roofleet.console import out, table

Filter = Annotated[
    str, typer.Argument(metavar="[FILTER]", help="Text that must be in the name.", show_default=False)
]


def models(filter: Filter = "", json_output: Json = False) -> None:
    """List the catalogue of models: real architectures with their published hyper-parameters."""
    from roofleet_analysis.catalogs.models import filter_models
    from roofleet_analysis.units import count_text

    found = filter_models(filter)
    if json_output:
        keys = ("name", "aliases", "task", "parameters", "source", "licence")
        print(json.dumps([{key: getattr(model, key) for key in keys} for model in found], indent=2))
        return
    rows = [[m.name, count_text(m.parameters), m.task, str(m.config["model_type"]), m.hub_id] for m in found]
    out().print(table(None, ["model", "parameters", "task", "architecture", "hub name"], rows, right=[1]))
    if not found:
        raise typer.Exit(1)


def hardware(filter: Filter = "", json_output: Json = False) -> None:
    """List the catalogue of hardware: dense peaks and bandwidths from datasheets."""
    from roofleet_analysis.catalogs import hardware as catalog
    from roofleet_analysis.units import bandwidth_text, capacity_text, rate_text

    wanted = filter.lower()
    found = [
        h for h in catalog.hardware() if any(wanted in text.lower() for text in (h.name, h.title, *h.aliases))
    ]
    if json_output:
        print(json.dumps([asdict(h) for h in found], indent=2))
        return
    rows = []
    for h in found:
        roofs = {dtype: h.compute_roof(dtype) for dtype in ("fp32", "bf16", "fp16", "fp8", "int8")}
        rows.append(
            [
                h.name,
                h.title,
                h.kind,
                capacity_text(h.memory_bytes),
                ("≈ " if h.usable_is_estimate else "") + capacity_text(h.usable_bytes),
                bandwidth_text(h.memory_bytes_per_s),
            ]
            + [
                rate_text(r.flops_per_s, "OP/s" if d == "int8" else "FLOP/s") if r else "–"
                for d, r in roofs.items()
            ]
        )
    headers = ["hardware", "title", "kind", "memory", "usable", "bandwidth"]
    headers += ["fp32", "bf16", "fp16", "fp8", "int8"]
    out().print(table(None, headers, rows, right=range(3, 11)))
    if not found:
        raise typer.Exit(1)
