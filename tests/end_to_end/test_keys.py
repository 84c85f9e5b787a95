"""Keys from the command line: tokens, one-time codes, certificates, and doors that open to their owners."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

import pytest
from tests.processes import running
from tests.support import collector, eventually, roofleet, start_collector

import roofleet as api
from roofleet.asking.source import FlightSource
from roofleet.errors import UserError
from roofleet_proto.door import Door

WAY = ("ROOFLEET_TLS_CA", "ROOFLEET_TLS_CERT", "ROOFLEET_TLS_KEY", "ROOFLEET_TOKEN", "ROOFLEET_TOKEN_FILE")


def out_of(*arguments: str, data: Path, **env: str) -> str:
    """What a command prints; it has to succeed."""
    done = roofleet(*arguments, data=data, **env)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_doors_close_with_the_first_token(tmp_path: Path) -> None:
    """A collector that is open to its single user asks for tokens as soon as there is one, and a command in
    the folder of its data goes on without."""
    data = tmp_path / "data"
    with collector(data) as open_to_all:
        with api.connect(open_to_all.sql) as connection:
            assert connection.sql("SELECT 1 AS a").to_pylist() == [{"a": 1}]
        token = out_of("tokens", "create", "anna", "--role", "reader", data=data)

        def is_asked() -> bool:
            try:
                with api.connect(open_to_all.sql) as connection:
                    connection.sql("SELECT 1")
            except UserError as error:
                return "no token was given" in str(error)
            return False

        eventually(is_asked)
        asked = ("sql", "SELECT 41 + 1 AS a", "--format", "csv")
        server = ("--server", open_to_all.sql)
        assert out_of(*asked, *server, data=tmp_path, ROOFLEET_TOKEN=token).split() == ["a", "42"]
        file = tmp_path / "token"
        file.write_text(token + "\n")
        assert out_of(*asked, *server, "--token-file", str(file), data=tmp_path).split() == ["a", "42"]
        assert out_of(*asked, data=data).split() == ["a", "42"]  # who owns the folder needs no token
        refused = roofleet(*asked, *server, data=tmp_path)
        assert refused.returncode == 2
        assert "lets nobody in" in refused.stderr
        assert token not in refused.stderr
        listed = out_of("tokens", "list", data=data)
        assert "anna" in listed
        assert token not in listed
        out_of("tokens", "revoke", "anna", data=data)
        eventually(lambda: roofleet(*asked, *server, data=tmp_path, ROOFLEET_TOKEN=token).returncode == 2)


def test_a_collector_says_how_it_is_to_who_owns_its_folder(tmp_path: Path) -> None:
    """`collector health` gets through TLS and tokens, as probes of a container have to, and a token that was
    made elsewhere opens the doors; without a collector the status is 3."""
    pytest.importorskip("cryptography")
    data = tmp_path / "data"
    for command in (("certs", "init"), ("certs", "issue", "fleet")):
        out_of(*command, data=data)
    made = tmp_path / "made"
    made.write_text("rft_0a1b2c3d_" + "x" * 43 + "\n")
    take = ("tokens", "create", "nodes", "--role", "agent", "--from", str(made))
    assert "may come in" in out_of(*take, data=data)
    assert "before" in out_of(*take, data=data)
    keys = ("--tls-cert", str(data / "certs/fleet.pem"), "--tls-key", str(data / "certs/fleet.key"))
    with collector(data, *keys):
        assert out_of("collector", "health", data=data) == "rows can be stored"
    away = roofleet("collector", "health", data=data)
    assert (away.returncode, "does not answer" in away.stderr) == (3, True)


@pytest.mark.parametrize(
    ("options", "said"), [((), "--insecure-plaintext"), (("--insecure-plaintext",), "tokens")]
)
def test_a_collector_opens_to_others_with_keys_only(
    tmp_path: Path, options: tuple[str, ...], said: str
) -> None:
    """Beyond loopback it does not start without TLS and tokens, and says what to do; insisted on, it does."""
    everywhere = ("collector", "--grpc", "0.0.0.0:0", "--sql", "0.0.0.0:0")
    refused = roofleet(*everywhere, *options, data=tmp_path)
    assert refused.returncode == 2
    assert said in refused.stderr


def test_a_token_is_not_sent_in_plain_text(tmp_path: Path) -> None:
    """Beyond this machine a token goes through TLS, or the caller insists."""
    asked = ("sql", "SELECT 1", "--server", "fleet.invalid:7701")
    refused = roofleet(*asked, data=tmp_path, ROOFLEET_TOKEN="secret-token")
    assert refused.returncode == 2
    assert "plain text" in refused.stderr
    assert "secret-token" not in refused.stderr


def test_a_host_joins_with_a_code_over_mutual_tls(tmp_path: Path) -> None:
    """Three lines: an authority, a code, `agent join`. The agent then writes with its own token, callers
    without a certificate are shut out, and a certificate that is rotated is taken up while all goes on."""
    pytest.importorskip("cryptography")
    data, host, certs = tmp_path / "data", tmp_path / "host", tmp_path / "certs"
    here = ("--certs", str(certs))
    for command in (("init",), ("issue", "collector"), ("issue", "lab1")):
        out_of("certs", *command, *here, data=data)
    assert stat.S_IMODE((certs / "lab1.key").stat().st_mode) == 0o600
    tls = ("--tls-ca", str(certs / "ca.pem"))
    shows = ("--tls-cert", str(certs / "collector.pem"), "--tls-key", str(certs / "collector.key"))
    own = ("--tls-cert", str(certs / "lab1.pem"), "--tls-key", str(certs / "lab1.key"))
    reader = out_of("tokens", "create", "anna", "--role", "reader", data=data)
    code = out_of("tokens", "join-code", "lab1", data=data)
    with collector(data, *shows, *tls) as fleet:
        joining = ("agent", "join", code, "--collector", fleet.grpc, *tls, *own)
        assert "lab1" in out_of(*joining, data=host)
        assert stat.S_IMODE((host / "agent.token").stat().st_mode) == 0o600
        again = roofleet(*joining, data=host)
        assert again.returncode == 2
        assert "used before" in again.stderr
        other = tmp_path / "other"
        known = out_of("tokens", "join-code", "lab2", data=data)
        join = ("agent", "join", "--collector", fleet.grpc, *own)
        strange = roofleet(*join, known[:-1] + ("0" if known[-1] != "0" else "1"), data=other)
        assert "not the collector that the code is for" in strange.stderr
        assert "lab2" in out_of(*join, known, data=other)  # without --tls-ca: the code says whom to trust
        assert (other / "agent-ca.pem").read_text() == (certs / "ca.pem").read_text()

        ask = ("sql", "SELECT count(*) AS n FROM readings", "--format", "csv", "--server", fleet.sql)

        def readings() -> int:
            return int(out_of(*ask, *tls, *own, data=tmp_path, ROOFLEET_TOKEN=reader).split()[1])

        command = ("-m", "roofleet", "agent", "--collector", fleet.grpc, "--data", str(host), *tls, *own)
        with running(*command) as agent:
            eventually(lambda: readings() > 0)
            before = (certs / "collector.pem").read_bytes()
            out_of("certs", "rotate", "collector", *here, data=data)
            assert (certs / "collector.pem").read_bytes() != before
            eventually(lambda: _shown(fleet.grpc) == _shown(fleet.sql) == _first(certs / "collector.pem"))
            count = readings()
            eventually(lambda: readings() > count)
            agent.terminate()
            assert agent.wait() == 0
        assert (
            roofleet(*ask, *tls, data=tmp_path, ROOFLEET_TOKEN=reader).returncode == 3
        )  # without a certificate
        strange = ("--tls-ca", str(_another_authority(tmp_path)))
        assert roofleet(*ask, *strange, *own, data=tmp_path, ROOFLEET_TOKEN=reader).returncode == 3
        assert roofleet(*ask, data=tmp_path).returncode == 3  # without TLS


def _first(file: Path) -> str:
    end = "-----END CERTIFICATE-----\n"
    return file.read_text().split(end)[0] + end


def _shown(address: str) -> str:
    """The certificate that a door shows."""
    import ssl

    host, _, port = address.rpartition(":")
    try:
        return ssl.get_server_certificate((host, int(port)))
    except OSError:
        return ""


def _another_authority(folder: Path) -> Path:
    out_of("certs", "init", "--certs", str(folder / "strange"), data=folder)
    return folder / "strange" / "ca.pem"


def test_certificates_are_made_once(tmp_path: Path) -> None:
    """Neither an authority nor a certificate is overwritten by mistake; paths are no names."""
    pytest.importorskip("cryptography")
    here = ("--certs", str(tmp_path / "certs"))
    assert roofleet("certs", "issue", "lab1", *here, data=tmp_path).returncode == 2
    out_of("certs", "init", *here, data=tmp_path)
    out_of("certs", "issue", "lab1", "--host", "10.0.0.7", *here, data=tmp_path)
    for wrong in (("init",), ("issue", "lab1"), ("issue", "../x"), ("issue", "ca"), ("rotate", "lab2")):
        assert roofleet("certs", *wrong, *here, data=tmp_path).returncode == 2
    assert "10.0.0.7" in out_of("certs", "list", *here, data=tmp_path)


def test_the_wrong_key_is_told(tmp_path: Path) -> None:
    """A certificate with another's key does not start a collector."""
    pytest.importorskip("cryptography")
    certs = tmp_path / "certs"
    for command in (("init",), ("issue", "a"), ("issue", "b")):
        out_of("certs", *command, "--certs", str(certs), data=tmp_path)
    with pytest.raises(AssertionError, match="cannot be used as certificate and key"):
        start_collector(
            tmp_path / "data",
            *(
                "127.0.0.1:0",
                "127.0.0.1:0",
                "--tls-cert",
                str(certs / "a.pem"),
                "--tls-key",
                str(certs / "b.key"),
            ),
        )


