"""From a request to a Hugging Face configuration, model, tokenizer and prompt, or an error that says why."""

from __future__ import annotations

import contextlib
import copy
import inspect
import json
import os
import re
from collections.abc import Iterator, Mapping
from logging import ERROR, WARNING, disable, getLogger, root
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn

from roofleet_agent.engines.base import SEED, TORCH_DTYPES
from roofleet_agent.engines.on_meta import Uninitialised, attention_on_meta, settle_on_meta
from roofleet_agent.errors import ModelNotFound, ModelRefused, WorkloadRefused
from roofleet_agent.measuring.allocator import is_out_of_memory
from roofleet_agent.variants import Note
from roofleet_agent.workload import ModelRequest, Workload

_OF_THE_LOADING = ("_name_or_path", "dtype", "torch_dtype", "transformers_version")
"""What transformers writes into a configuration that is no property of the model."""
MOST_LAYERS = 4096
"""Layers, or experts of a layer, of a configuration that is taken: what has more is a mistake, or worse."""
MOST_CONFIG_BYTES = 8 * 2**20
MOST_TOKENIZER_BYTES = 128 * 2**20
MOST_GROWTH = 256
"""Letters that a tokenizer may make of one: a few lines of it can make any number."""
_DEPTH = re.compile(r"(^|_)(layers?|blocks|experts)$|^num_(\w+_)?(layers|experts)")
_WRONG_TYPES = (TypeError, AttributeError, LookupError, ZeroDivisionError, AssertionError, OverflowError,
                RecursionError)  # fmt: skip
"""What libraries raise over values of types, or sizes, that they did not expect."""
ATTENTION = {"flex": "flex_attention", "flash": "flash_attention_2"}
"""Short names of attention implementations; the others have only transformers' own."""


def load_config(request: ModelRequest) -> Any:
    """The transformers configuration of a model; ModelNotFound or ModelRefused if there is none usable."""
    from huggingface_hub.errors import StrictDataclassError
    from transformers import AutoConfig

    name = _checkpoint_name(request)
    if request.origin == "folder":
        _check_files(Path(name), "config.json", MOST_CONFIG_BYTES)
    try:
        with _quiet():
            if request.config is not None and request.weights == "random":
                # transformers edits nested values in place, and a catalogue entry is shared
                values = copy.deepcopy(dict(request.config))
                config = AutoConfig.for_model(values.pop("model_type"), **values)
            else:
                config = AutoConfig.from_pretrained(
                    name, revision=request.revision or "main", trust_remote_code=False
                )
            _check_depth(request.name, config.to_dict())
    except (OSError, ValueError, KeyError, StrictDataclassError, *_WRONG_TYPES) as error:
        if isinstance(error, ModelRefused):
            raise
        raise _not_loaded(request, error) from error
    return config


def _check_depth(name: str, values: Any) -> None:
    """ModelRefused for a configuration of so many layers or experts that nothing ends in time."""
    if isinstance(values, list):
        if len(values) > MOST_LAYERS:
            raise ModelRefused(f"the configuration of {name} has a list of {len(values):,} entries")
        for value in values:
            _check_depth(name, value)
    for key, value in values.items() if isinstance(values, dict) else ():
        is_depth = _DEPTH.search(str(key)) is not None and isinstance(value, int | float)
        if is_depth and not isinstance(value, bool) and not -1 <= value <= MOST_LAYERS:
            raise ModelRefused(
                f"the configuration of {name} says {key} is {value:,}; at most {MOST_LAYERS:,} are taken"
            )
        if isinstance(value, dict | list) and key not in ("id2label", "label2id"):
            _check_depth(name, value)


def _check_files(folder: Path, pattern: str, most_bytes: int) -> None:
    """ModelRefused for a file that is read whole and is larger than any should be."""
    for file in folder.glob(pattern):
        if file.is_file() and (size := file.stat().st_size) > most_bytes:
            raise ModelRefused(f"{file} has {size:,} bytes: the most that is read is {most_bytes:,}")


def task_of(config: Any) -> str:
    """`generate` for causal language models and those with a decoder, `encode` for the others."""
    if is_two_sided(config):
        return "generate"
    names = " ".join(config.architectures or ())
    return "generate" if "CausalLM" in names or "LMHead" in names else "encode"


def is_two_sided(config: Any) -> bool:
    """Whether the model has an encoder for the prompt and a decoder beside it, as T5 has."""
    return bool(getattr(config, "is_encoder_decoder", False))


