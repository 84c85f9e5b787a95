"""Runs models with an encoder and a decoder: the prompt goes in once, and the decoder goes on from it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import nn

from roofleet_agent.engines.base import Step
from roofleet_agent.engines.checkpoints import config_text
from roofleet_agent.engines.tokens import likeliest, output_rows
from roofleet_agent.variants.applying import Applied
from roofleet_agent.workload import Workload, middle_cache_tokens


class EncoderDecoderSession:
    """Implements Session on a Hugging Face model such as T5.

    `prefill` is the encoder over the prompt and the decoder's first step, which gives the first token.
    `decode` is a further step of the decoder: its own cache grows by a token, that of the attention to the
    encoder's output stays as the first step filled it. The token that starts a decoder is none of the
    sequence: a step's `cache_tokens` are those of the prompt and those generated.
    """

    task = "generate"
    experts_per_token: int | None = None

    def __init__(self, model: Any, prompt: torch.Tensor, workload: Workload, applied: Applied) -> None:
        self.module: nn.Module = model
        self.parameters, self.held_parameters = applied.parameters, applied.held_parameters
        self.notes, self.opaque = applied.notes, applied.opaque
        self.config_json: str | None = config_text(model.config)
        self.attention: str | None = model.config._attn_implementation
        self.prompt_tokens = int(prompt.shape[1])
        self.new_tokens = workload.new_tokens
        self.prompt_sha256 = (
            None if prompt.is_meta else hashlib.sha256(prompt.cpu().numpy().tobytes()).hexdigest()
        )
        self._prompt = prompt
        start = getattr(model.config, "decoder_start_token_id", None)
        self._start = torch.full_like(prompt[:, :1], 0 if start is None else start)
        self._next = self._start
        self._cache: Any = None
        self._encoded: Any = None
        self.output: torch.Tensor | None = None
        self._tokens: list[torch.Tensor] = []
        self._generated = -1  # tokens in the decoder's cache beside the start; -1 before the first step

    def iteration(self) -> Iterator[Step]:
        """See Session.iteration."""
        self._start_afresh()
        yield Step("prefill", 0, self.prompt_tokens, 0, self._prefill)
        for index in range(self.new_tokens - 1):
            self._advance()
            yield Step("decode", index, 1, self.prompt_tokens + index, self._decode)

    def single(self, phase: str) -> Step:
        """See Session.single."""
        if phase == "prefill":
            self._start_afresh()
            return Step(phase, 0, self.prompt_tokens, 0, self._prefill)
        index = middle_cache_tokens(self.prompt_tokens, self.new_tokens) - self.prompt_tokens
        if self._generated != index:
            self._start_afresh()
            self._run(self._start.expand(-1, index + 1))
        return Step(phase, index, 1, self.prompt_tokens + index, self._decode)

    def cache(self) -> Iterable[torch.Tensor]:
        """See Session.cache: of both attentions of the decoder."""
        for keys, values in self._layers("self_attention_cache") + self._layers("cross_attention_cache"):
            yield keys
            yield values

    def cache_elements(self, tokens: int) -> int:
        """See Session.cache_elements: those of the prompt are in the attention to the encoder's output."""

        def per_token(name: str) -> int:
            return sum(
                (keys.numel() // keys.shape[2] + values.numel() // values.shape[2]) // keys.shape[0]
                for keys, values in self._layers(name)
            )

        own = max(tokens - self.prompt_tokens + 1, 0)  # and the start
        crossing = min(tokens, self.prompt_tokens)
        return per_token("self_attention_cache") * own + per_token("cross_attention_cache") * crossing

    def close(self) -> None:
        """See Session.close."""
        self._cache = self._encoded = self.output = None
        self.module = nn.Module()

    def _layers(self, name: str) -> list[tuple[torch.Tensor, torch.Tensor]]:
        layers = getattr(getattr(self._cache, name, None), "layers", ())
        held = [(getattr(layer, "keys", None), getattr(layer, "values", None)) for layer in layers]
        return [(k, v) for k, v in held if k is not None and v is not None and k.numel()]

    def _start_afresh(self) -> None:
        from transformers import DynamicCache, EncoderDecoderCache

        config = self.module.config
        self._cache = EncoderDecoderCache(DynamicCache(config=config), DynamicCache(config=config))
        self._encoded, self._next, self._generated = None, self._start, -1
        self._tokens.clear()

    def _prefill(self) -> None:
        self._run(self._start)

    def _decode(self) -> None:
        self._run(self._next)

    def _run(self, ids: torch.Tensor) -> None:
        given = {"input_ids": self._prompt} if self._encoded is None else {"encoder_outputs": self._encoded}
        with torch.inference_mode():
            out = self.module(decoder_input_ids=ids, past_key_values=self._cache, use_cache=True, **given)
        self._encoded = (out.encoder_last_hidden_state,)
        self.output = out.logits
        self._generated += int(ids.shape[1])

    def _advance(self) -> None:
        # the likeliest token is the next input; choosing it is no call of the model and not timed
        self._next = likeliest(self.output)
        self._tokens.append(self._next)

    def generated(self) -> list[dict[str, Any]]:
        """See Session.generated."""
        return output_rows([*self._tokens, likeliest(self.output)])