def test_the_dashboard_hands_on_its_users_rights(tmp_path: Path) -> None:
    """Where the collector asks for tokens users log in with theirs: a reader sees the pages until the token
    is revoked, an agent or a stranger does not. A folder with tokens is as a collector."""
    pytest.importorskip("dash")
    from roofleet.asking.entry import FolderEntry, ServerEntry
    from roofleet_dashboard.app import create_app
    from roofleet_dashboard.source import NotLetIn, SourceError

    data = tmp_path / "data"
    anna, lab1 = (
        out_of("tokens", "create", name, "--role", role, data=data)
        for name, role in (("anna", "reader"), ("lab1", "agent"))
    )
    with collector(data) as fleet:
        server = ServerEntry(fleet.sql, Door())
        for entry in (server, FolderEntry(data)):
            assert entry.is_asked()
            for wrong in (lab1, "rft_00000000_" + "A" * 43, "", "é"):
                with pytest.raises(NotLetIn):
                    entry.enter(wrong)
        sources = [entry.enter(anna) for entry in (server, FolderEntry(data))]
        for source in sources:
            assert source.query("SELECT 42 AS a").to_pylist() == [{"a": 42}]
        browser = create_app(FlightSource(fleet.sql), entry=server).server.test_client()
        assert browser.get("/").status_code == 302
        assert browser.post("/login", data={"token": lab1}).status_code == 401
        assert browser.post("/login", data={"token": anna}).status_code == 302
        assert browser.get("/").status_code == 200
        out_of("tokens", "revoke", "anna", data=data)

        def is_shut(source: Any) -> bool:
            try:
                source.query("SELECT 1")
            except NotLetIn:
                return True
            return False

        for source in sources:
            eventually(lambda source=source: is_shut(source))
    with collector(tmp_path / "open") as fleet:
        assert not ServerEntry(fleet.sql, Door()).is_asked()
        beyond = ServerEntry(fleet.sql, Door(), always=True)
        assert beyond.is_asked()
        with pytest.raises(SourceError, match="asks nobody"):
            beyond.enter("anything")


BEYOND = ("dashboard", "--listen", "0.0.0.0:0")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ((), "proxy with TLS"),
        (("--insecure-plaintext",), "--insecure-no-login"),
        (("--insecure-plaintext", "--server", "127.0.0.1:9"), "--insecure-no-login"),
    ],
)
def test_the_dashboard_opens_to_others_with_a_login_only(
    tmp_path: Path, options: tuple[str, ...], said: str
) -> None:
    """Beyond loopback it wants a proxy with TLS and a login, or its operator insists by name."""
    token = {"ROOFLEET_TOKEN": "anything"} if "--server" in options else {}
    refused = roofleet(*BEYOND, *options, data=tmp_path, **token)
    assert refused.returncode == 2
    assert said in refused.stderr
