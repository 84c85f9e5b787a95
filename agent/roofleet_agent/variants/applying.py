"""Changes a loaded model into a variant of it: pruned, then quantised, then compiled."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from roofleet_agent.errors import WorkloadRefused
from roofleet_agent.storage import held_parameters
from roofleet_agent.variants.names import Variant
from roofleet_agent.variants.notes import Note, folded


@dataclass(frozen=True)
class Applied:
    """What became of a model: its parameters as published and as it holds them now (tied ones once), layers
    that are not as asked, and paths of layers inside which nothing can be followed any more."""

    parameters: int
    held_parameters: int
    notes: list[Note]
    opaque: frozenset[str]


def apply_variant(model: nn.Module, variant: Variant, device: torch.device) -> Applied:
    """Changes the model in place.

    On `meta` shapes and storage change as they do on a device; compiling changes neither and is left out.
    """
    parameters = sum(p.numel() for p in model.parameters())
    notes: list[Note] = []
    if variant.pruned is not None:
        from roofleet_agent.variants.pruning import prune_weights

        notes += prune_weights(model, variant.pruned)
    if variant.pruned_structured is not None:
        from roofleet_agent.variants.pruning import prune_features

        notes += prune_features(model, variant.pruned_structured)
    if variant.quantized is not None:
        from roofleet_agent.variants.quantizing import quantize

        notes += quantize(model, variant.quantized, device)
    opaque = frozenset(compiled_paths(model, variant)) if device.type != "meta" else frozenset()
    for path in opaque:
        part: Any = model.get_submodule(path)
        # the forward and not the call: hooks stay outside of what is compiled
        part.forward = torch.compile(part.forward)
    if opaque:
        notes.append(
            Note(
                "",
                "what runs inside compiled code cannot be followed",
                "memory by layer and times of ops are those of the uncompiled model",
            )
        )
    return Applied(parameters, held_parameters(model), folded(notes), opaque)


@contextmanager
def compiling(variant: Variant) -> Iterator[None]:
    """Lets every block of a variant be compiled, however many share their code, or fails where one is not.

    torch gives up after eight compilations of the same code and goes on without a word, uncompiled: all
    blocks of a model are the same code.
    """
    if variant.compiled is None:
        yield
        return
    from torch._dynamo import config

    torch.compiler.reset()
    many: dict[str, Any] = {"recompile_limit": 4096, "accumulated_recompile_limit": 65_536}
    with config.patch(many | {"fail_on_recompile_limit_hit": True}):
        yield
    torch.compiler.reset()


def compiled_paths(model: nn.Module, variant: Variant) -> list[str]:
    """Paths of the layers whose forward is compiled: inside them there is nothing left to time."""
    if variant.compiled is None:
        return []
    if variant.compiled == "compile":
        return [""]
    blocks = list(repeated_blocks(model))
    if not blocks:
        raise WorkloadRefused(
            f"{type(model).__name__} has no repeated blocks to compile one by one: use the variant compile"
        )
    return blocks


def repeated_blocks(model: nn.Module) -> Iterator[str]:
    """Paths of the members of the outermost lists of layers."""
    for path, module in model.named_modules():
        if isinstance(module, nn.ModuleList) and not any(part.isdigit() for part in path.split(".")):
            for name, block in module.named_children():
                if any(block.children()):
                    yield f"{path}.{name}"
