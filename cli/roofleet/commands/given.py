"""The options that a unit is to have, read by the parser of the command that it will run."""

from __future__ import annotations

import enum
import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer

from roofleet.commands.limits import bounds_of, spool_of
from roofleet.commands.options import labels_of
from roofleet.errors import UserError
from roofleet.naming.folders import address
from roofleet_proto.door import SYSTEM

ADDRESSES = ("collector", "grpc", "sql", "server", "metrics", "listen")


@dataclass(frozen=True)
class Given:
    """Options as words of a command line, of which files have their whole path; and their values by name."""

    words: tuple[tuple[str, ...], ...]
    """The words of each option that was given."""
    files: Mapping[str, Path]
    """Files among them, by the option's name."""
    values: Mapping[str, Any]


def given(command: typer.Typer, name: str, written: Sequence[str]) -> Given:
    """Reads options as `roofleet NAME` would; UserError for what that would not take."""
    parser = typer.main.get_group(command)
    context = parser.make_context(f"roofleet {name}", list(written))
    left = [*getattr(context, "_protected_args", ()), *context.args]
    if left:
        raise UserError(f"{left[0]!r} is no option of `roofleet {name}`")
    words: list[tuple[str, ...]] = []
    files: dict[str, Path] = {}
    for parameter in parser.params:
        source = context.get_parameter_source(parameter.name or "")
        if source is None or source.name != "COMMANDLINE":
            continue
        value = context.params[str(parameter.name)]
        option = next(text for text in parameter.opts if text.startswith("--"))
        if isinstance(value, bool):
            words.append((option if value else parameter.secondary_opts[0],))
            continue
        for each in value if isinstance(value, (list, tuple)) else [value]:
            if isinstance(each, Path) and each != SYSTEM:
                each = each.expanduser().absolute()
                files[str(parameter.name)] = each
            words.append((option, str(each.value if isinstance(each, enum.Enum) else each)))
    _check(context.params)
    return Given(tuple(words), files, context.params)


def _check(values: Mapping[str, Any]) -> None:
    """What the command would refuse when it starts."""
    for name in ADDRESSES:
        if values.get(name) is not None:
            address(values[name])
    labels_of(list(values.get("label") or ()))
    for gather in (bounds_of, spool_of):
        names = set(inspect.signature(gather).parameters)
        if names <= set(values):
            gather(**{name: values[name] for name in names})
