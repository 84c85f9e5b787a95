"""Runs Hugging Face models: generating ones with prefill and decode, encoders with one forward."""

from __future__ import annotations

import contextlib
import copy
import hashlib
import inspect
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from logging import ERROR, WARNING, disable, getLogger, root
from pathlib import Path
from typing import Any

import torch
from torch import nn

from roofleet_agent.engines.base import TORCH_DTYPES, Session, Step
from roofleet_agent.engines.encoder_decoder import EncoderDecoderSession
from roofleet_agent.engines.on_meta import attention_on_meta, meta_kernels, settle_on_meta
from roofleet_agent.engines.tokens import likeliest, output_rows
from roofleet_agent.errors import ModelNotFound, ModelRefused, WorkloadRefused
from roofleet_agent.variants import Note
from roofleet_agent.variants.applying import Applied, apply_variant
from roofleet_agent.workload import ModelRequest, Workload, middle_cache_tokens

SEED = 20_261
"""Random weights and prompts are the same in every run."""


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
        prompt = _prompt_ids(request, config, workload, device)
        # the last token generated is never an input
        fed = max(workload.new_tokens - 1, 0) if task == "generate" else 0
        needed = max(prompt.shape[1], fed + 1) if two_sided else prompt.shape[1] + fed
        _check_positions(config, request.name, needed)
        if workload.variant.static_cache and (two_sided or task != "generate"):
            raise WorkloadRefused(
                f"{request.name} has no growing cache of its own: leave static-cache out of its variant"
            )
        model, notes = _load_model(request, config, task, device, dtype, workload.attention)
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
        self.parameters, self.notes, self.opaque = applied.parameters, applied.notes, applied.opaque
        self.output: torch.Tensor | None = None
        self.text_of: Callable[[list[int]], str] | None = None
        self._tokens: list[torch.Tensor] = []
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
    """`generate` for causal language models and those with a decoder, `encode` for the others."""
    if is_two_sided(config):
        return "generate"
    names = " ".join(config.architectures or ())
    return "generate" if "CausalLM" in names or "LMHead" in names else "encode"


def is_two_sided(config: Any) -> bool:
    """Whether the model has an encoder for the prompt and a decoder beside it, as T5 has."""
    return bool(getattr(config, "is_encoder_decoder", False))


def _checkpoint_name(request: ModelRequest) -> str:
    if request.origin == "folder":
        return str(Path(request.name).expanduser())
    return request.checkpoint or request.name


def _load_model(
    request: ModelRequest, config: Any, task: str, device: torch.device, dtype: str, attention: str | None
) -> tuple[nn.Module, list[Note]]:
    """The model, and what its checkpoint had too much or too little."""
    with _quiet():
        from transformers import AutoModel, AutoModelForCausalLM, AutoModelForSeq2SeqLM
        from transformers.utils import logging

    auto = AutoModelForCausalLM if task == "generate" else AutoModel
    if is_two_sided(config):
        auto = AutoModelForSeq2SeqLM
    options: dict[str, Any] = {"dtype": TORCH_DTYPES[dtype], "trust_remote_code": False}
    notes: list[Note] = []
    if attention is not None:
        chosen = _attention_of(auto, config, request.name, attention)
        if device.type == "meta":
            chosen = attention_on_meta(auto._model_mapping[type(config)], config, chosen)
        options["attn_implementation"] = chosen
    logging.disable_progress_bar()
    try:
        if request.weights == "random" or device.type == "meta":
            torch.manual_seed(SEED)
            with torch.device(device), _quiet():
                model = auto.from_config(config, **options)
            if device.type == "meta":
                settle_on_meta(model)
        else:
            with _quiet():
                model, loading = auto.from_pretrained(
                    _checkpoint_name(request),
                    config=config,
                    use_safetensors=True,
                    output_loading_info=True,
                    ignore_mismatched_sizes=True,  # refused below, with a message that says which
                    **options,
                )
            notes = _checked(request, task, loading)
            model = model.to(device)
    except (OSError, ValueError, ImportError) as error:
        if attention is not None and "attention" in str(error).lower():
            raise WorkloadRefused(
                f"attention {attention!r} cannot be used here: {_first_line(error)}"
            ) from error
        raise _not_loaded(request, error) from error
    return model.eval(), notes


ATTENTION = {"flex": "flex_attention", "flash": "flash_attention_2"}
"""Short names of attention implementations; the others have only transformers' own."""


