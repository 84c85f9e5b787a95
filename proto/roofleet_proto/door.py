"""How a collector's doors are reached: the token that is shown there, and the certificates."""

from __future__ import annotations

import contextlib
import hashlib
import ipaddress
import os
import ssl
from dataclasses import dataclass, field
from pathlib import Path

SYSTEM = Path("system")
"""Instead of a file: the authorities that this machine trusts."""


class NoEntry(ValueError):
    """What was given to reach a collector cannot be used; the message says why."""


@dataclass(frozen=True)
class Door:
    """What a caller brings along.

    `tls_ca` holds the authorities that the collector's certificate may be from; SYSTEM are those that this
    machine trusts. `tls_cert` and `tls_key` are the caller's own certificate, for collectors that ask for
    one. Either means TLS.
    """

    token: str | None = field(default=None, repr=False)
    token_file: Path | None = None
    tls_ca: Path | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None
    insecure_plaintext: bool = False

    @property
    def tls(self) -> bool:
        """Whether the way is encrypted."""
        return self.tls_ca is not None or self.tls_cert is not None

    def check(self) -> None:
        """NoEntry if the parts do not fit together or a file cannot be read."""
        if (self.tls_cert is None) != (self.tls_key is None):
            raise NoEntry("a certificate of your own is two files: give --tls-cert and --tls-key")
        self.shown()
        self.pem(self.tls_ca), self.pem(self.tls_cert), self.pem(self.tls_key)

    def shown(self) -> str | None:
        """The token, read anew from its file each time, so that a renewed one is taken up; None without."""
        if self.token is not None or self.token_file is None:
            return self.token
        text = _read(self.token_file, "token").decode("ascii", "replace").strip()
        if not text or not text.isascii() or len(text.split()) != 1:
            raise NoEntry(f"{self.token_file} holds no token: one line of letters and digits is one")
        return text

    def shown_at(self, address: str) -> str | None:
        """The token for a collector at HOST:PORT; NoEntry if everybody on the way could read it."""
        token = self.shown()
        if token is None or self.tls or self.insecure_plaintext or is_here(address):
            return token
        raise NoEntry(
            f"a token is not sent to {address} in plain text: give --tls-ca FILE, or insist with "
            "--insecure-plaintext"
        )

    def pem(self, file: Path | None) -> bytes | None:
        """What a file holds; None without one, or for what the system trusts."""
        return None if file is None or file == SYSTEM else _read(file, "certificate")


PLAIN = Door()
"""Nothing is brought along: no token, and no TLS."""


def _read(file: Path, what: str) -> bytes:
    try:
        return file.expanduser().read_bytes()
    except OSError as error:
        raise NoEntry(f"the {what} in {file} cannot be read: {error.strerror}") from None


def is_here(address: str) -> bool:
    """Whether HOST:PORT is reached without leaving this machine."""
    host = address.rpartition(":")[0].removeprefix("[").removesuffix("]")
    if host in ("localhost", "0.0.0.0", "::") or address.startswith("unix:"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def certificate_digest(pem: str) -> str:
    """The SHA-256 of a certificate, by which it is recognised; ValueError if that is none."""
    return hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem)).hexdigest()


def write_secret(path: Path, text: str) -> None:
    """Writes a file that only its owner can read, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    with contextlib.suppress(FileNotFoundError):
        beside.unlink()
    with os.fdopen(os.open(beside, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)
