"""From what the caller names to the model that is run: catalogue, hub, folder or module."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

from roofleet.errors import UserError
from roofleet_agent.workload import ModelRequest
from roofleet_analysis.catalogs.models import ModelEntry, find_model, nearest_models

Weights = Literal["random", "pretrained"]


def resolve(name: str, weights: Weights | None) -> ModelRequest:
    """The request for a model.

    A catalogue model has random weights unless pretrained ones are asked for; a folder and a hub name bring
    their own unless random ones are. UserError with the nearest names if nothing fits.
    """
    if re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", name):
        return ModelRequest(name, "module", weights or "pretrained")
    path = Path(name).expanduser()
    if path.is_dir():
        return ModelRequest(name, "folder", weights or "pretrained")
    entry = find_model(name)
    if entry is not None:
        return _catalogued(entry, weights or "random")
    if name.count("/") == 1 and not name.startswith((".", "/", "~")):
        return ModelRequest(name, "hub", weights or "pretrained", source=name)
    nearest = ", ".join(nearest_models(name))
    hint = f"Did you mean {nearest}? " if nearest else ""
    raise UserError(
        f"there is no model {name!r}. {hint}`roofleet models` lists the catalogue; a hub name looks like "
        "owner/name, a folder must exist, a module is written package.module:factory"
    )


def _catalogued(entry: ModelEntry, weights: Weights) -> ModelRequest:
    source = entry.source if weights == "random" else entry.hub_id
    return ModelRequest(entry.name, "catalog", weights, _task(entry), entry.config_copy(), source)


def _task(entry: ModelEntry) -> Literal["generate", "encode"]:
    return "generate" if entry.task == "generate" else "encode"
