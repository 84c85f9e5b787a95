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
    if (factory := factory_name(name)) is not None:
        if weights not in (None, "own"):
            raise UserError(f"the weights of {name} are those its factory gives it: leave out --weights")
        return ModelRequest(factory, "module", "own")
    if not name.strip():
        raise UserError("MODEL is empty; `roofleet models` lists the catalogue")
    entry = find_model(name)
    if entry is not None:
        return _catalogued(entry, weights or "random")
    folder = Path(name).expanduser()
    if folder.is_dir():
        folder = folder.resolve()
        return ModelRequest(_folder_name(folder), "folder", weights or "pretrained", checkpoint=str(folder))
    if name.count("/") == 1 and not name.startswith((".", "/", "~")):
        return ModelRequest(name, "hub", weights or "pretrained", source=name)
    nearest = ", ".join(nearest_models(name))
    hint = f"Did you mean {nearest}? " if nearest else ""
    raise UserError(
        f"there is no model {name!r}. {hint}`roofleet models` lists the catalogue; a hub name looks like "
        "owner/name, a folder must exist, a module is written package.module:factory or file.py:factory"
    )


def factory_name(name: str) -> str | None:
    """The factory that makes a module of the user's own, None if the name is not one of a factory.

    A file below the current folder is named like the package it is imported as, so that mypkg/nets.py:net and
    mypkg.nets:net are one model. UserError for a file without its function, and for one that is not there.
    """
    place, separator, function = name.rpartition(":")
    if not separator:
        if name.endswith(".py") and Path(name).expanduser().is_file():
            raise UserError(f"{name} is a file: say which of its functions makes the model, {name}:factory")
        return None
    if re.fullmatch(r"[A-Za-z_][\w.]*", place) and function.isidentifier() and not place.endswith(".py"):
        return name
    file = Path(place).expanduser()
    if file.suffix == ".py" and file.is_file() and function.isidentifier():
        return f"{_module_of(file.resolve())}:{function}"
    if Path(name).expanduser().is_dir():
        return None
    raise UserError(
        f"{name!r} names no factory: write package.module:factory, or path/to/file.py:factory of a file that "
        "exists"
    )


def _module_of(file: Path) -> str:
    """How a file is imported from the current folder; the file itself if it lies elsewhere."""
    here = Path.cwd()
    parts = file.relative_to(here).with_suffix("").parts if file.is_relative_to(here) else ()
    return ".".join(parts) if parts and all(part.isidentifier() for part in parts) else str(file)


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


def _folder_name(folder: Path) -> str:
    """What a model in a folder is called, however its path was typed; the hub's name for one in its cache."""
    if folder.parent.name == "snapshots" and folder.parents[1].name.startswith("models--"):
        return folder.parents[1].name.removeprefix("models--").replace("--", "/")
    return folder.name or str(folder)


def _catalogued(entry: ModelEntry, weights: Weights) -> ModelRequest:
    return ModelRequest(
        entry.name, "catalog", weights, _task(entry), entry.config_copy(), entry.source, entry.hub_id
    )


def _task(entry: ModelEntry) -> Literal["generate", "encode"]:
    return "generate" if entry.task == "generate" else "encode"
