"""The text of a systemd unit for an agent, a collector or a dashboard, hardened (systemd.exec(5))."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from roofleet.errors import UserError

SIGN = "# Written by `roofleet {role} install`."
"""What its files begin with."""

Setting = tuple[str, str]


class Role(StrEnum):
    """Which of the processes that stay."""

    agent = "agent"
    collector = "collector"
    dashboard = "dashboard"


@dataclass(frozen=True)
class Unit:
    """A process as a unit, of the system or of one user.

    `program` is what is run, `arguments` what it is given; in these `${CREDENTIALS_DIRECTORY}/NAME` stands
    for the file that `credentials` has under that name. `data` is a folder that it writes to elsewhere than
    in its own below /var/lib.
    """

    role: Role
    program: tuple[str, ...]
    arguments: tuple[str, ...] = ()
    credentials: Mapping[str, Path] = field(default_factory=dict)
    data: Path | None = None
    of_user: bool = False

    @property
    def name(self) -> str:
        """Of the unit, of the user that it runs as, and of its folder below /var/lib."""
        return f"roofleet-{self.role}"

    @property
    def file_name(self) -> str:
        """Of the unit's file."""
        return f"{self.name}.service"

    @property
    def folder(self) -> Path:
        """Where its data lie."""
        return self.data or Path("/var/lib") / self.name

    @property
    def target(self) -> str:
        """What it is started with."""
        return "default.target" if self.of_user else "multi-user.target"

    def text(self) -> str:
        """The unit's file."""
        scope = " --user" if self.of_user else ""
        edit = f"Changes belong into `systemctl{scope} edit {self.name}`."
        lines = [f"{SIGN.format(role=self.role)} {edit}", "", "[Unit]"]
        lines += _lines([("Description", _DESCRIPTIONS[self.role])])
        if not self.of_user:
            lines += _lines([("Wants", "network-online.target"), ("After", "network-online.target")])
        lines += ["", "[Service]", *_lines(self._service())]
        return "\n".join([*lines, "", "[Install]", f"WantedBy={self.target}", ""])

    def user_text(self) -> str:
        """The file for systemd-sysusers that makes the user it runs as."""
        return f'{SIGN.format(role=self.role)}\nu {self.name} - "Roofleet {self.role}" {self.folder}\n'

    def _service(self) -> Iterator[Setting]:
        yield "Type", "exec"
        yield "ExecStart", " ".join(map(_word, (*self.program, self.role, *self.arguments)))
        if not self.of_user:
            yield "User", self.name
            yield "Environment", _quoted(f"ROOFLEET_DATA={self.folder}")
            if self.data is None:
                yield "StateDirectory", self.name
                yield "StateDirectoryMode", "0700"
            else:
                yield "ReadWritePaths", _quoted(str(self.data))
        yield from (("LoadCredential", f"{name}:{_path(file)}") for name, file in self.credentials.items())
        yield from _LIFE[self.role]
        yield from _FOR_ALL
        if not self.of_user:  # what a user's manager has not the rights to
            yield from _FOR_THE_SYSTEM
            yield from _DEVICES if self.role is Role.agent else _NO_DEVICES


_DESCRIPTIONS = {
    Role.agent: "Roofleet agent: readings and jobs of this host",
    Role.collector: "Roofleet collector: rows in, SQL out",
    Role.dashboard: "Roofleet dashboard",
}
_RESTART: tuple[Setting, ...] = (
    ("Restart", "on-failure"),
    ("RestartSec", "5"),
    ("#", "2 is a mistake in the options: starting again would make it again"),
    ("RestartPreventExitStatus", "2"),
    ("KillSignal", "SIGTERM"),
)
_LIFE: dict[Role, tuple[Setting, ...]] = {
    Role.agent: (
        *_RESTART,
        ("#", "the agent ends its jobs' processes itself, then writes and sends what is in its spool"),
        ("KillMode", "mixed"),
        ("TimeoutStopSec", "60"),
        ("#", "jobs run inside: one that runs out of memory ends, and the agent stays"),
        ("MemoryMax", "90%"),
        ("OOMPolicy", "continue"),
    ),
    Role.collector: (
        *_RESTART,
        ("#", "what is under way is committed before it ends"),
        ("KillMode", "mixed"),
        ("TimeoutStopSec", "120"),
        ("MemoryMax", "80%"),
        ("OOMPolicy", "continue"),
        ("LimitNOFILE", "65536"),
    ),
    Role.dashboard: (*_RESTART, ("TimeoutStopSec", "15"), ("MemoryMax", "25%")),
}
_FOR_ALL: tuple[Setting, ...] = (
    ("UMask", "0077"),
    ("NoNewPrivileges", "yes"),
    ("LockPersonality", "yes"),
    ("RestrictRealtime", "yes"),
    ("RestrictSUIDSGID", "yes"),
    ("RestrictNamespaces", "yes"),
    ("RestrictAddressFamilies", "AF_UNIX AF_INET AF_INET6 AF_NETLINK"),
    ("SystemCallArchitectures", "native"),
    ("SystemCallFilter", "@system-service"),
    ("SystemCallFilter", "~@privileged"),
    ("SystemCallErrorNumber", "EPERM"),
)
_FOR_THE_SYSTEM: tuple[Setting, ...] = (
    ("CapabilityBoundingSet", ""),
    ("AmbientCapabilities", ""),
    ("ProtectSystem", "strict"),
    ("ProtectHome", "yes"),
    ("PrivateTmp", "yes"),
    ("ProtectClock", "yes"),
    ("ProtectHostname", "yes"),
    ("ProtectKernelLogs", "yes"),
    ("ProtectKernelModules", "yes"),
    ("ProtectKernelTunables", "yes"),
    ("ProtectControlGroups", "yes"),
    ("RemoveIPC", "yes"),
    ("KeyringMode", "private"),
)
_DEVICES: tuple[Setting, ...] = (
    ("#", "GPUs and nothing else: NVIDIA's, AMD's compute, and what draws; groups as in /proc/devices"),
    ("DevicePolicy", "closed"),
    ("DeviceAllow", "char-nvidia* rw"),
    ("DeviceAllow", "char-kfd rw"),
    ("DeviceAllow", "char-drm rw"),
    ("DeviceAllow", "char-accel rw"),
    ("SupplementaryGroups", "video render"),
)
_NO_DEVICES: tuple[Setting, ...] = (
    ("PrivateDevices", "yes"),
    ("ProtectProc", "invisible"),
)


def _lines(settings: Sequence[Setting] | Iterator[Setting]) -> list[str]:
    return [f"# {value}" if name == "#" else f"{name}={value}" for name, value in settings]


def _word(text: str) -> str:
    """A word of a command line as systemd reads it (systemd.service(5)); see `_quoted`."""
    credential = "${CREDENTIALS_DIRECTORY}/"
    if text.startswith(credential):
        return credential + _word(text.removeprefix(credential))
    return _quoted(text.replace("$", "$$"))


def _quoted(text: str) -> str:
    """A word of a setting; UserError for one that a line cannot hold."""
    if not text.isprintable():
        raise UserError(f"{text!r} cannot stand in a unit: it has a sign that is not printed")
    text = text.replace("%", "%%")
    if not text or set(text) & set(" \t\"'\\;"):
        text = '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return text


def _path(file: Path) -> str:
    """A path that is no word of a command line: only what systemd would replace in it is marked."""
    if not str(file).isprintable() or ":" in str(file):
        raise UserError(f"{str(file)!r} cannot stand in a unit: name a file without colons and line breaks")
    return str(file).replace("%", "%%")
