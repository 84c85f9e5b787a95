"""What a collector needs before it listens where others reach it."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Sequence
from dataclasses import dataclass

from roofleet_collector.errors import Unprotected
from roofleet_collector.keys.tls import Certificates


@dataclass(frozen=True)
class Protection:
    """How a collector's doors are kept, and what its operator insists on doing without."""

    certificates: Certificates | None = None
    insecure_plaintext: bool = False
    insecure_no_tokens: bool = False

    def check(self, hosts: Sequence[str], have_tokens: bool) -> None:
        """Unprotected if a host is beyond loopback and something is missing that was not insisted on."""
        beyond = [host for host in hosts if not is_loopback(host)]
        if not beyond:
            return
        where = " and ".join(dict.fromkeys(beyond))
        if self.certificates is None and not self.insecure_plaintext:
            raise Unprotected(
                f"{where} is reached from other machines, which could read and change what is sent: give "
                "--tls-cert and --tls-key (`roofleet certs init` and `roofleet certs issue` make them), or "
                "insist with --insecure-plaintext"
            )
        if not have_tokens and not self.insecure_no_tokens:
            raise Unprotected(
                f"{where} is reached from other machines, where anybody could read, write and delete: make a "
                "token with `roofleet tokens create NAME --role ROLE`, or insist with --insecure-no-tokens"
            )

    def told(self, have_tokens: bool) -> str:
        """The same in a few words, for the line that says where it listens."""
        words = ["no TLS"]
        if self.certificates is not None:
            words = ["mutual TLS" if self.certificates.ca else "TLS"]
        words.append("tokens are asked for" if have_tokens else "open, no tokens are asked for")
        return ", ".join(words)


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches that host."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        pass
    try:
        found = {str(entry[4][0]) for entry in socket.getaddrinfo(host, None)}
    except OSError:
        return False
    return bool(found) and all(ipaddress.ip_address(text.partition("%")[0]).is_loopback for text in found)
