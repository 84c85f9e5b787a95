"""`roofleet tokens`: who may come in, and as what."""

from __future__ import annotations

import json
import re
import time
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from roofleet import console
from roofleet.commands import options
from roofleet.errors import FAILED, UserError
from roofleet.naming.folders import data_folder

tokens = typer.Typer(
    help="Say who may come in to a collector: make, list and revoke tokens where its data lie.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


class RoleChoice(StrEnum):
    """What a token is for."""

    agent = "agent"
    reader = "reader"
    operator = "operator"
    admin = "admin"


Name = Annotated[str, typer.Argument(metavar="NAME", help="Who it is for: a host or a person.")]
Output = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        help="File to write it to, which only you can read, instead of showing it.",
        show_default=False,
    ),
]
Expires = Annotated[
    str, typer.Option("--expires", metavar="TIME", help="How long it is good: 12h, 90d, or never.")
]


@tokens.command()
def create(
    name: Name,
    role: Annotated[
        RoleChoice,
        typer.Option(
            "--role",
            help="agent writes its own rows and takes its own jobs; reader asks SQL; operator also hands out "
            "jobs, names, tags, deletes and sends runs; admin may everything.",
            show_default=False,
        ),
    ],
    expires: Expires = "90d",
    agent_id: Annotated[
        list[str] | None,
        typer.Option(
            "--agent-id",
            help="An agent that it is for; else the ids that it uses first become its own.",
            show_default=False,
        ),
    ] = None,
    made: Annotated[
        Path | None,
        typer.Option(
            "--from",
            metavar="FILE",
            help="Take the token in this file, which was made elsewhere, instead of making one; the same "
            "again changes nothing.",
            show_default=False,
        ),
    ] = None,
    output: Output = None,
    data: options.Data = None,
) -> None:
    """Make a token and show it, this once. A second one of the same name replaces it gently: revoke the first
    when nobody shows it any more."""
    from roofleet_collector.keys.identity import Role

    kept = _kept(data)
    who = (options.label(name, "name"), Role(role.value))
    more: Any = {"lifetime_s": seconds_of(expires), "agent_ids": agent_id or ()}
    try:
        if made is None:
            _hand_over(kept.create(*who, **more), output)
            return
        new = kept.take((options.text_of(made) or "").strip(), *who, **more)
    except ValueError as error:
        raise UserError(str(error)) from None
    print(f"{name} may come in with it" if new else f"{name} came in with it before")


@tokens.command("list")
def list_tokens(data: options.Data = None, json_output: options.Json = False) -> None:
    """List all tokens, the expired and the revoked ones too; a token itself is never shown again."""
    now = time.time()
    listed = [
        {
            "token_id": token.token_id,
            "name": token.name,
            "role": token.role.value,
            "created_at": _when(token.created_at),
            "expires_at": _when(token.expires_at),
            "revoked_at": _when(token.revoked_at),
            "refused": token.refusal(now),
        }
        for token in _kept(data).listed()
    ]
    if json_output:
        print(json.dumps(listed, indent=1))
        return
    if not listed:
        console.err().print("there are no tokens: nobody is asked for one")
        return
    rows = [
        [
            t["token_id"],
            t["name"],
            t["role"],
            t["created_at"],
            t["expires_at"] or "never",
            t["refused"] or "open",
        ]
        for t in listed
    ]
    console.out().print(
        console.table(None, ["id", "name", "role", "made", "expires", "state"], _texts(rows), right=[])
    )


@tokens.command()
def revoke(
    which: Annotated[str, typer.Argument(metavar="ID|NAME", help="A token's id, or the name of several.")],
    data: options.Data = None,
) -> None:
    """Revoke a token, or all of a name; a collector that runs ends what they have open in a second or two."""
    gone = _kept(data).revoke(which)
    if not gone:
        console.err().print(f"no token that is open has the id or the name {which!r}", markup=False)
        raise typer.Exit(FAILED)
    print(f"revoked {', '.join(f'{token.token_id} ({token.name}, {token.role})' for token in gone)}")


@tokens.command("join-code")
def join_code(
    name: Name,
    valid: Annotated[
        str, typer.Option("--valid", metavar="TIME", help="How long the code can be used: 30m, 12h.")
    ] = "1h",
    expires: Annotated[
        str, typer.Option("--expires", metavar="TIME", help="How long its token is good: 90d, or never.")
    ] = "never",
    tls_cert: Annotated[
        Path | None,
        typer.Option(
            "--tls-cert",
            metavar="FILE",
            help="The collector's certificate, by which the host will know it. Default: that of the "
            "collector that runs on the data folder.",
            show_default=False,
        ),
    ] = None,
    output: Output = None,
    data: options.Data = None,
) -> None:
    """Make a code that a host exchanges, once, for its agent's token: `roofleet agent join CODE`.

    The code also says what certificate the collector has, so that the host needs nothing else.
    """
    from roofleet_collector.keys.tls import fingerprint
    from roofleet_collector.presence import running_collector

    valid_s = seconds_of(valid)
    running = running_collector(data_folder(data))
    if tls_cert is None and running is not None and running.tls_cert is not None:
        tls_cert = Path(running.tls_cert)
    known_by = "" if tls_cert is None else f".{fingerprint(tls_cert)}"
    if valid_s is None:
        raise UserError("a code that never expires is a token: give --valid a time")
    try:
        code = _kept(data).join_code(
            options.label(name, "name"), valid_s=valid_s, lifetime_s=seconds_of(expires)
        )
    except ValueError as error:
        raise UserError(str(error)) from None
    _hand_over(code + known_by, output)


def seconds_of(text: str) -> float | None:
    """The seconds of `90d`, `12h`, `30m` or `10s`; None for `never`; UserError for anything else."""
    if text == "never":
        return None
    found = re.fullmatch(r"(\d{1,6})([smhd])", text)
    if found is None or int(found[1]) == 0:
        raise UserError(f"{text!r} is no time: write 10s, 30m, 12h, 90d or never")
    return int(found[1]) * _UNITS[found[2]]


def _kept(data: Path | None) -> Any:
    from roofleet_collector.keys.tokens import Tokens

    return Tokens(data_folder(data))


def _hand_over(secret: str, output: Path | None) -> None:
    from roofleet_proto.door import write_secret

    if output is None:
        print(secret)
        return
    try:
        write_secret(output, secret)
    except OSError as error:
        raise UserError(f"{output} cannot be written: {error.strerror}") from None
    print(f"written to {output}")


def _when(at: float | None) -> str | None:
    return None if at is None else datetime.fromtimestamp(at, UTC).isoformat(sep=" ", timespec="minutes")


def _texts(rows: list[list[Any]]) -> list[list[str]]:
    from rich.markup import escape

    return [[escape(str(cell)) for cell in row] for row in rows]
