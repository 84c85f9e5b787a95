"""A collector that is met for the first time, recognised by the digest of its certificate."""

from __future__ import annotations

import hmac
import ssl
from pathlib import Path

from roofleet.errors import UNREACHABLE, UserError
from roofleet.naming.folders import address
from roofleet_proto.door import certificate_digest, write_secret

MET = "collector.pem"
ANSWER_S = 10.0


def recognized(collector: str, digest: str, folder: Path) -> Path:
    """A file with the certificate that the collector shows; UserError if it is not the one of that digest."""
    try:
        shown = ssl.get_server_certificate(address(collector), timeout=ANSWER_S)
    except OSError as error:
        raise UserError(f"no collector with TLS answers at {collector}: {error}", UNREACHABLE) from None
    if not hmac.compare_digest(certificate_digest(shown), digest):
        raise UserError(
            f"what answers at {collector} is not the collector that the code is for, or its certificate was "
            "rotated since: nothing was sent there. Make another code"
        )
    file = folder / MET
    write_secret(file, shown)
    return file
