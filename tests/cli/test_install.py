"""`roofleet agent install` and its like: what units say, what is never in them, what is never lost."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from tests.support import roofleet

from roofleet.installing.unit import Role, Unit

PROGRAM = ("--program", "/opt/roofleet/bin/roofleet")


def printed(*arguments: str, data: Path) -> str:
    """What `install --print` prints; it has to succeed."""
    role, *options = arguments
    done = roofleet(role, "install", "--print", *PROGRAM, *options, data=data)
    assert done.returncode == 0, done.stderr
    return done.stdout


def command_of(text: str) -> str:
    """The command line of a unit."""
    return next(line for line in text.splitlines() if line.startswith("ExecStart="))


def test_options_go_into_the_unit_as_the_command_reads_them(tmp_path: Path) -> None:
    """What is given again stays so, switches have their own names, relative paths are made whole, and what
    systemd would replace or split is marked."""
    made = printed(
        *("agent", "--collector", "fleet:7700", "--label", "site=lab 1", "--label=rack=50%$x"),
        *("--no-jobs", "--spool-size", "1GiB", "--log-format", "json"),
        data=tmp_path,
    )
    assert command_of(made) == (
        "ExecStart=/opt/roofleet/bin/roofleet agent --collector fleet:7700 "
        '--label "site=lab 1" --label rack=50%%$$x --no-jobs --spool-size 1GiB --log-format json'
    )
    elsewhere = printed("collector", "--data", "store", data=tmp_path)
    assert f"--data {Path('store').absolute()}" in command_of(elsewhere)
    assert f"ReadWritePaths={Path('store').absolute()}" in elsewhere
    assert "StateDirectory" not in elsewhere


def test_a_unit_gets_secrets_by_file_from_systemd(tmp_path: Path) -> None:
    """Files that options name are loaded by systemd, so that the unit's user need not read them; those in the
    unit's own folder it reads itself, so that a rotated certificate is taken up."""
    keys = ("--tls-cert", "/etc/keys/a.pem", "--tls-key", "/etc/keys/a.key")
    made = printed("collector", "--grpc", "0.0.0.0:7700", *keys, data=tmp_path)
    assert "--tls-key ${CREDENTIALS_DIRECTORY}/tls-key" in command_of(made)
    assert "LoadCredential=tls-key:/etc/keys/a.key" in made
    own = "/var/lib/roofleet-collector/certs/a"
    made = printed("collector", "--tls-cert", f"{own}.pem", "--tls-key", f"{own}.key", data=tmp_path)
    assert f"--tls-key {own}.key" in command_of(made)
    assert "LoadCredential" not in made
    token = "rft_0a1b2c3d_" + "Zx9-_" * 8
    secret = roofleet("agent", "install", "--print", *PROGRAM, data=tmp_path, ROOFLEET_TOKEN=token).stdout
    assert token[14:] not in secret


def test_a_unit_is_hardened(tmp_path: Path) -> None:
    """A user of its own, a file system that it only reads, no privileges, bounded memory, a restart when it
    fails; a GPU's devices are an agent's alone. A user's own unit has what a user may set."""
    for role in Role:
        made = printed(role, *(("--server", "fleet:7701") if role is Role.dashboard else ()), data=tmp_path)
        for setting in (
            *(f"User=roofleet-{role}", f"StateDirectory=roofleet-{role}", "ProtectSystem=strict"),
            *("NoNewPrivileges=yes", "CapabilityBoundingSet=", "PrivateTmp=yes", "ProtectHome=yes"),
            *("SystemCallFilter=@system-service", "RestrictSUIDSGID=yes", "Restart=on-failure"),
            *("KillSignal=SIGTERM", "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK"),
        ):
            assert setting in made.splitlines(), (role, setting)
        assert "MemoryMax=" in made
        assert ("DeviceAllow=char-nvidia* rw" in made) == (role is Role.agent)
        assert ("PrivateDevices=yes" in made) != (role is Role.agent)
        mine = printed(role, "--user", data=tmp_path)
        assert "User=" not in mine
        assert "ProtectSystem" not in mine
        assert "NoNewPrivileges=yes" in mine
        assert "WantedBy=default.target" in mine


def test_what_the_command_would_refuse_is_not_installed(tmp_path: Path) -> None:
    """Unknown options, addresses that are none, limits out of range: nothing is written."""
    for role, options, said in (
        ("agent", ("--colector", "fleet:7700"), "No such option"),
        ("agent", ("--collector", "fleet"), "is no address"),
        ("agent", ("--label", "x"), "is no label"),
        ("agent", ("run",), "'run' is no option"),
        ("collector", ("--query-rows", "few"), "no whole number"),
        ("collector", ("--lease", "0"), "greater than or equal to 1"),
        ("dashboard", (), "--server"),
        ("agent", ("--collector", "a:1", "--config", "a\nb"), "cannot stand in a unit"),
    ):
        done = roofleet(role, "install", "--units", str(tmp_path / "units"), *options, data=tmp_path)
        assert done.returncode == 2, (options, done)
        assert said in done.stderr, (options, done.stderr)
    assert not (tmp_path / "units").exists()


