"""The options of how a collector is reached, which every command has that asks one or sends to one."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar, cast

import typer

from roofleet.naming.doors import reached_by
from roofleet_proto.door import Door

Command = TypeVar("Command", bound=Callable[..., Any])
PANEL = "Reaching a collector"


def _file(option: str, help: str) -> Any:
    return Annotated[
        Path | None,
        typer.Option(option, metavar="FILE", help=help, show_default=False, rich_help_panel=PANEL),
    ]


_OPTIONS = {
    "token_file": _file(
        "--token-file",
        "File with the token to show. Default: $ROOFLEET_TOKEN_FILE, or the token itself in $ROOFLEET_TOKEN; "
        "the command line would show it to everybody on the machine.",
    ),
    "tls_ca": _file(
        "--tls-ca",
        "Use TLS, and trust a collector that these authorities vouch for; `system` for those that this "
        "machine trusts. Default: $ROOFLEET_TLS_CA.",
    ),
    "tls_cert": _file(
        "--tls-cert", "Your own certificate, where the collector asks for one. Default: $ROOFLEET_TLS_CERT."
    ),
    "tls_key": _file("--tls-key", "Its key. Default: $ROOFLEET_TLS_KEY."),
    "insecure_plaintext": Annotated[
        bool,
        typer.Option(
            "--insecure-plaintext",
            help="Send a token without TLS beyond this machine: who is on the way can read and use it.",
            rich_help_panel=PANEL,
        ),
    ],
}


def reaching(command: Command) -> Command:
    """Gives a command those options. What it opens while it runs is reached by them."""

    @functools.wraps(command)
    def run(*args: Any, **kwargs: Any) -> Any:
        given = {name: kwargs.pop(name) for name in _OPTIONS if name in kwargs}
        with reached_by(Door(**given)):
            return command(*args, **kwargs)

    own = inspect.signature(command, eval_str=True)
    more = [
        inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=False if name.startswith("insecure") else None,
            annotation=annotation,
        )
        for name, annotation in _OPTIONS.items()
    ]
    run.__signature__ = own.replace(parameters=[*own.parameters.values(), *more])  # type: ignore[attr-defined]
    run.__annotations__ = {
        name: parameter.annotation
        for name, parameter in run.__signature__.parameters.items()  # type: ignore[attr-defined]
    }
    return cast(Command, run)
