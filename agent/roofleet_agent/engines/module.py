"""Runs a torch.nn.Module made by the user's own `package.module:factory`, one forward a step."""

from __future__ import annotations

import hashlib
import traceback
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from roofleet_agent.engines.base import SEED, TORCH_DTYPES, Step
from roofleet_agent.engines.factory import made_by
from roofleet_agent.errors import AgentError, ModelRefused, WorkloadRefused
from roofleet_agent.measuring.allocator import is_out_of_memory
from roofleet_agent.tracing.fused import fused_layers, told_whole
from roofleet_agent.variants import Note
from roofleet_agent.variants.applying import Applied, apply_variant
from roofleet_agent.variants.notes import folded
from roofleet_agent.workload import ModelRequest, Workload

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


class ModuleEngine:
    """Models of the user's own code.

    The factory takes no arguments and returns the module, or the module and its inputs: a tensor, a tuple
    for positional arguments or a dict for named ones. Without inputs, a module with an embedding gets token
    ids [batch, tokens] and any other gets floats [batch, tokens, features of its first linear layer]; one
    that begins with a convolution is asked for them. It is called more than once, and its module is changed.
    """

    name = "module"

    def runs(self, request: ModelRequest) -> bool:
        """See Engine.runs."""
        return request.origin == "module"

    def load(
        self, request: ModelRequest, device: torch.device, dtype: str, workload: Workload
    ) -> ModuleSession:
        """See Engine.load."""
        if workload.variant.static_cache or workload.attention is not None or workload.prompt is not None:
            raise WorkloadRefused(
                f"{request.name} is a module of your own: static-cache, --attention and --prompt are for "
                "models of transformers"
            )
        module, inputs = made_by(request.name)
        guessed = inputs is None
        if guessed:
            inputs = _guess_inputs(request.name, module, workload)
        module = module.to(device=device, dtype=TORCH_DTYPES[dtype]).eval()
        applied = apply_variant(module, workload.variant, device)
        fused = fused_layers(module, device)
        applied = replace(applied, opaque=applied.opaque | set(fused))
        applied.notes.extend(folded(told_whole(fused)))
        session = ModuleSession(request.name, module, _moved(inputs, device, TORCH_DTYPES[dtype]), applied)
        if guessed:
            session.notes.append(Note("", "its factory gives no inputs", f"made up: {_told(inputs)}"))
            session.guess = (
                f" with inputs that were guessed, {_told(inputs)}: let {request.name} return (module, inputs)"
            )
        else:
            session.notes += _not_used(session, workload)
        return session


class ModuleSession:
    """Implements Session on a module and its inputs."""

    task = "encode"
    config_json: str | None = None
    attention: str | None = None
    experts_per_token: int | None = None
    new_tokens = 0

    def __init__(self, name: str, module: nn.Module, inputs: Any, applied: Applied) -> None:
        self.module = module
        self.parameters, self.held_parameters = applied.parameters, applied.held_parameters
        self.notes, self.opaque = applied.notes, applied.opaque
        self.output: Any = None
        self.guess = ""
        self._name = name
        self._inputs = inputs
        first = next(_tensors(inputs), None)
        self.prompt_tokens = 0 if first is None else tokens_of(module, first)
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
        try:
            with torch.inference_mode():
                self.output = self._called()
        except Exception as error:
            # On `meta` it may be that there is no data; what fails for want of room is told elsewhere.
            on_meta = any(p.is_meta for p in self.module.parameters())
            if on_meta or is_out_of_memory(error) or isinstance(error, AgentError):
                raise
            raise ModelRefused(
                f"the forward of {self._name} raised {type(error).__name__}: {error} "
                f"({_place(error)}){self.guess}"
            ) from error

    def _called(self) -> Any:
        if isinstance(self._inputs, Mapping):
            return self.module(**self._inputs)
        if isinstance(self._inputs, tuple):
            return self.module(*self._inputs)
        return self.module(self._inputs)


def _place(error: BaseException) -> str:
    """File and line of the innermost call that is not torch's."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if "/torch/" not in frame.filename] or frames
    return f"{own[-1].filename}, line {own[-1].lineno}"


def _not_used(session: ModuleSession, workload: Workload) -> Iterator[Note]:
    """What was asked for and is decided by the inputs of the factory; the usual values ask for nothing."""
    usual = Workload()
    for option, asked, default, given in (
        ("--batch-size", workload.batch_size, usual.batch_size, session.batch_size),
        ("--prompt-tokens", workload.prompt_tokens, usual.prompt_tokens, session.prompt_tokens),
    ):
        if asked not in (default, given):
            what = f"its factory gives inputs of batch {session.batch_size}"
            what += f" with {session.prompt_tokens} tokens" if session.prompt_tokens else ", without tokens"
            yield Note("", what, f"{option} {asked} has no effect")


def _guess_inputs(name: str, module: nn.Module, workload: Workload) -> torch.Tensor:
    generator = torch.Generator().manual_seed(SEED)
    size = (workload.batch_size, workload.prompt_tokens)
    for part in module.modules():
        if isinstance(part, nn.Embedding):
            return torch.randint(0, part.num_embeddings, size, generator=generator)
        if isinstance(part, nn.Linear):
            return torch.randn(*size, part.in_features, generator=generator)
        if isinstance(part, _CONVOLUTIONS):
            raise ModelRefused(
                f"{name} begins with a {type(part).__name__}, and nothing tells how large its inputs are: "
                "let the factory return (module, inputs)"
            )
    raise ModelRefused(
        f"{name}, a {type(module).__name__}, has neither an embedding nor a linear layer to tell its inputs "
        "from: let the factory return (module, inputs)"
    )


def _told(inputs: torch.Tensor) -> str:
    return f"{str(inputs.dtype).removeprefix('torch.')} {list(inputs.shape)}"


def tokens_of(module: nn.Module, first: torch.Tensor) -> int:
    """Tokens of each sequence: ids [batch, tokens], or [batch, tokens, features] unless a convolution is the
    first to take them; 0 for all else, such as images and single vectors."""
    if first.dim() == 2 and not first.is_floating_point():
        return int(first.shape[1])
    takes = (part for part in module.modules() if any(True for _ in part.parameters(recurse=False)))
    return int(first.shape[1]) if first.dim() == 3 and not isinstance(next(takes, None), _CONVOLUTIONS) else 0


def _moved(tree: Any, device: torch.device, dtype: torch.dtype) -> Any:
    if isinstance(tree, torch.Tensor):
        return tree.to(device, dtype if tree.is_floating_point() else None)
    if isinstance(tree, (tuple, list)):
        moved = [_moved(item, device, dtype) for item in tree]
        return moved if isinstance(tree, list) else tuple(moved)
    if isinstance(tree, Mapping):
        return {name: _moved(item, device, dtype) for name, item in tree.items()}
    return tree


def _tensors(tree: Any) -> Iterator[torch.Tensor]:
    if isinstance(tree, torch.Tensor):
        yield tree
    elif isinstance(tree, (tuple, list)):
        for item in tree:
            yield from _tensors(item)
    elif isinstance(tree, Mapping):
        for item in tree.values():
            yield from _tensors(item)
