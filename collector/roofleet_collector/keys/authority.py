"""A small private authority: a key that signs the certificates of a fleet's hosts, all in one folder."""

from __future__ import annotations

import contextlib
import datetime as dt
import ipaddress
import re
from collections.abc import Sequence
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from roofleet_collector.errors import KeysUnreadable
from roofleet_proto.door import write_secret

HERE = ("localhost", "127.0.0.1", "::1")
"""What every certificate is good for too, so that commands of the same machine find what they expect."""
_BEFORE = dt.timedelta(minutes=5)
"""Clocks of a fleet differ by this much, and a certificate is good at once all the same."""


class Authority:
    """An authority in a folder: `ca.pem` for everybody, `ca.key` for nobody else."""

    def __init__(self, folder: Path) -> None:
        """KeysUnreadable if there is none."""
        self.folder = folder
        try:
            self._cert = x509.load_pem_x509_certificate((folder / "ca.pem").read_bytes())
            key = serialization.load_pem_private_key((folder / "ca.key").read_bytes(), None)
        except (OSError, ValueError, TypeError) as error:
            why = error.strerror if isinstance(error, OSError) else error
            raise KeysUnreadable(
                f"{folder} holds no authority that can be used ({why}): `roofleet certs init` makes one"
            ) from None
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        self._key = key

    @staticmethod
    def make(folder: Path, name: str, days: int) -> Authority:
        """A new one. FileExistsError if the folder has one: what it has signed would no longer be trusted."""
        if (folder / "ca.key").exists() or (folder / "ca.pem").exists():
            raise FileExistsError(17, "there is an authority already", str(folder / "ca.pem"))
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        cert = (
            _lasting(x509.CertificateBuilder(), days)
            .subject_name(subject)
            .issuer_name(subject)
            .public_key(key.public_key())
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(signs=True), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .sign(key, hashes.SHA256())
        )
        write_secret(folder / "ca.key", _key_text(key))
        (folder / "ca.pem").write_bytes(cert.public_bytes(serialization.Encoding.PEM))
        return Authority(folder)

    def issue(self, name: str, hosts: Sequence[str], days: float) -> tuple[Path, Path]:
        """A certificate and its key for a host or a person, good for being called and for calling.

        FileExistsError if there is one of that name; ValueError for a name that is none.
        """
        cert, key = self._files(name)
        if cert.exists() or key.exists():
            raise FileExistsError(17, "there is one already; `roofleet certs rotate` renews it", str(cert))
        self._write(name, list(dict.fromkeys([name, *hosts, *HERE])), days)
        return cert, key

    def rotate(self, name: str, days: float) -> tuple[Path, Path]:
        """A new certificate and key in the place of those, good for the same hosts; FileNotFoundError if
        there are none."""
        cert, key = self._files(name)
        old = x509.load_pem_x509_certificate(cert.read_bytes())
        names = old.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        self._write(name, [str(each.value) for each in names], days)
        return cert, key

    def listed(self) -> list[tuple[str, list[str], dt.datetime]]:
        """Name, hosts and end of each certificate in the folder."""
        found = []
        for file in sorted(self.folder.glob("*.pem")):
            cert = x509.load_pem_x509_certificate(file.read_bytes())
            hosts: list[str] = []
            with contextlib.suppress(x509.ExtensionNotFound):
                names = cert.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
                hosts = [str(each.value) for each in names]
            found.append((file.stem, hosts, cert.not_valid_after_utc))
        return found

    def _files(self, name: str) -> tuple[Path, Path]:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", name) or name == "ca":
            raise ValueError(f"{name!r} cannot name a certificate: up to 64 letters, digits, dots and - can")
        return self.folder / f"{name}.pem", self.folder / f"{name}.key"

    def _write(self, name: str, hosts: Sequence[str], days: float) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        cert = (
            _lasting(x509.CertificateBuilder(), days)
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
            .issuer_name(self._cert.subject)
            .public_key(key.public_key())
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs=False), critical=True)
            .add_extension(
                x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]),
                critical=False,
            )
            .add_extension(x509.SubjectAlternativeName([_host(text) for text in hosts]), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False
            )
            .sign(self._key, hashes.SHA256())
        )
        pem = serialization.Encoding.PEM
        cert_file, key_file = self._files(name)
        # A server that looks in between finds two that do not fit together, and looks again.
        write_secret(key_file, _key_text(key))
        write_secret(cert_file, (cert.public_bytes(pem) + self._cert.public_bytes(pem)).decode())
        cert_file.chmod(0o644)


def _host(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        return x509.DNSName(text)


def _lasting(builder: x509.CertificateBuilder, days: float) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC)
    return (
        builder.serial_number(x509.random_serial_number())
        .not_valid_before(now - _BEFORE)
        .not_valid_after(now + dt.timedelta(days=days))
    )


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs,
        key_cert_sign=signs,
        crl_sign=signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _key_text(key: ec.EllipticCurvePrivateKey) -> str:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
