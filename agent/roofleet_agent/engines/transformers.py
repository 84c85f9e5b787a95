"""Runs Hugging Face models: causal ones with prefill and decode, encoders with one forward."""

from __future__ import annotations

import contextlib
import copy
import hashlib
import os
from collections.abc import Iterable, Iterator
from logging import ERROR, getLogger
from pathlib import Path
from typing import Any

import torch
from torch import nn

from roofleet_agent.engines.base import TORCH_DTYPES, Step
from roofleet_agent.errors import ModelNotFound, ModelRefused, WorkloadRefused
from roofleet_agent.workload import ModelRequest, Workload, middle_cache_tokens

SEED = 20_261
"""Random weights and prompts are the same in every run."""


class TransformersEngine:
    """Catalogue, hub and folder models."""

    name = "transformers"

    def runs(self, request: ModelRequest) -> bool:
        """See Engine.runs."""
        return request.origin in ("catalog", "hub", "folder")

    def load(
        self, request: ModelRequest, device: torch.device, dtype: str, workload: Workload
    ) -> TransformersSession:
        """See Engine.load."""
        config = load_config(request)
        task = request.task or task_of(config)
        prompt = _prompt_ids(request, config, workload)
        # the last token generated is never an input
        fed = max(workload.new_tokens - 1, 0) if task == "generate" else 0
        _check_positions(config, request.name, prompt.shape[1] + fed)
        model = _load_model(request, config, task, device, dtype, workload.attention)
        return TransformersSession(model, task, prompt.to(device), workload)


class TransformersSession:
    """Implements Session on a Hugging Face model."""

    def __init__(self, model: Any, task: str, prompt: torch.Tensor, workload: Workload) -> None:
        self.module: nn.Module = model
        self.task = task
        self.config_json: str | None = model.config.to_json_string()
        self.attention: str | None = model.config._attn_implementation
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
        self._cache: Any = None
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
        if self._cache is None or self._cache.get_seq_length() != cached:
            self._cache = self._new_cache()
            self._run(self._prompt[:, :1].expand(-1, cached), kept=1)
        return Step(phase, cached - self.prompt_tokens, 1, cached, self._decode)

    def cache(self) -> Iterable[torch.Tensor]:
        """See Session.cache."""
        for layer in getattr(self._cache, "layers", ()):
            for name in ("keys", "values"):
                tensor = getattr(layer, name, None)
                if isinstance(tensor, torch.Tensor):
                    yield tensor

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
                    elements += tensor.numel() // (batch * held) * kept
        return elements

    def close(self) -> None:
        """See Session.close."""
        self._cache = None
        self.module = nn.Module()

    def _new_cache(self) -> Any:
        from transformers import DynamicCache

        return DynamicCache(config=self.module.config)

    def _forward(self) -> None:
        with torch.inference_mode():
            self.module(input_ids=self._prompt)

    def _prefill(self) -> None:
        self._run(self._prompt, self._kept_logits)

    def _decode(self) -> None:
        self._run(self._next, kept=1)

    def _run(self, ids: torch.Tensor, kept: int) -> None:
        with torch.inference_mode():
            out = self.module(input_ids=ids, past_key_values=self._cache, use_cache=True, logits_to_keep=kept)
        self._logits = out.logits

    def _advance(self) -> None:
        # the likeliest token is the next input; choosing it is no call of the model and not timed
        with torch.inference_mode():
            self._next = self._logits[:, -1:].argmax(dim=-1)


