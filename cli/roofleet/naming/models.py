"""From what the caller names to the model that is run: catalogue, hub, folder or module."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from roofleet.errors import UserError
from roofleet_agent.errors import ModelNotFound
from roofleet_agent.workload import ModelRequest
from roofleet_analysis.catalogs.models import ModelEntry, find_model, nearest_models

Weights = Literal["random", "pretrained", "own"]


def resolve(name: str, weights: Weights | None) -> ModelRequest:
    """The request for a model.

    A catalogue name comes before a folder of the same name (write ./name for that). It has random weights
    unless pretrained ones are asked for; a folder and a hub name bring their own unless random ones are.
    UserError with the nearest names if nothing fits.
    """
    if re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", name):
        if weights not in (None, "own"):
            raise UserError(f"the weights of {name} are those its factory gives it: leave out --weights")
        return ModelRequest(name, "module", "own")
    if not name.strip():
        raise UserError("MODEL is empty; `roofleet models` lists the catalogue")
    entry = find_model(name)
    if entry is not None:
        return _catalogued(entry, weights or "random")
    if Path(name).expanduser().is_dir():
        return ModelRequest(name, "folder", weights or "pretrained")
    if name.count("/") == 1 and not name.startswith((".", "/", "~")):
        return ModelRequest(name, "hub", weights or "pretrained", source=name)
    nearest = ", ".join(nearest_models(name))
    hint = f"Did you mean {nearest}? " if nearest else ""
    raise UserError(
        f"there is no model {name!r}. {hint}`roofleet models` lists the catalogue; a hub name looks like "
        "owner/name, a folder must exist, a module is written package.module:factory"
    )


@contextmanager
def suggesting(request: ModelRequest) -> Iterator[None]:
    """Adds the nearest catalogue names to the error of a hub name that could not be loaded."""
    try:
        yield
    except ModelNotFound as error:
        nearest = nearest_models(request.name) if request.origin == "hub" else []
        if not nearest:
            raise
        raise UserError(f"{error}. The nearest names of the catalogue: {', '.join(nearest)}") from error


def _catalogued(entry: ModelEntry, weights: Weights) -> ModelRequest:
    return ModelRequest(
        entry.name, "catalog", weights, _task(entry), entry.config_copy(), entry.source, entry.hub_id
    )


def _task(entry: ModelEntry) -> Literal["generate", "encode"]:
    return "generate" if entry.task == "generate" else "encode"
