"""Certificates of the doors, read again when their files change."""

from __future__ import annotations

import logging
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

from roofleet_collector.errors import KeysUnreadable
from roofleet_proto.door import certificate_digest

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Pems:
    """What the files held at one moment."""

    cert: bytes
    key: bytes
    ca: bytes | None


@dataclass(frozen=True)
class Certificates:
    """Files of a door: its certificate with what leads to its authority, its key, and the authority that
    clients' certificates must be from; without one, clients need none."""

    cert: Path
    key: Path
    ca: Path | None = None

    def read(self) -> Pems:
        """What they hold; KeysUnreadable if they cannot be read or do not belong together."""
        try:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(self.cert, self.key, password=_no_password)
            if self.ca is not None:
                context.load_verify_locations(self.ca)
            return Pems(
                self.cert.read_bytes(), self.key.read_bytes(), self.ca.read_bytes() if self.ca else None
            )
        except (OSError, ValueError) as error:
            files = ", ".join(str(file) for file in (self.cert, self.key, self.ca) if file)
            why = error.strerror or str(error) if isinstance(error, OSError) else str(error)
            raise KeysUnreadable(f"{files} cannot be used as certificate and key: {why}") from None


def _no_password() -> str:
    raise ValueError("the key has a password: give one without, readable only by the collector")


class Renewing:
    """Certificates in use. What is written while files change, and does not fit together, is not taken up."""

    def __init__(self, files: Certificates) -> None:
        self.files = files
        self.pems = files.read()
        self._said = ""

    def renewed(self) -> bool:
        """Reads the files; whether they hold something else that can be used."""
        try:
            now = self.files.read()
        except KeysUnreadable as error:
            if str(error) != self._said:
                self._said = str(error)
                log.error("%s; the certificate known until now stays in use", error)
            return False
        self._said = ""
        if now == self.pems:
            return False
        self.pems = now
        log.info("took up the certificate in %s", self.files.cert)
        return True


def grpc_credentials(files: Certificates) -> Any:
    """Credentials of a gRPC server, which looks at the files again for each connection."""
    renewing = Renewing(files)

    def configuration(pems: Pems) -> Any:
        return grpc.ssl_server_certificate_configuration([(pems.key, pems.cert)], root_certificates=pems.ca)

    def fetch() -> Any:
        return configuration(renewing.pems) if renewing.renewed() else None

    return grpc.dynamic_ssl_server_credentials(
        configuration(renewing.pems), fetch, require_client_authentication=files.ca is not None
    )


def authority_of(chain: str) -> str:
    """What vouches for the first certificate of a chain in PEM: those after it, or else itself."""
    ends = "-----END CERTIFICATE-----"
    parts = [part.strip() + f"\n{ends}\n" for part in chain.split(ends)[:-1]]
    return "".join(parts[1:] or parts)


def fingerprint(cert: Path) -> str:
    """The SHA-256 of the certificate in a file, or of the first of several; KeysUnreadable without one."""
    try:
        first, end, _ = cert.read_text().partition("-----END CERTIFICATE-----")
        return certificate_digest(first[first.index("-----BEGIN") :] + end)
    except (OSError, ValueError) as error:
        raise KeysUnreadable(f"{cert} holds no certificate: {error}") from None
