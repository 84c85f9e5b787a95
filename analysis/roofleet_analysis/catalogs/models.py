"""The model catalogue: published configurations of known language models, read from `models.toml`.

Pure data: it imports neither torch nor transformers. Whoever builds a model gives a copy of the configuration
to transformers:

    config = entry.config_copy()
    AutoConfig.for_model(config.pop("model_type"), **config)
"""

import copy
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from typing import Any, Literal

from roofleet_analysis.catalogs import nearest_names

__all__ = ["ModelEntry", "Storage", "Task", "filter_models", "find_model", "models", "nearest_models"]

Task = Literal["generate", "encode"]
"""`generate`: a causal language model, or one with an encoder and a decoder. `encode`: a bare encoder, with
its pooler where it has one."""


@dataclass(frozen=True, slots=True)
class Storage:
    """How a checkpoint stores some of its weights, where that is not the dtype its configuration names."""

    dtype: str
    """The format: fp8 or mxfp4."""
    bits: float
    """Bits a number, the scales of its block included."""
    layers: str
    """Regular expression that the path of a layer matches whose matrices are stored so; the rest, biases
    included, is in the configuration's dtype."""
    where: str
    """Those layers in words."""
    compute: str
    """The dtype in which products with them are made where the hardware can."""
    source: str
    """Address of where the format and the layers are told."""

    def stored_bytes(self, numbers: int) -> int:
        """What so many numbers take."""
        return round(numbers * self.bits / 8)


@dataclass(frozen=True, slots=True)
class ModelEntry:
    """One model of the catalogue."""

    name: str
    """The catalogue's name, in lower case with hyphens."""
    aliases: tuple[str, ...]
    """Other names of the same weights. The first is the model's id on the hub."""
    task: Task
    config: Mapping[str, Any] = field(hash=False)
    """The published configuration, `model_type` included, with the names of the published `config.json`.
    Shared: transformers changes nested tables in place, so give it `config_copy()`."""
    parameters: int
    """Learned parameters, tied matrices counted once, buffers not counted."""
    source: str
    """Address of the published configuration."""
    licence: str | None
    """SPDX identifier or the licence's own name; None if not known."""
    storage: Storage | None = None
    """How the checkpoint stores what is not in the configuration's dtype (fp32 where that names none); None
    where all of it is."""

    @property
    def hub_id(self) -> str:
        """The model's id on the Hugging Face hub, as in `openai-community/gpt2`."""
        return self.aliases[0]

    @property
    def model_type(self) -> str:
        """The architecture's name in transformers, as in `llama`."""
        return str(self.config["model_type"])

    def config_copy(self) -> dict[str, Any]:
        """A fresh, deep copy of `config` that the caller may change."""
        return copy.deepcopy(dict(self.config))


@cache
def models() -> tuple[ModelEntry, ...]:
    """All models of the catalogue, in the order of the file."""
    text = resources.files(__package__).joinpath("models.toml").read_text(encoding="utf-8")
    return tuple(
        ModelEntry(
            name=raw["name"],
            aliases=tuple(raw["aliases"]),
            task=raw["task"],
            config=raw["config"],
            parameters=raw["parameters"],
            source=raw["source"],
            licence=raw.get("licence"),
            storage=Storage(**raw["storage"]) if "storage" in raw else None,
        )
        for raw in tomllib.loads(text)["model"]
    )


def find_model(name: str) -> ModelEntry | None:
    """The model with this name or alias, or None.

    Case does not matter, and underscores and spaces equal hyphens.
    """
    return _by_key().get(_key(name))


def nearest_models(name: str, n: int = 3) -> list[str]:
    """Names of at most `n` models that look like `name`, best first, for a "did you mean" message.

    Empty if nothing looks alike.
    """
    names = {key: entry.name for key, entry in _by_key().items()}
    # "Llama-3.1-8B-Instruct" should be compared with "Llama-3.1-8B", not with "meta-llama/Llama-3.1-8B".
    names |= {key.rpartition("/")[2]: entry_name for key, entry_name in names.items()}
    return nearest_names(_key(name), names, n)


def filter_models(text: str) -> list[ModelEntry]:
    """The models with `text` in their name, an alias or their `model_type`; all of them for an empty text."""
    wanted = _key(text)
    return [
        entry
        for entry in models()
        if any(wanted in _key(candidate) for candidate in (entry.name, *entry.aliases, entry.model_type))
    ]


@cache
def _by_key() -> dict[str, ModelEntry]:
    return {_key(name): entry for entry in models() for name in (entry.name, *entry.aliases)}


def _key(name: str) -> str:
    return name.strip().casefold().replace("_", "-").replace(" ", "-")