def _attention_of(auto: Any, config: Any, name: str, wanted: str) -> str:
    """transformers' name of an attention implementation; WorkloadRefused if the model does not offer it."""
    with _quiet():
        model_class = auto._model_mapping[type(config)]
    offers = {
        "eager": True,
        "sdpa": getattr(model_class, "_supports_sdpa", False),
        "flex": getattr(model_class, "_supports_flex_attn", False),
        "flash": getattr(model_class, "_supports_flash_attn", False),
    }
    asked = next((short for short, long in ATTENTION.items() if long == wanted), wanted)
    if offers.get(asked, False):
        return ATTENTION.get(asked, asked)
    there = ", ".join(short for short, offered in offers.items() if offered)
    raise WorkloadRefused(f"{name} does not offer attention {wanted!r}; it offers {there}")


def _checked(request: ModelRequest, task: str, loading: Mapping[str, Any]) -> list[Note]:
    """Notes on weights the checkpoint has too many, or of a part that an encoder can do without.

    ModelRefused if a model that generates lacks some: what it then says means nothing.
    """
    missing, surplus = sorted(loading["missing_keys"]), sorted(loading["unexpected_keys"])
    mismatched = sorted(str(key[0] if isinstance(key, tuple) else key) for key in loading["mismatched_keys"])
    if mismatched or (missing and task == "generate"):
        wrong = mismatched or missing
        raise ModelRefused(
            f"the checkpoint of {request.name} {'has other shapes for' if mismatched else 'lacks'} "
            f"{len(wrong)} of the model's weights, the first {wrong[0]}: it was made for another model, or "
            "not completely copied. Use --weights random to measure time and memory alone"
        )
    return [Note(key, "the checkpoint lacks it", "random values") for key in missing] + [
        Note(key, "the checkpoint has it and the model does not", "left out") for key in surplus
    ]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps loading chatter off the terminal; errors still come as exceptions.

    Warnings of other libraries too: torchao tells of every kernel it could not load for other hardware.
    """
    from transformers.utils import logging

    before = logging.get_verbosity()
    hub = getLogger("huggingface_hub")
    hub_before = hub.level
    logging.set_verbosity_error()
    hub.setLevel(ERROR)
    disabled = root.manager.disable
    disable(WARNING)
    try:
        yield
    finally:
        disable(disabled)
        logging.set_verbosity(before)
        hub.setLevel(hub_before)


def _first_line(error: Exception) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0].rstrip(".")


def _not_loaded(request: ModelRequest, error: Exception) -> Exception:
    first = _first_line(error)
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
    if request.config is not None and request.weights == "random":
        return ModelRefused(f"{request.name} cannot be built from its configuration: {first}")
    where = "the hub is switched off (HF_HUB_OFFLINE)" if os.environ.get("HF_HUB_OFFLINE") == "1" else first
    return ModelNotFound(
        f"{_checkpoint_name(request)!r} could not be loaded from the hub or its cache: {where}. "
        "Check the name and the network, or use --weights random with a catalogue model"
    )


def _prompt_ids(request: ModelRequest, config: Any, workload: Workload, device: torch.device) -> torch.Tensor:
    """Token ids [batch, tokens], on the CPU or on `meta`."""
    if workload.prompt is None and device.type == "meta":
        return torch.empty(workload.batch_size, workload.prompt_tokens, dtype=torch.long, device="meta")
    if workload.prompt is None:
        generator = torch.Generator().manual_seed(SEED)
        size = (workload.batch_size, workload.prompt_tokens)
        return torch.randint(0, config.get_text_config().vocab_size, size, generator=generator)
    ids: torch.Tensor = load_tokenizer(request)(workload.prompt, return_tensors="pt")["input_ids"]
    if ids.shape[1] == 0:
        raise WorkloadRefused("--prompt has no tokens: give some text, or --prompt-tokens N")
    return ids.repeat(workload.batch_size, 1)


def load_tokenizer(request: ModelRequest) -> Any:
    """The model's tokenizer; WorkloadRefused if there is none."""
    from transformers import AutoTokenizer

    try:
        with _quiet():
            return AutoTokenizer.from_pretrained(_checkpoint_name(request), trust_remote_code=False)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise WorkloadRefused(
            f"text needs the tokenizer of {request.name!r}, and it could not be loaded: "
            f"{str(error).splitlines()[0]}. Use --prompt-tokens N for random tokens"
        ) from error


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