def test_a_unit_that_was_changed_is_neither_lost_nor_removed_by_mistake(tmp_path: Path) -> None:
    """The same again changes nothing; another is refused and, with --force, put in its place; what somebody
    else wrote is not removed without --force, and what was stored never."""
    units = tmp_path / "systemd"
    install = ("agent", "install", "--units", str(units), *PROGRAM)
    uninstall = ("agent", "uninstall", "--units", str(units))
    first = roofleet(*install, "--collector", "fleet:7700", data=tmp_path)
    assert f"{units}/roofleet-agent.service written" in first.stdout
    assert "agent join CODE --collector fleet:7700 --data /var/lib/roofleet-agent" in first.stdout
    assert "systemctl enable --now roofleet-agent" in first.stdout
    assert "u roofleet-agent - " in (tmp_path / "sysusers.d/roofleet-agent.conf").read_text()
    again = roofleet(*install, "--collector", "fleet:7700", data=tmp_path)
    assert "was as it should be" in again.stdout
    before = (units / "roofleet-agent.service").read_text()
    other = roofleet(*install, "--collector", "other:7700", data=tmp_path)
    assert other.returncode == 2
    assert "--force" in other.stderr
    assert (units / "roofleet-agent.service").read_text() == before
    assert roofleet(*install, "--collector", "other:7700", "--force", data=tmp_path).returncode == 0
    assert "other:7700" in (units / "roofleet-agent.service").read_text()

    wants = units / "multi-user.target.wants"
    wants.mkdir()
    (wants / "roofleet-agent.service").symlink_to(units / "roofleet-agent.service")
    removed = roofleet(*uninstall, data=tmp_path)
    assert list(wants.iterdir()) == []
    assert f"{units}/roofleet-agent.service removed" in removed.stdout
    assert roofleet(*uninstall, data=tmp_path).returncode == 2
    (units / "roofleet-agent.service").write_text("[Service]\nExecStart=/bin/true\n")
    foreign = roofleet(*uninstall, data=tmp_path)
    assert "--force" in foreign.stderr
    assert (units / "roofleet-agent.service").exists()


def test_a_program_that_a_service_does_not_see_is_said_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a home or among temporary files the unit would not start; a user's own unit does."""
    program = tmp_path / "roofleet"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    at = ("--program", "/home/anna/roofleet/bin/roofleet")
    done = roofleet("collector", "install", *at, data=tmp_path)
    assert done.returncode == 2
    assert "is no program" in done.stderr
    monkeypatch.setattr("roofleet.commands.install.HIDDEN", (str(tmp_path),))
    done = roofleet("collector", "install", "--program", str(program), data=tmp_path)
    assert done.returncode == 2
    assert f"lies in {tmp_path}" in done.stderr
    home = {"XDG_CONFIG_HOME": str(tmp_path / "config"), "HOME": str(tmp_path)}
    done = roofleet("collector", "install", "--user", "--program", str(program), data=tmp_path, **home)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "config/systemd/user/roofleet-collector.service").exists()


@pytest.mark.parametrize("role", list(Role))
def test_systemd_takes_the_units(tmp_path: Path, role: Role) -> None:
    """`systemd-analyze verify` finds nothing, for odd arguments too, and rates the exposure as OK."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not here: no unit was checked")
    unit = Unit(role, ("/bin/sh",), ("--label", 'a b="50% $x;\\"'), {"token-file": Path("/etc/keys/t 1")})
    file = tmp_path / unit.file_name
    file.write_text(unit.text())
    analyze = ("systemd-analyze", "--no-pager")
    env = os.environ | {"SYSTEMD_LOG_LEVEL": "warning"}
    done = subprocess.run([*analyze, "verify", "--man=no", file], capture_output=True, text=True, env=env)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    rate = [*analyze, "security", "--offline=true", "--threshold=25", str(file)]
    done = subprocess.run(rate, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout.splitlines()[-1]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--keep", "banana=1d"), "banana"),
        (("--keep", "readings=3x"), "readings"),
        (("--tls-cert", "a.pem"), "--tls-key"),
    ],
)
def test_a_collector_that_would_not_start_is_not_installed(
    tmp_path: Path, options: tuple[str, ...], says: str
) -> None:
    """What the collector itself refuses at its start is refused by `install`, with the same words."""
    refused = roofleet("collector", "install", "--print", *options, data=tmp_path)
    assert refused.returncode == 2
    assert says in refused.stderr
