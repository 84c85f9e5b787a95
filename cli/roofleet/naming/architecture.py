"""`--set`: a model whose configuration has other numbers than the published one, with random weights."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from roofleet.errors import UserError
from roofleet_agent.engines.checkpoints import load_config
from roofleet_agent.workload import ModelRequest

_USUAL = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "vocab_size")


def check_settings(request: ModelRequest, names: Iterable[str]) -> None:
    """UserError for a name that is no number of the model's configuration."""
    config = load_config(request)
    for name in names:
        value = getattr(config, name, None)
        if not isinstance(value, int) or isinstance(value, bool):
            known = [usual for usual in _USUAL if isinstance(getattr(config, usual, None), int)]
            raise UserError(
                f"--set {name}: the configuration of {request.name} has no number of that name. "
                f"It has {', '.join(known)} and others (see its config.json)"
            )


def with_settings(request: ModelRequest, settings: Mapping[str, int], name: str) -> ModelRequest:
    """The request for the same model with some numbers changed, under a name of its own.

    Everything else stays as published, so that a head count must still divide the hidden size. Lists with an
    entry for each layer are cut, or go on as they began.
    """
    if not settings:
        return request
    config = load_config(request)
    values: dict[str, Any] = dict(request.config) if request.config is not None else config.to_dict()
    for setting, value in settings.items():
        values[getattr(config, "attribute_map", {}).get(setting, setting)] = value
    depth = getattr(config, "attribute_map", {}).get("num_hidden_layers", "num_hidden_layers")
    before = getattr(config, "num_hidden_layers", None)
    after = settings.get("num_hidden_layers", settings.get(depth))
    if before and after:
        for key, value in values.items():
            if isinstance(value, list) and len(value) == before:
                values[key] = [value[layer % before] for layer in range(after)]
    return replace(request, name=name, weights="random", config=values)