def config_text(config: Any) -> str:
    """JSON of what a configuration says of the model, whoever loaded it, from where, and in which dtype."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: plain(inner) for key, inner in value.items() if key not in _OF_THE_LOADING}
        return value

    return json.dumps(plain(json.loads(config.to_json_string())), indent=2, sort_keys=True)


def _checkpoint_name(request: ModelRequest) -> str:
    name = request.checkpoint or request.name
    return str(Path(name).expanduser()) if request.origin == "folder" else name


def check_takes_tokens(request: ModelRequest, config: Any, task: str) -> None:
    """ModelRefused for a model of images or sound, which this engine has no inputs for."""
    auto = auto_class(config, task)
    with _quiet():
        known = type(config) in auto._model_mapping
        model_class = auto._model_mapping[type(config)] if known else None
    wanted = getattr(model_class, "main_input_name", "input_ids")
    takes_ids = model_class is None or "input_ids" in inspect.signature(model_class.forward).parameters
    if not takes_ids or getattr(config.get_text_config(), "vocab_size", None) is None:
        raise ModelRefused(
            f"{request.name} is a {config.model_type} model and takes {wanted}, no tokens: write a function "
            "that returns (model, inputs), and name that: path/to/file.py:factory"
        )


def auto_class(config: Any, task: str) -> Any:
    """transformers' way to the class of a model that does such a task."""
    with _quiet():
        from transformers import AutoModel, AutoModelForCausalLM, AutoModelForSeq2SeqLM

    if is_two_sided(config):
        return AutoModelForSeq2SeqLM
    return AutoModelForCausalLM if task == "generate" else AutoModel


def load_model(
    request: ModelRequest, config: Any, task: str, device: torch.device, dtype: str, attention: str | None
) -> tuple[nn.Module, list[Note]]:
    """The model, and what its checkpoint had too much or too little."""
    with _quiet():
        from transformers.utils import logging

    auto = auto_class(config, task)
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
                with Uninitialised() if device.type == "meta" else contextlib.nullcontext():
                    model = auto.from_config(config, **options)
            if device.type == "meta":
                settle_on_meta(model)
        else:
            with _quiet():
                model, loading = auto.from_pretrained(
                    _checkpoint_name(request),
                    config=config,
                    revision=request.revision or "main",
                    use_safetensors=True,
                    output_loading_info=True,
                    ignore_mismatched_sizes=True,  # refused below, with a message that says which
                    **options,
                )
            notes = _checked(request, task, loading)
            model = model.to(device)
    except (OSError, ValueError, ImportError, SafetensorError, RuntimeError, *_WRONG_TYPES) as error:
        if is_out_of_memory(error) or isinstance(error, ModelRefused):
            raise
        if attention is not None and "attention" in str(error).lower():
            raise WorkloadRefused(
                f"attention {attention!r} cannot be used here: {_first_line(error)}"
            ) from error
        raise _not_loaded(request, error) from error
    return model.eval(), notes


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
    lines = str(error).strip().splitlines() or [type(error).__name__]
    first = " ".join(line.strip() for line in lines[:2]) if lines[0].endswith(":") else lines[0]
    return first.rstrip(".")


def _not_loaded(request: ModelRequest, error: Exception) -> Exception:
    first = _first_line(error)
    if request.origin == "folder":
        folder = Path(_checkpoint_name(request))
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
    off = os.environ.get("HF_HUB_OFFLINE") == "1"
    where = "the hub is not asked (--offline, or it is away)" if off else first
    return ModelNotFound(
        f"{_checkpoint_name(request)!r} could not be loaded from the hub or its cache: {where}. "
        "Check the name and the network, or use --weights random with a catalogue model"
    )


def prompt_ids(request: ModelRequest, config: Any, workload: Workload, device: torch.device) -> torch.Tensor:
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

    if request.origin == "folder":
        for pattern in ("tokenizer*", "vocab*", "merges*", "*.model"):
            _check_files(Path(_checkpoint_name(request)), pattern, MOST_TOKENIZER_BYTES)
    try:
        with _quiet():
            made = AutoTokenizer.from_pretrained(
                _checkpoint_name(request), revision=request.revision or "main", trust_remote_code=False
            )
        if len(made.get_vocab()) <= len(made.all_special_tokens):
            raise ValueError("there is none beside the model: it was made up from the configuration, empty")
        normalizer = getattr(getattr(made, "backend_tokenizer", None), "normalizer", None)
        growth = _growth(json.loads(normalizer.__getstate__())) if normalizer is not None else 1.0
        if growth > MOST_GROWTH:
            raise ValueError(f"it makes {growth:,.0f} letters of one, and at most {MOST_GROWTH} are taken")
        return made
    except (OSError, ValueError, KeyError, ImportError, *_WRONG_TYPES) as error:
        raise WorkloadRefused(
            f"text needs the tokenizer of {request.name!r}, and it could not be loaded: "
            f"{str(error).splitlines()[0]}. Use --prompt-tokens N for random tokens"
        ) from error


def _growth(normalizer: Any) -> float:
    """How many letters a normalizer makes of one at most, one step after the other."""
    if not isinstance(normalizer, dict):
        return 1.0
    growth = 1.0
    for step in normalizer.get("normalizers") or ():
        growth = min(growth * _growth(step), 1e300)
    content = normalizer.get("content", normalizer.get("prepend"))
    if isinstance(content, str):
        pattern = normalizer.get("pattern")
        replaced = pattern.get("String") if isinstance(pattern, dict) else None
        growth *= max(len(content) / max(len(replaced or ""), 1), 1.0)
    return growth


def check_positions(config: Any, name: str, needed: int) -> None:
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
