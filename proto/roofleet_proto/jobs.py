"""What a job asks for: JSON that travels from who submits it to the agent that runs it.

Nothing here runs or loads anything: an agent decides by its own rules what of it is allowed.
"""

from __future__ import annotations

import dataclasses
import json
import re
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from roofleet_proto.errors import MalformedMessage

MAX_REQUEST_BYTES = 1024 * 1024
LOG_TAIL_BYTES = 16 * 1024
"""The last of what a model process printed that is kept with its job."""
OPEN = ("queued", "running", "cancelling")
"""Statuses of a job that has not ended."""
ENDED = ("done", "failed", "cancelled", "refused")
"""Statuses of one that has: `refused` by the rules of every agent that it could run on."""
RETURNED = "returned"
"""What an agent that ends reports of a job that it did not come to the end of: another may have it."""
_SPACE = uuid.UUID("6d0f3a3c-0d7f-5c9b-9d4a-2f6f0f1c7b61")

Origin = Literal["catalog", "hub", "folder", "module"]


@dataclass(frozen=True)
class JobRequest:
    """A run as it is asked for; names and defaults are those of `roofleet profile`.

    `max_time_s` and `max_memory_bytes` end it; None leaves that to the agent. `settings` are numbers of the
    model's configuration that are changed.
    """

    model: str
    weights: str | None = None
    dtype: str = "auto"
    batch_size: int = 1
    prompt_tokens: int = 128
    new_tokens: int = 32
    iterations: int | None = None
    warmup: int = 2
    logits: str = "last"
    prompt: str | None = None
    attention: str | None = None
    variant: str = "base"
    keep_outputs: bool = False
    quality_text: str | None = None
    budget_s: float = 15.0
    settings: Mapping[str, int] = field(default_factory=dict)
    name: str | None = None
    tags: tuple[str, ...] = ()
    sweep_id: str | None = None
    max_time_s: float | None = None
    max_memory_bytes: int | None = None

    @property
    def origin(self) -> Origin:
        """Where the model is from, by the way its name is written."""
        return origin_of(self.model)

    def text(self) -> str:
        """The request as JSON; what is as usual is left out."""
        usual = JobRequest(self.model)
        values = {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in ((f.name, getattr(self, f.name)) for f in dataclasses.fields(self))
            if name == "model" or value != getattr(usual, name)
        }
        return json.dumps(values)


def parse_request(text: str) -> JobRequest:
    """The request in a JSON text; MalformedMessage, saying what is wrong, if it is none."""
    if len(text) > MAX_REQUEST_BYTES:
        raise MalformedMessage(f"a request of {len(text):,} characters: the most is {MAX_REQUEST_BYTES:,}")
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise MalformedMessage(f"the request is no JSON: {error}") from None
    if not isinstance(values, dict) or "model" not in values:
        raise MalformedMessage("a request is a JSON object that names a model")
    for name, value in values.items():
        if name not in _FITS:
            raise MalformedMessage(f"a request has no {name!r}; it has {', '.join(_FITS)}")
        what, fits = _FITS[name]
        if not fits(value):
            raise MalformedMessage(f"{name} of a request is {value!r:.80}: it must be {what}")
    return JobRequest(**values | {"tags": tuple(values.get("tags", ()))})


def origin_of(model: str) -> Origin:
    """Where a model of such a name is from: `package.module:factory` and `file.py:factory` are a `module`, a
    path is a `folder`, owner/name is of the `hub`, any other of the `catalog`."""
    if model.startswith(("/", ".", "~")):
        return "module" if re.search(r"\.py:\w+$", model) else "folder"
    if ":" in model or model.endswith(".py"):
        return "module"
    return "hub" if "/" in model else "catalog"


def run_id_of(job_id: str, token: int) -> str:
    """The run of one lease of a job: known to both sides, so that one of an old lease can be kept out."""
    return str(uuid.uuid5(_SPACE, f"run {job_id} {token}"))


def job_id_of(submission_id: str, number: int) -> str:
    """The job that a submission makes as its first, second, …: the same when it is sent again."""
    return str(uuid.uuid5(_SPACE, f"job {submission_id} {number}"))


def sweep_id_of(submission_id: str) -> str:
    """The sweep of a submission that is one."""
    return str(uuid.uuid5(_SPACE, f"sweep {submission_id}"))


# -- what each value of a request must be

_Fits = tuple[str, Callable[[Any], bool]]
_MOST = 2**31 - 1
_MOST_BYTES = 2**60


def _whole(least: int, most: int = _MOST) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def _seconds(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < 1e9


def _line(value: Any) -> bool:
    return isinstance(value, str) and 0 < len(value) <= 4096 and value.isprintable()


def _settings(value: Any) -> bool:
    return (
        isinstance(value, dict) and all(map(str.isidentifier, value)) and all(map(_whole(1), value.values()))
    )


def _or_none(fits: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: value is None or fits(value)


_TEXT: _Fits = ("text", _or_none(lambda value: isinstance(value, str)))
_NAME: _Fits = ("one line of text", _or_none(_line))
_COUNT: _Fits = ("a whole number of 1 or more", _whole(1))
_COUNT_OR_0: _Fits = ("a whole number of 0 or more", _whole(0))
_FITS: dict[str, _Fits] = {
    "model": ("one line of text", _line),
    "weights": ("random or pretrained", lambda value: value in (None, "random", "pretrained")),
    "dtype": ("auto, fp32, bf16 or fp16", lambda value: value in ("auto", "fp32", "bf16", "fp16")),
    "batch_size": _COUNT,
    "prompt_tokens": _COUNT,
    "new_tokens": _COUNT_OR_0,
    "iterations": ("a whole number of 1 or more", _or_none(_whole(1))),
    "warmup": _COUNT_OR_0,
    "logits": ("last or all", lambda value: value in ("last", "all")),
    "prompt": _TEXT,
    "attention": _NAME,
    "variant": ("one line of text", _line),
    "keep_outputs": ("true or false", lambda value: isinstance(value, bool)),
    "quality_text": _TEXT,
    "budget_s": ("a number of seconds", _seconds),
    "settings": ("an object of whole numbers of 1 or more", _settings),
    "name": _NAME,
    "tags": ("a list of words", lambda value: isinstance(value, list) and all(map(_line, value))),
    "sweep_id": _NAME,
    "max_time_s": ("a number of seconds", _or_none(_seconds)),
    "max_memory_bytes": ("a number of bytes", _or_none(_whole(1, _MOST_BYTES))),
}
