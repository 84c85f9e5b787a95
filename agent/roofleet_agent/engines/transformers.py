"""Runs Hugging Face models: generating ones with prefill and decode, encoders with one forward."""

from __future__ import annotations

import contextlib
import hashlib
import inspect
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import nn

from roofleet_agent.engines.base import Session, Step
from roofleet_agent.engines.checkpoints import (
    ATTENTION,
    check_positions,
    check_takes_tokens,
    config_text,
    is_two_sided,
    load_config,
    load_model,
    load_tokenizer,
    prompt_ids,
    task_of,
)
from roofleet_agent.engines.encoder_decoder import EncoderDecoderSession
from roofleet_agent.engines.on_meta import meta_kernels
from roofleet_agent.engines.tokens import likeliest, output_rows
from roofleet_agent.errors import WorkloadRefused
from roofleet_agent.variants.applying import Applied, apply_variant
from roofleet_agent.workload import ModelRequest, Workload, middle_cache_tokens


class TransformersEngine:
    """Catalogue, hub and folder models."""

    name = "transformers"

    def runs(self, request: ModelRequest) -> bool:
        """See Engine.runs."""
        return request.origin in ("catalog", "hub", "folder")

    def load(self, request: ModelRequest, device: torch.device, dtype: str, workload: Workload) -> Session:
        """See Engine.load."""
        config = load_config(request)
        two_sided = is_two_sided(config)
        task = "generate" if two_sided else request.task or task_of(config)
        check_takes_tokens(request, config, task)
        prompt = prompt_ids(request, config, workload, device)
        # the last token generated is never an input
        fed = max(workload.new_tokens - 1, 0) if task == "generate" else 0
        needed = max(prompt.shape[1], fed + 1) if two_sided else prompt.shape[1] + fed
        check_positions(config, request.name, needed)
        if workload.variant.static_cache and (two_sided or task != "generate"):
            raise WorkloadRefused(
                f"{request.name} has no growing cache of its own: leave static-cache out of its variant"
            )
        model, notes = load_model(request, config, task, device, dtype, workload.attention)
        applied = apply_variant(model, workload.variant, device)
        applied.notes[:0] = notes
        if two_sided:
            return EncoderDecoderSession(model, prompt.to(device), workload, applied)
        session = TransformersSession(model, task, prompt.to(device), workload, applied)
        if workload.keep_outputs and (workload.prompt is not None or request.weights == "pretrained"):
            with contextlib.suppress(WorkloadRefused):  # token ids are kept all the same
                session.text_of = load_tokenizer(request).decode
        return session


