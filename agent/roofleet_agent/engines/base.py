"""What an engine gives the measuring code: a loaded model and the steps of one iteration."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import nn

from roofleet_agent.variants import Note
from roofleet_agent.workload import ModelRequest, Workload

SEED = 20_261
"""Weights and inputs that are drawn at random are the same in every run."""
DTYPE_BYTES = {"fp32": 4, "bf16": 2, "fp16": 2}
TORCH_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Step:
    """One call of the model: `call` runs it and keeps what the next step of the iteration needs."""

    phase: str
    step_index: int
    tokens: int
    cache_tokens: int
    call: Callable[[], Any]


class Session(Protocol):
    """A loaded model with its workload."""

    module: nn.Module
    task: str
    config_json: str | None
    attention: str | None
    experts_per_token: int | None
    prompt_tokens: int
    new_tokens: int
    prompt_sha256: str | None
    parameters: int
    """Parameters of the model as published, tied ones once, whatever a variant does to their storage."""
    held_parameters: int
    """Parameters of the model as it runs: none pruned away, packed ones as many as they stand for."""
    notes: list[Note]
    """Layers the variant could not be applied to as asked."""
    opaque: frozenset[str]
    """Paths of layers inside which nothing can be timed: compiled ones."""
    output: Any
    """What the last step gave out: a tensor, or something with tensors in it."""

    def generated(self) -> list[dict[str, Any]]:
        """Rows of `outputs` without the run: what the last complete iteration generated."""
        ...

    def iteration(self) -> Iterator[Step]:
        """The steps of a fresh prefill and its decode steps (or of one forward), in order.

        A step must be called before the next is asked for.
        """
        ...

    def single(self, phase: str) -> Step:
        """A step of that phase, prepared to be called by itself; for `decode` the middle of the iteration."""
        ...

    def cache(self) -> Iterable[torch.Tensor]:
        """The tensors of the key-value cache as it is now."""
        ...

    def cache_elements(self, tokens: int) -> int:
        """Numbers the cache holds for one sequence of so many tokens, sliding windows considered.

        It is worked out from the cache as it is, so a step must have filled it; 0 without one.
        """
        ...

    def close(self) -> None:
        """Lets go of the model."""
        ...


class Engine(Protocol):
    """Loads models."""

    name: str

    def runs(self, request: ModelRequest) -> bool:
        """Whether this engine is the one for such a model."""
        ...

    def load(self, request: ModelRequest, device: torch.device, dtype: str, workload: Workload) -> Session:
        """The model on the device, ready to run; ModelNotFound or ModelRefused if that cannot be."""
        ...