def load_config(request: ModelRequest) -> Any:
    """The transformers configuration of a model; ModelNotFound or ModelRefused if there is none usable."""
    from transformers import AutoConfig

    if request.config is not None and request.weights == "random":
        # transformers edits nested values in place, and a catalogue entry is shared
        values = copy.deepcopy(dict(request.config))
        return AutoConfig.for_model(values.pop("model_type"), **values)
    name = _checkpoint_name(request)
    try:
        with _quiet():
            return AutoConfig.from_pretrained(name, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise _not_loaded(request, error) from error


def task_of(config: Any) -> str:
    """`generate` for causal language models, `encode` for the others; ModelRefused for encoder-decoders."""
    if getattr(config, "is_encoder_decoder", False):
        raise ModelRefused(
            f"{config.model_type} has an encoder and a decoder; causal models and encoders run as yet"
        )
    names = " ".join(config.architectures or ())
    return "generate" if "CausalLM" in names or "LMHead" in names else "encode"


def _checkpoint_name(request: ModelRequest) -> str:
    if request.origin == "folder":
        return str(Path(request.name).expanduser())
    return request.checkpoint or request.name


def _load_model(
    request: ModelRequest, config: Any, task: str, device: torch.device, dtype: str, attention: str | None
) -> nn.Module:
    from transformers import AutoModel, AutoModelForCausalLM
    from transformers.utils import logging

    auto = AutoModelForCausalLM if task == "generate" else AutoModel
    options: dict[str, Any] = {"dtype": TORCH_DTYPES[dtype], "trust_remote_code": False}
    if attention is not None:
        options["attn_implementation"] = attention
    logging.disable_progress_bar()
    try:
        if request.weights == "random" or device.type == "meta":
            torch.manual_seed(SEED)
            with torch.device(device), _quiet():
                model = auto.from_config(config, **options)
        else:
            with _quiet():
                model = auto.from_pretrained(
                    _checkpoint_name(request), config=config, use_safetensors=True, **options
                )
            model = model.to(device)
    except (OSError, ValueError, ImportError) as error:
        raise _not_loaded(request, error) from error
    loaded: nn.Module = model.eval()
    return loaded


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps loading chatter off the terminal; errors still come as exceptions."""
    from transformers.utils import logging

    before = logging.get_verbosity()
    hub = getLogger("huggingface_hub")
    hub_before = hub.level
    logging.set_verbosity_error()
    hub.setLevel(ERROR)
    try:
        yield
    finally:
        logging.set_verbosity(before)
        hub.setLevel(hub_before)


def _not_loaded(request: ModelRequest, error: Exception) -> Exception:
    text = str(error).strip() or type(error).__name__
    first = text.splitlines()[0].rstrip(".")
    if request.origin == "folder":
        folder = Path(request.name).expanduser()
        if not (folder / "config.json").exists():
            return ModelNotFound(f"{folder} holds no config.json: give a folder that save_pretrained() wrote")
        if request.weights == "pretrained" and not any(folder.glob("*.safetensors")):
            return ModelRefused(
                f"{folder} holds no .safetensors weights. Other formats can run code when they are read: "
                "convert with model.save_pretrained(folder), or use --weights random"
            )
        return ModelRefused(f"{folder} could not be loaded: {first}")
    where = "the hub is switched off (HF_HUB_OFFLINE)" if os.environ.get("HF_HUB_OFFLINE") == "1" else first
    return ModelNotFound(
        f"{_checkpoint_name(request)!r} could not be loaded from the hub or its cache: {where}. "
        "Check the name and the network, or use --weights random with a catalogue model"
    )


def _prompt_ids(request: ModelRequest, config: Any, workload: Workload) -> torch.Tensor:
    """Token ids [batch, tokens] on the CPU."""
    if workload.prompt is None:
        generator = torch.Generator().manual_seed(SEED)
        size = (workload.batch_size, workload.prompt_tokens)
        return torch.randint(0, config.get_text_config().vocab_size, size, generator=generator)
    from transformers import AutoTokenizer

    try:
        with _quiet():
            tokenizer = AutoTokenizer.from_pretrained(_checkpoint_name(request), trust_remote_code=False)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise WorkloadRefused(
            f"--prompt needs the tokenizer of {request.name!r}, and it could not be loaded: "
            f"{str(error).splitlines()[0]}. Use --prompt-tokens N for random tokens"
        ) from error
    ids: torch.Tensor = tokenizer(workload.prompt, return_tensors="pt")["input_ids"]
    if ids.shape[1] == 0:
        raise WorkloadRefused("--prompt has no tokens: give some text, or --prompt-tokens N")
    return ids.repeat(workload.batch_size, 1)


def _check_positions(config: Any, name: str, needed: int) -> None:
    most = getattr(config.get_text_config(), "max_position_embeddings", None)
    if isinstance(most, int) and needed > most:
        raise WorkloadRefused(
            f"{needed} tokens are asked of {name}, which has positions for {most}: "
            "lower --prompt-tokens or --new-tokens"
        )


def published_dtype(config: Any) -> str:
    """The dtype a checkpoint was published in; fp32 where its configuration does not say."""
    stated = str(getattr(config, "dtype", None) or "").removeprefix("torch.")
    names = {str(t).removeprefix("torch."): name for name, t in TORCH_DTYPES.items()}
    return names.get(stated, "fp32")
