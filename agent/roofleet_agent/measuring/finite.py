"""Whether what a model gives out is made of finite numbers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import torch


def is_finite(output: Any) -> bool | None:
    """Whether no number of the output is NaN or infinite; None if there is no tensor of numbers to look at.

    Looked at are a tensor, and tensors in lists, tuples, mappings and dataclasses.
    """
    if isinstance(output, torch.Tensor):
        return bool(torch.isfinite(output).all()) if output.is_floating_point() else None
    if is_dataclass(output) and not isinstance(output, Mapping):
        parts: Iterable[Any] = [getattr(output, f.name) for f in fields(output)]
    elif isinstance(output, Mapping):
        parts = output.values()
    elif isinstance(output, (list, tuple)):
        parts = output
    else:
        return None
    return all_finite(map(is_finite, parts))


def all_finite(answers: Iterable[bool | None]) -> bool | None:
    """No if one is no, else yes if one is yes; None if nothing was looked at."""
    known = [answer for answer in answers if answer is not None]
    return all(known) if known else None
