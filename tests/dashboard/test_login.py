"""The dashboard's own door: a login where tokens are asked for, its names, headers and idle connections."""

from __future__ import annotations

import re
import socket
import threading
import urllib.request
from collections.abc import Sequence

import flask
import pyarrow as pa
import pytest

from roofleet_dashboard.app import CONNECTIONS, ROOMY, create_app, prepare_server
from roofleet_dashboard.guard import own_names
from roofleet_dashboard.login import SESSIONS, TRIES_PER_MINUTE, Logins, UsersSource
from roofleet_dashboard.source import NotLetIn, Source, SourceError


class Says:
    """A source that answers every query with its own name, until it is shut."""

    def __init__(self, name: str) -> None:
        self.name, self.shut = name, False

    def query(self, sql: str, parameters: Sequence[object] = ()) -> pa.Table:
        """One row."""
        if self.shut:
            raise NotLetIn("the token was revoked")
        return pa.table({"said": [self.name]})


class Tokens:
    """Tokens that open sources."""

    def __init__(self, **sources: Source) -> None:
        self.sources, self.asked = sources, True

    def is_asked(self) -> bool:
        """Whether it is switched on."""
        return self.asked

    def enter(self, token: str) -> Source:
        """The source of a token."""
        if token not in self.sources:
            raise NotLetIn("the token is not known here")
        return self.sources[token]


def client_of(tokens: Tokens):  # type: ignore[no-untyped-def]
    """A browser, before the pages of an app that asks for a login."""
    app = create_app(Says("nobody"), entry=tokens)
    return app.server.test_client()


PRIVATE = ("/", "/runs?run=a", "/_dash-layout", "/_dash-dependencies", "/no such page")


@pytest.mark.parametrize("path", PRIVATE)
def test_nobody_passes_without_a_login(path: str) -> None:
    """Every address that shows something leads to the login or is refused."""
    answer = client_of(Tokens()).get(path)
    assert answer.status_code in (302, 401)
    assert "Roofleet" not in answer.text or "/login" in answer.headers.get("Location", "")


def test_callbacks_need_a_login() -> None:
    """What a page would fetch is refused to somebody who is not logged in."""
    assert client_of(Tokens()).post("/_dash-update-component", json={}).status_code == 401


def test_a_token_logs_in_and_out() -> None:
    """The right token leads to the page that was asked for; the cookie holds no token; leaving ends it."""
    browser = client_of(Tokens(right=Says("anna")))
    wrong = browser.post("/login", data={"token": "wrong", "next": "/runs?run=a"})
    assert wrong.status_code == 401
    assert "not known here" in wrong.text
    entered = browser.post("/login", data={"token": "right", "next": "/runs?run=a"})
    assert (entered.status_code, entered.headers["Location"]) == (302, "/runs?run=a")
    cookie = entered.headers["Set-Cookie"]
    assert {"HttpOnly", "SameSite=Lax"} <= set(re.split(r"; *", cookie))
    assert "right" not in cookie
    behind_tls = {"X-Forwarded-Proto": "https"}
    assert (
        "Secure" in browser.post("/login", data={"token": "right"}, headers=behind_tls).headers["Set-Cookie"]
    )
    assert browser.get("/").status_code == 200
    browser.post("/logout")
    assert browser.get("/").status_code == 302


def test_a_made_up_cookie_is_no_login() -> None:
    """A session that this server did not sign is none."""
    browser = client_of(Tokens(right=Says("anna")))
    browser.set_cookie("roofleet", "eyJzZXNzaW9uIjoiMSJ9.aaaaaa.bbbbbbbbbbbbbbbbbbbbbbbbbbb")
    assert browser.get("/").status_code == 302


@pytest.mark.parametrize(
    "elsewhere", ["//evil.example", "https://evil.example/", "/\\evil.example", "evil", "/a\nb"]
)
def test_a_login_leads_nowhere_else(elsewhere: str) -> None:
    """A link to the login cannot send whoever logs in to another site."""
    entered = client_of(Tokens(right=Says("anna"))).post("/login", data={"token": "right", "next": elsewhere})
    assert entered.headers["Location"] == "/"