class TransformersSession:
    """Implements Session on a Hugging Face model."""

    def __init__(
        self, model: Any, task: str, prompt: torch.Tensor, workload: Workload, applied: Applied
    ) -> None:
        self.module: nn.Module = model
        self.task = task
        self.parameters, self.held_parameters = applied.parameters, applied.held_parameters
        self.notes, self.opaque = applied.notes, applied.opaque
        self.output: torch.Tensor | None = None
        self.text_of: Callable[[list[int]], str] | None = None
        self._tokens: list[torch.Tensor] = []
        self.config_json: str | None = config_text(model.config)
        self.attention: str | None = model.config._attn_implementation
        if prompt.is_meta and workload.attention is not None:  # where something else may stand for it
            self.attention = ATTENTION.get(workload.attention, workload.attention)
        self.experts_per_token: int | None = getattr(
            model.config.get_text_config(), "num_experts_per_tok", None
        )
        self.prompt_tokens = int(prompt.shape[1])
        self.new_tokens = workload.new_tokens if task == "generate" else 0
        self.prompt_sha256 = (
            None if prompt.is_meta else hashlib.sha256(prompt.cpu().numpy().tobytes()).hexdigest()
        )
        self._prompt = prompt
        self._kept_logits = 1 if workload.logits == "last" else 0
        self._static_tokens = self.prompt_tokens + self.new_tokens if workload.variant.static_cache else None
        self._cache: Any = None
        self._cached_tokens = 0
        self._kernels = meta_kernels() if prompt.is_meta else None
        takes = inspect.signature(model.forward).parameters
        self._cache_argument = "cache_params" if "cache_params" in takes else "past_key_values"
        self._next: torch.Tensor = prompt[:, -1:].clone()

    def iteration(self) -> Iterator[Step]:
        """See Session.iteration."""
        if self.task == "encode":
            yield Step("forward", 0, self.prompt_tokens, 0, self._forward)
            return
        self._cache = self._new_cache()
        yield Step("prefill", 0, self.prompt_tokens, 0, self._prefill)
        for index in range(self.new_tokens - 1):
            self._advance()
            yield Step("decode", index, 1, self.prompt_tokens + index, self._decode)

    def single(self, phase: str) -> Step:
        """See Session.single."""
        if phase == "forward":
            return Step(phase, 0, self.prompt_tokens, 0, self._forward)
        if phase == "prefill":
            self._cache = self._new_cache()
            return Step(phase, 0, self.prompt_tokens, 0, self._prefill)
        cached = middle_cache_tokens(self.prompt_tokens, self.new_tokens)
        if self._cache is None or self._cached_tokens != cached:
            self._cache = self._new_cache()
            # the state of a scan is as large after one token as after many, and a scan takes its time
            scans = bool(self._cache.layers) and all(self._cache.is_linear)
            self._run(self._prompt[:, :1].expand(-1, 1 if scans else cached), kept=1)
            self._cached_tokens = cached
        return Step(phase, cached - self.prompt_tokens, 1, cached, self._decode)

    def cache(self) -> Iterable[torch.Tensor]:
        """See Session.cache."""
        for layer in getattr(self._cache, "layers", ()):
            yield from held_by(layer)

    def cache_elements(self, tokens: int) -> int:
        """See Session.cache_elements."""
        elements = 0
        for layer in getattr(self._cache, "layers", ()):
            window = getattr(layer, "sliding_window", None)
            # a window of w positions keeps the w - 1 before the one that is computed
            kept = tokens if window is None else min(tokens, window - 1)
            for name in ("keys", "values"):
                tensor = getattr(layer, name, None)
                if isinstance(tensor, torch.Tensor) and tensor.numel():
                    batch, _, held, _ = tensor.shape
                    if self._static_tokens is not None:  # there from the start, and no longer than that
                        kept = min(tokens, held)
                    elements += tensor.numel() // (batch * held) * kept
            elements += sum(state.numel() // state.shape[0] for state in states_of(layer))
        return elements

    def close(self) -> None:
        """See Session.close."""
        self._cache = self._kernels = self.output = None
        self.module = nn.Module()

    def _new_cache(self) -> Any:
        from transformers import DynamicCache, StaticCache

        self._cached_tokens = 0
        self._tokens.clear()
        if self._static_tokens is not None:
            return StaticCache(config=self.module.config, max_cache_len=self._static_tokens)
        return DynamicCache(config=self.module.config)

    def generated(self) -> list[dict[str, Any]]:
        """See Session.generated."""
        if self.task != "generate":
            return []
        return output_rows([*self._tokens, likeliest(self.output)], self.text_of)

    def _forward(self) -> None:
        self.output = None
        with torch.inference_mode():
            self.output = self.module(input_ids=self._prompt)[0]

    def _prefill(self) -> None:
        self._run(self._prompt, self._kept_logits)

    def _decode(self) -> None:
        self._run(self._next, kept=1)

    def _run(self, ids: torch.Tensor, kept: int) -> None:
        with torch.inference_mode():
            out = self.module(
                input_ids=ids, use_cache=True, logits_to_keep=kept, **{self._cache_argument: self._cache}
            )
        self._cached_tokens += int(ids.shape[1])
        self.output = out.logits

    def _advance(self) -> None:
        # the likeliest token is the next input; choosing it is no call of the model and not timed
        self._next = likeliest(self.output)
        self._tokens.append(self._next)


def held_by(layer: Any) -> Iterator[torch.Tensor]:
    """The tensors that one layer of a transformers cache holds: keys and values, or the states of a scan."""
    for name in ("keys", "values"):
        tensor = getattr(layer, name, None)
        if isinstance(tensor, torch.Tensor):
            yield tensor
    yield from states_of(layer)


def states_of(layer: Any) -> Iterator[torch.Tensor]:
    """The states of a layer that keeps as much for a long sequence as for a short one, such as Mamba's."""
    for name in ("conv_states", "recurrent_states"):
        for tensor in getattr(layer, name, {}).values():
            if isinstance(tensor, torch.Tensor):
                yield tensor
