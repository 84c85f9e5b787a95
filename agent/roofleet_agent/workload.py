"""What is to be run: a model and a workload, as plain values that need no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from roofleet_agent.errors import WorkloadRefused
from roofleet_agent.variants.names import Variant


@dataclass(frozen=True)
class ModelRequest:
    """Which model to run and where its configuration and weights come from.

    `origin` is `catalog` (configuration given in `config`), `hub`, `folder` or `module`
    (`package.module:factory`). `task` is `generate` or `encode`; None lets the configuration tell. `source`
    says where the configuration is published, `checkpoint` is the hub's name for weights and tokenizer, or
    the folder they lie in, and `revision` the commit of it on the hub, the newest without one. The weights of
    a module are its `own`: only who wrote its factory knows where they are from.
    """

    name: str
    origin: Literal["catalog", "hub", "folder", "module"]
    weights: Literal["random", "pretrained", "own"]
    task: Literal["generate", "encode"] | None = None
    config: Mapping[str, Any] | None = None
    source: str | None = None
    checkpoint: str | None = None
    revision: str | None = None


BUDGET_S = 15.0
"""Seconds that iterations go on at most where nobody says how many there are."""
MOST = 2**31 - 1
"""More of anything a workload counts overflows what torch computes with."""


@dataclass(frozen=True)
class Workload:
    """What a run does: sequences in the batch, tokens of each prompt, tokens generated for each sequence.

    Without `iterations` there are as many as narrow intervals need, for `budget_s` seconds at most.

    `attention` names an implementation; None leaves it to the model. `variant` says how the model is changed
    before it runs. `keep_outputs` keeps what is generated, and `quality_text` is what the quality of the
    variant is measured on. With `prompt` the prompt's own tokens
    are used instead of `prompt_tokens` random ones.
    """

    batch_size: int = 1
    prompt_tokens: int = 128
    new_tokens: int = 32
    iterations: int | None = None
    warmup: int = 2
    logits: Literal["last", "all"] = "last"
    prompt: str | None = None
    attention: str | None = None
    variant: Variant = field(default_factory=Variant)
    keep_outputs: bool = False
    quality_text: str | None = None
    budget_s: float = BUDGET_S

    def __post_init__(self) -> None:
        if not self.budget_s > 0:
            raise WorkloadRefused(f"budget is {self.budget_s:g} s; it must be more than 0")
        for name, least in (("batch_size", 1), ("prompt_tokens", 1), ("new_tokens", 0), ("iterations", 1),
                            ("warmup", 0)):  # fmt: skip
            value = getattr(self, name)
            if value is None:  # iterations: as many as it takes
                continue
            if value < least:
                raise WorkloadRefused(f"{name.replace('_', '-')} is {value}; it must be at least {least}")
            if value > MOST:
                raise WorkloadRefused(f"{name.replace('_', '-')} is {value}; the most is {MOST:,}")
        if self.quality_text is not None and not self.quality_text.strip():
            raise WorkloadRefused("the text to measure quality on is empty")
        if self.prompt is not None and not self.prompt.strip():
            raise WorkloadRefused("the prompt is empty: give some text, or prompt-tokens for random tokens")


def phases_of(task: str, new_tokens: int) -> list[str]:
    """The phases a workload has: the first token comes from prefill, the others from decode."""
    if task != "generate":
        return ["forward"]
    return ["prefill", "decode"] if new_tokens > 1 else ["prefill"]


def middle_cache_tokens(prompt_tokens: int, new_tokens: int) -> int:
    """Cached tokens before the middle one of the decode steps. Costs grow in a straight line with the
    cache, so the middle step's are the mean of all."""
    return prompt_tokens + max(new_tokens - 2, 0) // 2