def test_a_form_of_another_site_does_not_log_in() -> None:
    """The form is taken from this server's own page only."""
    browser = client_of(Tokens(right=Says("anna")))
    answer = browser.post("/login", data={"token": "right"}, headers={"Origin": "http://evil.example"})
    assert answer.status_code == 403


def test_each_user_sees_with_their_own_rights() -> None:
    """What a callback asks is asked with the token of whoever is logged in; revoked, it ends the session."""
    anna = Says("anna")
    tokens = Tokens(anna=anna, bert=Says("bert"))
    app = create_app(Says("nobody"), entry=tokens)
    logins = Logins(tokens)
    source = UsersSource(logins, Says("nobody"))
    seen = []
    for number in (logins.enter("anna"), logins.enter("bert"), "made up"):
        with app.server.test_request_context("/"):
            flask.session["session"] = number
            try:
                seen.append(source.query("SELECT 1").column(0)[0].as_py())
            except SourceError as error:
                seen.append(str(error)[:6])
    assert seen == ["anna", "bert", "log in"]
    number = logins.enter("anna")
    anna.shut = True
    with app.server.test_request_context("/"):
        flask.session["session"] = number
        with pytest.raises(NotLetIn):
            source.query("SELECT 1")
    assert logins.source_of(number) is None


def test_logins_are_bounded() -> None:
    """Tries a minute and sessions are limited, and a session ends by itself."""
    now = [0.0]
    logins = Logins(Tokens(right=Says("anna")), clock=lambda: now[0])
    first = logins.enter("right")
    for _ in range(TRIES_PER_MINUTE - 1):
        logins.enter("right")
    with pytest.raises(SourceError, match="wait a minute"):
        logins.enter("right")
    logins.enter("right", "elsewhere")
    for _ in range(SESSIONS):
        now[0] += 61
        logins.enter("right")
    assert logins.source_of(first) is None
    now[0] += 61
    last = logins.enter("right")
    now[0] += 13 * 3600
    assert logins.source_of(last) is None


def test_where_nobody_is_asked_there_is_no_login() -> None:
    """A collector without tokens shows its pages at once."""
    tokens = Tokens()
    tokens.asked = False
    assert client_of(tokens).get("/").status_code == 200


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost:7702", 200),
        ("127.0.0.1:7702", 200),
        ("[::1]:7702", 200),
        ("fleet.example:7702", 200),
        ("evil.example", 421),
        ("localhost.evil.example", 421),
        ("", 421),
    ],
)
def test_other_names_are_not_answered(host: str, status: int) -> None:
    """A page elsewhere that gives its name this server's address reads nothing."""
    app = create_app(Says("x"), answers=own_names("127.0.0.1", ["fleet.example"]))
    assert app.server.test_client().get("/", headers={"Host": host}).status_code == status


def test_every_answer_tells_browsers_what_to_refuse() -> None:
    """Scripts from elsewhere, frames and guesses of types are refused, on pages and errors alike."""
    browser = client_of(Tokens())
    for path in ("/", "/login", "/assets/roofleet.css"):
        headers = browser.get(path).headers
        policy = headers["Content-Security-Policy"]
        assert "frame-ancestors 'none'" in policy
        assert "unsafe-eval" not in policy
        assert not re.search(r"script-src[^;]*unsafe-inline", policy)
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Referrer-Policy"] == "same-origin"


def test_idle_connections_do_not_block_the_pages() -> None:
    """With many more connections open than browsers have, half a request on each, a page comes."""
    server = prepare_server(create_app(Says("x")), port=0)
    thread = threading.Thread(target=server.run)
    thread.start()
    idle: list[socket.socket] = []
    try:
        for _ in range(ROOMY + 150):
            connection = socket.create_connection(("127.0.0.1", server.port))
            connection.sendall(b"GET / HTTP/1.1\r\nHost: local")
            idle.append(connection)
        assert len(idle) < CONNECTIONS
        with urllib.request.urlopen(f"http://127.0.0.1:{server.port}/", timeout=20) as answer:
            assert b"Roofleet" in answer.read()
    finally:
        for connection in idle:
            connection.close()
        server.stop()
        thread.join(30)
