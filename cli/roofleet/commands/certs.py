"""`roofleet certs`: certificates for a fleet that has no authority of its own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from roofleet import console
from roofleet.commands import options
from roofleet.errors import UserError, needs
from roofleet.naming.folders import data_folder

if TYPE_CHECKING:
    from roofleet_collector.keys.authority import Authority

certs = typer.Typer(
    help="Make a small private authority, and certificates for the hosts of a fleet.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
Folder = Annotated[
    Path | None,
    typer.Option(
        "--certs",
        metavar="FOLDER",
        help="Where the authority lies. Default: certs in the data folder.",
        show_default=False,
        file_okay=False,
    ),
]
Name = Annotated[str, typer.Argument(metavar="NAME", help="The host, or the person, that it is for.")]
Days = Annotated[int, typer.Option("--days", min=1, max=36_500, help="How long it is good.")]


@certs.command()
def init(
    name: Annotated[str, typer.Option("--name", help="What the authority is called.")] = "Roofleet authority",
    days: Days = 3650,
    certs: Folder = None,
    data: options.Data = None,
) -> None:
    """Make the authority: ca.pem, which every host gets, and ca.key, which stays here."""
    needs("certs", "cryptography")
    from roofleet_collector.keys.authority import Authority

    made = Authority.make(_folder(certs, data), options.label(name, "name"), days)
    print(f"made {made.folder / 'ca.pem'}: copy it to every host. Its key stays in {made.folder / 'ca.key'}")


@certs.command()
def issue(
    name: Name,
    host: Annotated[
        list[str] | None,
        typer.Option("--host", help="Another name or address of it; may be given again.", show_default=False),
    ] = None,
    days: Days = 365,
    certs: Folder = None,
    data: options.Data = None,
) -> None:
    """Make a certificate and its key, for a collector or for a caller that is asked for one."""
    try:
        cert, key = _authority(certs, data).issue(name, host or (), days)
    except ValueError as error:
        raise UserError(str(error)) from None
    print(f"made {cert} and {key}, good for {days} days")


@certs.command()
def rotate(
    name: Name,
    days: Days = 365,
    certs: Folder = None,
    data: options.Data = None,
) -> None:
    """Make them anew for the same hosts; a collector that uses these files takes them up by itself."""
    try:
        cert, key = _authority(certs, data).rotate(name, days)
    except ValueError as error:
        raise UserError(str(error)) from None
    print(f"renewed {cert} and {key}, good for {days} days")


@certs.command("list")
def list_certs(certs: Folder = None, data: options.Data = None) -> None:
    """List certificates, what they are good for, and until when."""
    rows = [
        [name, ", ".join(hosts), f"{end:%Y-%m-%d}"] for name, hosts, end in _authority(certs, data).listed()
    ]
    console.out().print(console.table(None, ["name", "hosts", "good until"], rows))


def _authority(certs: Path | None, data: Path | None) -> Authority:
    needs("certs", "cryptography")
    from roofleet_collector.keys.authority import Authority

    return Authority(_folder(certs, data))


def _folder(certs: Path | None, data: Path | None) -> Path:
    return certs if certs is not None else data_folder(data) / "certs"
