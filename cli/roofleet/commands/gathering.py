"""Options that belong together, declared once as the parameters of a function, for any command."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, TypeVar, cast

Command = TypeVar("Command", bound=Callable[..., Any])


def gathering(**given: Callable[..., Any]) -> Callable[[Command], Command]:
    """Puts the options of a function in the place of a keyword of a command, which gets what it returns."""
    ((keyword, gather),) = given.items()
    options = [
        parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)
        for parameter in inspect.signature(gather, eval_str=True).parameters.values()
    ]

    def decorated(command: Command) -> Command:
        own = list(inspect.signature(command, eval_str=True).parameters.values())
        place = [parameter.name for parameter in own].index(keyword)

        @functools.wraps(command)
        def run(**kwargs: Any) -> Any:
            gathered = gather(**{option.name: kwargs.pop(option.name) for option in options})
            return command(**kwargs, **{keyword: gathered})

        parameters = [*own[:place], *options, *own[place + 1 :]]
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return cast(Command, run)

    return decorated
