"""`roofleet agent install`, `collector install`, `dashboard install`, and `uninstall`: units for systemd."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from roofleet.commands.given import Given, given
from roofleet.errors import UserError
from roofleet.installing.placing import place, take_away
from roofleet.installing.unit import Role, Unit
from roofleet.naming.folders import DEFAULT_GRPC, address

SYSTEM_UNITS, SYSTEM_USERS = Path("/etc/systemd/system"), Path("/etc/sysusers.d")
HIDDEN = ("/home", "/root", "/run/user", "/tmp", "/var/tmp")
"""What a unit of the system does not see, by ProtectHome and PrivateTmp."""
LOOPBACK = ("localhost", "127.0.0.1", "::1")
CREDENTIALS = "${CREDENTIALS_DIRECTORY}"

OfUser = Annotated[bool, typer.Option("--user", help="A unit of your own, without root.")]
Units = Annotated[
    Path | None,
    typer.Option(
        "--units",
        metavar="FOLDER",
        help="Where units lie, as for a package. Default: where systemd looks.",
        show_default=False,
        file_okay=False,
    ),
]


def installing(command: typer.Typer, role: Role) -> None:
    """Gives a command `install` and `uninstall`."""

    @command.command(
        context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
        help=f"Write a hardened systemd unit that runs `roofleet {role}`, and say what is left to do.\n\n"
        f"Options of `roofleet {role}` that follow are read as that reads them, and go into the unit. "
        "Secrets do not: files that options name are given to the unit by LoadCredential, and only root "
        "need read them.",
    )
    def install(
        context: typer.Context,
        of_user: OfUser = False,
        shown: Annotated[
            bool, typer.Option("--print", "--dry-run", help="Print the files, and write nothing.")
        ] = False,
        force: Annotated[bool, typer.Option("--force", help="Replace a unit that differs.")] = False,
        program: Annotated[
            Path | None,
            typer.Option(
                "--program",
                metavar="FILE",
                help="The `roofleet` that the unit runs. Default: this one.",
                show_default=False,
            ),
        ] = None,
        units: Units = None,
    ) -> None:
        asked = given(command, role, context.args)
        unit = unit_for(role, asked, program, of_user)
        if not (of_user or shown or units):
            _check_seen(unit, program)
        files = _files(unit, units)
        if shown:
            for file, text in files.items():
                print(f"# {file}\n{text}")
            return
        for file, what in place(files, force=force).items():
            print(f"{file} {what}")
        where = "your user data folder" if of_user and unit.data is None else unit.folder
        print(f"It runs `roofleet {role}` as {'you' if of_user else unit.name}, with its data in {where}.")
        print("Next:\n" + "\n".join(f"  {line}" for line in _next(unit, asked)))

    @command.command(help=f"Remove the unit of `roofleet {role}`. What it has stored is left.")
    def uninstall(
        of_user: OfUser = False,
        force: Annotated[bool, typer.Option("--force", help="Also a file of somebody else.")] = False,
        units: Units = None,
    ) -> None:
        unit = Unit(role, (), of_user=of_user)
        files = list(_files(unit, units))
        gone = take_away(files, force=force)
        if not gone:
            raise UserError(f"there is no {files[0]}: nothing was installed")
        link = files[0].parent / f"{unit.target}.wants" / unit.file_name  # what `systemctl enable` made
        link.unlink(missing_ok=True)
        for file in gone:
            print(f"{file} removed")
        scope = " --user" if of_user else ""
        print(f"Next:\n  systemctl{scope} stop {unit.name}\n  systemctl{scope} daemon-reload")
        if not of_user:
            print(f"The user {unit.name} and the folder {unit.folder} are left.")


def unit_for(role: Role, asked: Given, program: Path | None, of_user: bool) -> Unit:
    """The unit for options that were given."""
    if role is Role.dashboard and not of_user and asked.values.get("server") is None:
        raise UserError("a dashboard of the system shows a collector's runs: give --server HOST:PORT")
    if role is Role.collector:
        from roofleet_collector.policy import read_policy

        read_policy(Path(os.devnull), asked.values.get("keep") or ())
        if (asked.values.get("tls_cert") is None) != (asked.values.get("tls_key") is None):
            raise UserError("TLS needs a certificate and its key: give --tls-cert and --tls-key")
    data = asked.files.get("data")
    mine = data if data is not None else Unit(role, ()).folder
    passed = {
        name.replace("_", "-"): file
        for name, file in asked.files.items()
        if name != "data" and not of_user and not file.is_relative_to(mine)
    }
    words: list[str] = []
    for option, *value in asked.words:
        name = option.removeprefix("--")
        words += [option, f"{CREDENTIALS}/{name}"] if name in passed else [option, *value]
    return Unit(role, _program(program), tuple(words), passed, data, of_user)


def _program(named: Path | None) -> tuple[str, ...]:
    if named is not None:
        return (str(named.expanduser().absolute()),)
    beside = Path(sys.executable).with_name("roofleet")
    return (str(beside),) if beside.exists() else (sys.executable, "-m", "roofleet")


def _check_seen(unit: Unit, named: Path | None) -> None:
    """UserError for what a unit of the system would not find."""
    if not os.access(unit.program[0], os.X_OK):
        raise UserError(f"{unit.program[0]} is no program: name the `roofleet` that is to run with --program")
    interpreter = (
        [] if named else [str(Path(sys.executable).resolve())]
    )  # a virtual environment only links to it
    for needed in (unit.program[0], *interpreter, *([str(unit.data)] if unit.data else [])):
        for hidden in HIDDEN:
            if Path(needed).is_relative_to(hidden):
                raise UserError(
                    f"{needed} lies in {hidden}, which services of the system do not see: put it elsewhere, "
                    "such as into /opt/roofleet, or write a unit of your own with --user"
                )


def _files(unit: Unit, units: Path | None) -> dict[Path, str]:
    """The files of a unit and their text."""
    if unit.of_user:
        own = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "systemd/user"
        return {(units or own) / unit.file_name: unit.text()}
    users = units.parent / "sysusers.d" if units else SYSTEM_USERS
    return {
        (units or SYSTEM_UNITS) / unit.file_name: unit.text(),
        users / f"{unit.name}.conf": unit.user_text(),
    }


def _next(unit: Unit, asked: Given) -> list[str]:
    """The commands that are left to do, in their order."""
    scope = "--user " if unit.of_user else ""
    lines = []
    program = shlex.join(unit.program)
    if not unit.of_user:
        lines += [
            "systemd-sysusers",
            f"install -d -m 0700 -o {unit.name} -g {unit.name} {shlex.quote(str(unit.folder))}",
        ]
        program = f"runuser -u {unit.name} -- {program}"
    data = f" --data {shlex.quote(str(unit.folder))}" if not unit.of_user or unit.data else ""
    values = asked.values
    if unit.role is Role.agent and values.get("token_file") is None:
        collector = values.get("collector") or DEFAULT_GRPC
        lines.append(f"{program} agent join CODE --collector {collector}{data}   # if it asks for tokens")
    doors = [address(values[door])[0] for door in ("grpc", "sql") if door in values]
    if unit.role is Role.collector and not set(doors) <= set(LOOPBACK):
        lines.append(f"{program} tokens create NAME --role admin{data}")
    lines.append(f"systemctl {scope}daemon-reload")
    lines.append(f"systemctl {scope}enable --now {unit.name}")
    if unit.of_user:
        lines.append("loginctl enable-linger   # so that it stays when you log out")
    if unit.credentials:
        lines.append(f"systemctl {scope}restart {unit.name}   # whenever one of the files is renewed")
    return lines
