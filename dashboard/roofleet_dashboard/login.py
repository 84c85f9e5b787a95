"""A login: whoever shows a token sees the pages with the rights of that token."""

from __future__ import annotations

import html
import secrets
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import quote, urlsplit

import dash
import flask
import pyarrow as pa
from flask.sessions import SecureCookieSessionInterface

from roofleet_dashboard.source import NotLetIn, Source, SourceError

__all__ = ["Entry", "Logins", "UsersSource", "add_login"]

LASTS_S = 12 * 3600.0
SESSIONS = 1000
TRIES_PER_MINUTE = 30
_SESSION = "session"
_OPEN = ("/login", "/logout", "/assets/", "/_favicon.ico", "/_dash-component-suites/")


class Entry(Protocol):
    """What tokens are tried on."""

    def is_asked(self) -> bool:
        """Whether a token is needed at all."""
        ...

    def enter(self, token: str) -> Source:
        """The source as the owner of the token sees it. NotLetIn if it opens nothing, SourceError if that
        cannot be told."""
        ...


@dataclass
class _Session:
    source: Source
    until: float


class Logins:
    """Who is logged in. The browser keeps a signed number, the token stays here."""

    def __init__(self, entry: Entry, clock: Callable[[], float] = time.monotonic) -> None:
        self._entry, self._clock = entry, clock
        self._sessions: OrderedDict[str, _Session] = OrderedDict()
        self._minute = clock()
        self._tries: Counter[str] = Counter()
        self._lock = threading.Lock()

    def is_asked(self) -> bool:
        """Whether a login is needed."""
        return self._entry.is_asked()

    def enter(self, token: str, address: str = "") -> str:
        """Logs in from an address; the session's number. NotLetIn or SourceError if that cannot be."""
        with self._lock:
            if self._clock() - self._minute > 60:
                self._minute, self._tries = self._clock(), Counter()
            self._tries[address] += 1
            if self._tries[address] > TRIES_PER_MINUTE:
                raise SourceError("many tokens were tried just now: wait a minute")
        source = self._entry.enter(token)
        number = secrets.token_urlsafe(32)
        with self._lock:
            self._sessions[number] = _Session(source, self._clock() + LASTS_S)
            while len(self._sessions) > SESSIONS:
                self._sessions.popitem(last=False)
        return number

    def source_of(self, number: str | None) -> Source | None:
        """The source of a session; None if it is over, or none."""
        with self._lock:
            session = self._sessions.get(number or "")
            if session is None or session.until < self._clock():
                self._sessions.pop(number or "", None)
                return None
            return session.source

    def leave(self, number: str | None) -> None:
        """Logs out."""
        with self._lock:
            self._sessions.pop(number or "", None)


class UsersSource:
    """The source of whoever makes the request; the open one where nobody is asked to log in."""

    def __init__(self, logins: Logins, otherwise: Source) -> None:
        self._logins, self._otherwise = logins, otherwise

    def query(self, sql: str, parameters: Sequence[object] = ()) -> pa.Table:
        """See Source.query. A session whose token opens nothing any more is over."""
        if not flask.has_request_context() or not self._logins.is_asked():
            return self._otherwise.query(sql, parameters)
        number = flask.session.get(_SESSION)
        source = self._logins.source_of(number)
        if source is None:
            raise SourceError("log in to see this: load the page again")
        try:
            return source.query(sql, parameters)
        except NotLetIn:
            self._logins.leave(number)
            raise


class _Sessions(SecureCookieSessionInterface):
    """Keeps the cookie to TLS where a proxy says that it was asked by TLS."""

    def get_cookie_secure(self, app: flask.Flask) -> bool:
        """See SessionInterface."""
        return flask.request.is_secure or flask.request.headers.get("X-Forwarded-Proto") == "https"


def add_login(app: dash.Dash, logins: Logins) -> None:
    """Lets nobody past who has not logged in, where a login is asked for."""
    server: Any = app.server
    server.session_interface = _Sessions()
    server.secret_key = secrets.token_bytes(32)
    server.config.update(
        SESSION_COOKIE_NAME="roofleet", SESSION_COOKIE_HTTPONLY=True, SESSION_COOKIE_SAMESITE="Lax"
    )

    def check() -> Any:
        path = flask.request.path
        if path.startswith(_OPEN) or not logins.is_asked():
            return None
        if logins.source_of(flask.session.get(_SESSION)) is not None:
            return None
        if flask.request.method == "GET" and not path.startswith("/_"):
            return flask.redirect(f"/login?next={quote(flask.request.full_path.rstrip('?'), safe='/')}")
        return "log in first", 401

    def show() -> Any:
        return _page(flask.request.args.get("next", "/"), "")

    def enter() -> Any:
        origin = flask.request.headers.get("Origin")
        if origin and urlsplit(origin).netloc != flask.request.host:
            return "this form is sent from its own page only", 403
        following = flask.request.form.get("next", "/")
        try:
            number = logins.enter(
                flask.request.form.get("token", "").strip()[:500], flask.request.remote_addr or ""
            )
        except SourceError as error:
            return _page(following, str(error)), 401
        flask.session.clear()
        flask.session[_SESSION] = number
        return flask.redirect(_own_path(following))

    def leave() -> Any:
        logins.leave(flask.session.pop(_SESSION, None))
        return flask.redirect("/login")

    server.before_request(check)
    server.add_url_rule("/login", "login", show, methods=["GET"])
    server.add_url_rule("/login", "enter", enter, methods=["POST"])
    server.add_url_rule("/logout", "logout", leave, methods=["POST"])


def _own_path(text: str) -> str:
    """A path of this server; its root instead of anything that leads elsewhere."""
    parts = urlsplit(text)
    own = text.startswith("/") and not text.startswith("//") and not parts.netloc and "\\" not in text
    return text if own and text.isprintable() else "/"


def _page(following: str, problem: str) -> str:
    said = f'<p role="alert">{html.escape(problem)}</p>' if problem else ""
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Roofleet: log in</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="stylesheet" href="/assets/roofleet.css"></head>
<body class="rf-login"><main><h1>Roofleet</h1>
<p>This fleet asks who you are. Show the token that its operator gave you.</p>{said}
<form method="post" action="/login">
<input type="hidden" name="next" value="{html.escape(_own_path(following))}">
<label for="token">Token</label>
<input id="token" name="token" type="password" autocomplete="current-password" autofocus required>
<button type="submit">Log in</button></form></main></body></html>"""
