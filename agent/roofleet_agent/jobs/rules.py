"""What jobs may do on this host: the agent's own decision, from `agent.toml` beside its data.

    [models]
    allowed = ["gpt2", "bert-*"]      # of the catalogue; all of it without this line

    [local]
    roots = ["/srv/models"]           # folders below these may be loaded; none without this line

    [hub]
    access = true                     # false without this line
    [hub.models]                      # and only these, each at this commit
    "openai-community/gpt2" = "607a30d783dfa663caf39e06633721c8d4cfcd7e"

    [limits]
    memory = "16GiB"                  # none without this line
    time_s = 3600                     # an hour without this line

    [labels]
    site = "lab1"

Code that comes with a model is never run, whatever is written here.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from roofleet_agent.errors import JobRefused, RulesUnusable
from roofleet_proto.jobs import JobRequest
from roofleet_proto.sizes import size_bytes

FILE_NAME = "agent.toml"
TIME_S = 3600.0
MOST_FILES = 10_000
"""Files of a model's folder that are looked at; more are no model."""
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class Allowed:
    """A request as it may run: the folder it is loaded from, the commits of hub models, and its limits.

    `time_s` is in seconds, `memory_bytes` of the device it runs on; None is without one.
    """

    folder: str | None
    revisions: Mapping[str, str]
    time_s: float
    memory_bytes: int | None


@dataclass(frozen=True)
class Rules:
    """The rules; as made by `Rules()` they allow the catalogue's models with random weights."""

    models: tuple[str, ...] = ("*",)
    roots: tuple[Path, ...] = ()
    hub: bool = False
    revisions: Mapping[str, str] = field(default_factory=dict)
    memory_bytes: int | None = None
    time_s: float = TIME_S
    labels: Mapping[str, str] = field(default_factory=dict)

    def check(self, request: JobRequest) -> Allowed:
        """What of a request is allowed. JobRefused names the rule that it breaks."""
        folder = None
        if request.origin == "module":
            raise JobRefused(f"{request.model} is code, and agents never run code that comes with a job")
        if request.origin == "folder":
            folder = self._folder(request.model)
        elif request.origin == "hub":
            self._check_hub(request.model)
        else:
            if not any(fnmatchcase(request.model, pattern) for pattern in self.models):
                raise JobRefused(
                    f"{request.model} is not among the models.allowed of this agent: {', '.join(self.models)}"
                )
            if not self.hub and (request.weights == "pretrained" or request.prompt or request.quality_text):
                what = "pretrained weights" if request.weights == "pretrained" else "a text's tokenizer"
                raise JobRefused(f"{what} come from the hub, and hub.access of this agent is off")
        if request.max_time_s is not None and request.max_time_s > self.time_s:
            raise JobRefused(
                f"{request.max_time_s:g} s are more than limits.time_s of this agent: {self.time_s:g}"
            )
        if (
            request.max_memory_bytes is not None
            and self.memory_bytes is not None
            and request.max_memory_bytes > self.memory_bytes
        ):
            raise JobRefused(
                f"{request.max_memory_bytes / 2**30:.4g} GiB are more than limits.memory of this agent: "
                f"{self.memory_bytes / 2**30:.4g} GiB"
            )
        return Allowed(
            folder,
            dict(self.revisions) if self.hub else {},
            request.max_time_s or self.time_s,
            request.max_memory_bytes or self.memory_bytes,
        )

    def _folder(self, model: str) -> str:
        """The real path of a folder below one of the roots, with all that lies in it."""
        folder = Path(os.path.realpath(model))
        root = next((root for root in self.roots if folder.is_relative_to(root)), None)
        if root is None:
            there = ", ".join(map(str, self.roots)) or "none"
            raise JobRefused(f"{model} lies outside the local.roots of this agent: {there}")
        if not folder.is_dir():
            raise JobRefused(f"{model} is no folder on this agent's host")
        seen = 0
        for place, folders, files in os.walk(folder):
            for name in (*folders, *files):
                seen += 1
                if seen > MOST_FILES:
                    raise JobRefused(f"{model} holds more than {MOST_FILES:,} files: it is no model's folder")
                inside = Path(place) / name
                if not Path(os.path.realpath(inside)).is_relative_to(root):
                    raise JobRefused(f"{inside} leads out of the local.roots of this agent")
        return str(folder)

    def _check_hub(self, model: str) -> None:
        if not self.hub:
            raise JobRefused(f"{model} is a model of the hub, and hub.access of this agent is off")
        if model not in self.revisions:
            there = ", ".join(self.revisions) or "none"
            raise JobRefused(f"{model} is not among the hub.models of this agent: {there}")


