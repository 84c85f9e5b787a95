"""What stands before every page: which names it answers to, and what browsers are told to refuse."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable, Iterable
from typing import Any

import dash
from flask import Response, abort, request

__all__ = ["guard", "names_of", "own_names"]


def own_names(host: str, more: Iterable[str] = ()) -> Callable[[str], bool]:
    """Whether a Host header names a server that listens on `host`, or one of `more`.

    A page elsewhere can give its own name the address of this server, and would then be the same site to a
    browser; an address cannot be taken over so, hence all of them are answered.
    """
    known = {name.lower() for name in ("localhost", host, socket.gethostname(), *more)}

    def answers(given: str) -> bool:
        name = names_of(given)
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return name in known
        return True

    return answers


def names_of(host: str) -> str:
    """The name in a Host header, without its port."""
    name = host.strip().lower()
    if name.startswith("["):
        return name[1:].partition("]")[0]
    return name.rpartition(":")[0] if ":" in name else name


def guard(app: dash.Dash, answers: Callable[[str], bool]) -> None:
    """Refuses requests for other names, and adds headers to every answer."""
    headers: dict[str, str] = {}

    def check_host() -> None:
        if not answers(request.headers.get("Host", "")):
            abort(421, "This server does not have that name: start it with --host-name NAME to give it one.")

    def add_headers(response: Response) -> Response:
        if not headers:
            headers.update(_headers(app))
        for name, value in headers.items():
            response.headers.setdefault(name, value)
        return response

    server: Any = app.server
    server.before_request(check_host)
    server.after_request(add_headers)


def _headers(app: dash.Dash) -> dict[str, str]:
    scripts = " ".join(f"'{digest.strip(chr(39))}'" for digest in app.csp_hashes())
    policy = {
        "default-src": "'self'",
        "script-src": f"'self' {scripts}",
        "style-src": "'self' 'unsafe-inline'",  # components set styles as they are laid out
        "img-src": "'self' data: blob:",  # figures that are saved as images
        "font-src": "'self' data:",
        "worker-src": "'self' blob:",
        "object-src": "'none'",
        "base-uri": "'none'",
        "form-action": "'self'",
        "frame-ancestors": "'none'",
    }
    return {
        "Content-Security-Policy": "; ".join(f"{name} {value}" for name, value in policy.items()),
        "X-Content-Type-Options": "nosniff",
        "X-Frame-Options": "DENY",
        "Referrer-Policy": "same-origin",
        "Cross-Origin-Opener-Policy": "same-origin",
    }
