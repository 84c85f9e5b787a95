"""Runs a torch.nn.Module made by the user's own `package.module:factory`, one forward a step."""

from __future__ import annotations

import hashlib
import importlib
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import nn

from roofleet_agent.engines.base import TORCH_DTYPES, Step
from roofleet_agent.errors import ModelNotFound, ModelRefused, WorkloadRefused
from roofleet_agent.variants.applying import Applied, apply_variant
from roofleet_agent.workload import ModelRequest, Workload

SEED = 20_261


class ModuleEngine:
    """Models of the user's own code.

    The factory takes no arguments and returns the module, or the module and its inputs: a tensor, a tuple
    for positional arguments or a dict for named ones. Without inputs, a module with an embedding gets token
    ids [batch, tokens] and any other gets floats [batch, tokens, features of its first linear layer].
    """

    name = "module"

    def runs(self, request: ModelRequest) -> bool:
        """See Engine.runs."""
        return request.origin == "module"

    def load(
        self, request: ModelRequest, device: torch.device, dtype: str, workload: Workload
    ) -> ModuleSession:
        """See Engine.load."""
        torch.manual_seed(SEED)
        made = _call(request.name)
        module, inputs = made if isinstance(made, tuple) and len(made) == 2 else (made, None)
        if not isinstance(module, nn.Module):
            raise ModelRefused(
                f"{request.name} returned {type(module).__name__}; it must return a torch.nn.Module, "
                "or a module and its inputs"
            )
        if inputs is None:
            inputs = _guess_inputs(module, workload)
        if workload.variant.static_cache or workload.attention is not None:
            raise WorkloadRefused(
                f"{request.name} is a module of your own: static-cache and --attention are for models of "
                "transformers"
            )
        module = module.to(device=device, dtype=TORCH_DTYPES[dtype]).eval()
        applied = apply_variant(module, workload.variant, device)
        return ModuleSession(module, _moved(inputs, device, TORCH_DTYPES[dtype]), applied)


class ModuleSession:
    """Implements Session on a module and its inputs."""

    task = "encode"
    config_json: str | None = None
    attention: str | None = None
    experts_per_token: int | None = None
    new_tokens = 0

    def __init__(self, module: nn.Module, inputs: Any, applied: Applied) -> None:
        self.module = module
        self.parameters, self.held_parameters = applied.parameters, applied.held_parameters
        self.notes, self.opaque = applied.notes, applied.opaque
        self.output: Any = None
        self._inputs = inputs
        first = next(_tensors(inputs), None)
        self.prompt_tokens = 0 if first is None else _tokens(module, first)
        self.batch_size = int(first.shape[0]) if first is not None and first.dim() > 0 else 1
        self.prompt_sha256: str | None = None
        if first is not None and not first.is_meta:
            data = first.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()
            self.prompt_sha256 = hashlib.sha256(data).hexdigest()

    def iteration(self) -> Iterator[Step]:
        """See Session.iteration."""
        yield self.single("forward")

    def single(self, phase: str) -> Step:
        """See Session.single."""
        return Step(phase, 0, self.prompt_tokens, 0, self._forward)

    def cache(self) -> Iterable[torch.Tensor]:
        """See Session.cache: none."""
        return ()

    def cache_elements(self, tokens: int) -> int:
        """See Session.cache_elements: none."""
        return 0

    def close(self) -> None:
        """See Session.close."""
        self.output = None
        self.module = nn.Module()

    def generated(self) -> list[dict[str, Any]]:
        """See Session.generated: a forward generates nothing."""
        return []

    def _forward(self) -> None:
        self.output = None  # what the last step gave out does not live on beside what this one makes
        with torch.inference_mode():
            if isinstance(self._inputs, Mapping):
                self.output = self.module(**self._inputs)
            elif isinstance(self._inputs, tuple):
                self.output = self.module(*self._inputs)
            else:
                self.output = self.module(self._inputs)


def _call(name: str) -> Any:
    place, _, factory = name.partition(":")
    if "" not in sys.path:
        sys.path.insert(0, "")  # a console script does not look in the current folder by itself
    try:
        function = getattr(importlib.import_module(place), factory)
    except (ImportError, AttributeError) as error:
        raise ModelNotFound(
            f"{name!r} could not be found: {error}. Give package.module:factory, importable from here"
        ) from error
    try:
        return function()
    except Exception as error:
        raise ModelRefused(f"{name} raised {type(error).__name__}: {error}") from error


def _guess_inputs(module: nn.Module, workload: Workload) -> torch.Tensor:
    generator = torch.Generator().manual_seed(SEED)
    size = (workload.batch_size, workload.prompt_tokens)
    for part in module.modules():
        if isinstance(part, nn.Embedding):
            return torch.randint(0, part.num_embeddings, size, generator=generator)
        if isinstance(part, nn.Linear):
            return torch.randn(*size, part.in_features, generator=generator)
    raise ModelRefused(
        f"{type(module).__name__} has neither an embedding nor a linear layer to tell its inputs from: "
        "let the factory return (module, inputs)"
    )


def _tokens(module: nn.Module, first: torch.Tensor) -> int:
    """Tokens of each sequence: ids [batch, tokens], or [batch, tokens, features] unless a convolution is the
    first to take them; 0 for all else, such as images and single vectors."""
    if first.dim() == 2 and not first.is_floating_point():
        return int(first.shape[1])
    takes = (part for part in module.modules() if any(True for _ in part.parameters(recurse=False)))
    return int(first.shape[1]) if first.dim() == 3 and not _is_convolution(next(takes, None)) else 0


def _is_convolution(part: nn.Module | None) -> bool:
    return isinstance(part, (nn.Conv1d, nn.Conv2d, nn.Conv3d))


def _moved(tree: Any, device: torch.device, dtype: torch.dtype) -> Any:
    if isinstance(tree, torch.Tensor):
        return tree.to(device, dtype if tree.is_floating_point() else None)
    if isinstance(tree, tuple):
        return tuple(_moved(item, device, dtype) for item in tree)
    if isinstance(tree, Mapping):
        return {name: _moved(item, device, dtype) for name, item in tree.items()}
    return tree


def _tensors(tree: Any) -> Iterator[torch.Tensor]:
    if isinstance(tree, torch.Tensor):
        yield tree
    elif isinstance(tree, tuple):
        for item in tree:
            yield from _tensors(item)
    elif isinstance(tree, Mapping):
        for item in tree.values():
            yield from _tensors(item)