def read_rules(file: Path, *, must_be: bool = False) -> Rules:
    """The rules in a file, the usual ones without it. RulesUnusable if it cannot be read or says what is not
    known: an agent does not guess what it may do."""
    try:
        said = tomllib.loads(file.read_text())
    except FileNotFoundError:
        if must_be:
            raise RulesUnusable(f"there is no {file}") from None
        return Rules()
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise RulesUnusable(f"{file} cannot be read: {error}") from None
    values: dict[str, Any] = {}
    for section, keys in said.items():
        if section not in _SECTIONS or not isinstance(keys, dict):
            raise RulesUnusable(f"{file} has {section!r}; it may have the sections {', '.join(_SECTIONS)}")
        if section == "labels":
            values["labels"] = _read(file, "labels", keys, *_TEXTS)
            continue
        known = _SECTIONS[section]
        for key, value in keys.items():
            if key not in known:
                raise RulesUnusable(f"{file}: [{section}] has {key!r}; it may have {', '.join(known)}")
            name, what, convert = known[key]
            values[name] = _read(file, f"{section}.{key}", value, what, convert)
    return Rules(**values)


def _read(file: Path, name: str, value: Any, what: str, convert: Callable[[Any], Any]) -> Any:
    try:
        return convert(value)
    except (ValueError, TypeError, AttributeError, KeyError):
        raise RulesUnusable(f"{file}: {name} is {value!r:.80}; it must be {what}") from None


def _is(kind: type, value: Any) -> Any:
    if not isinstance(value, kind):
        raise TypeError
    return value


def _patterns(value: Any) -> tuple[str, ...]:
    return tuple(_is(str, each) for each in _is(list, value))


def _roots(value: Any) -> tuple[Path, ...]:
    roots = _patterns(value)
    if not all(os.path.isabs(root) for root in roots):
        raise ValueError
    return tuple(Path(os.path.realpath(root)) for root in roots)


def _revisions(value: Any) -> dict[str, str]:
    if not all(_COMMIT.fullmatch(_is(str, commit)) for commit in _is(dict, value).values()):
        raise ValueError
    return dict(value)


def _seconds(value: Any) -> float:
    if isinstance(value, bool) or not 0 < _is(int | float, value) < 1e9:  # type: ignore[arg-type]
        raise ValueError
    return float(value)


def _texts(value: Any) -> dict[str, str]:
    return {_is(str, name): _is(str, text) for name, text in _is(dict, value).items()}


def _size(value: Any) -> int:
    return size_bytes(value if isinstance(value, str) else str(_is(int, value)))


_TEXTS = ("texts by name", _texts)
_SECTIONS: dict[str, dict[str, tuple[str, str, Callable[[Any], Any]]]] = {
    "models": {"allowed": ("models", "a list of patterns", _patterns)},
    "local": {"roots": ("roots", "a list of whole paths", _roots)},
    "hub": {
        "access": ("hub", "true or false", lambda value: _is(bool, value)),
        "models": ("revisions", "commits of 40 hexadecimal digits, by model", _revisions),
    },
    "limits": {
        "memory": ("memory_bytes", "a size such as 16GiB", _size),
        "time_s": ("time_s", "a number of seconds", _seconds),
    },
    "labels": {},
}
