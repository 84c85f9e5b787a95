"""What an engine gives the measuring code: a loaded model and the steps of one iteration."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
from torch import nn

from roofleet_agent.errors import WorkloadRefused

TORCH_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class ModelRequest:
    """Which model to run and where its configuration and weights come from.

    `origin` is `catalog` (configuration given in `config`), `hub`, `folder` or `module`
    (`package.module:factory`). `task` is `generate` or `encode`; None lets the configuration tell.
    """

    name: str
    origin: Literal["catalog", "hub", "folder", "module"]
    weights: Literal["random", "pretrained"]
    task: Literal["generate", "encode"] | None = None
    config: Mapping[str, Any] | None = None
    source: str | None = None


@dataclass(frozen=True)
class Workload:
    """What a run does: sequences in the batch, tokens of each prompt, tokens generated for each sequence.

    With `prompt` the prompt's own tokens are used instead of `prompt_tokens` random ones.
    """

    batch_size: int = 1
    prompt_tokens: int = 128
    new_tokens: int = 32
    iterations: int = 5
    warmup: int = 2
    logits: Literal["last", "all"] = "last"
    prompt: str | None = None
    attention: str = "sdpa"

    def __post_init__(self) -> None:
        for name, least in (("batch_size", 1), ("prompt_tokens", 1), ("new_tokens", 0), ("iterations", 1),
                            ("warmup", 0)):  # fmt: skip
            value = getattr(self, name)
            if value < least:
                raise WorkloadRefused(f"{name.replace('_', '-')} is {value}; it must be at least {least}")


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
    prompt_tokens: int
    new_tokens: int
    prompt_sha256: str | None

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


def phases_of(task: str, new_tokens: int) -> list[str]:
    """The phases a workload has: the first token comes from prefill, the others from decode."""
    if task != "generate":
        return ["forward"]
    return ["prefill", "decode"] if new_tokens > 1 else ["prefill"]


def middle_cache_tokens(prompt_tokens: int, new_tokens: int) -> int:
    """Cached tokens before the middle one of the decode steps. Costs grow in a straight line with the
    cache, so the middle step's are the mean of all."""
    return prompt_tokens + max(new_tokens - 2, 0) // 2
