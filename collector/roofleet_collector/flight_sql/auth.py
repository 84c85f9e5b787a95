"""Bearer tokens at the SQL door."""

from __future__ import annotations

from collections.abc import Callable, Iterable

Authorize = Callable[[str | None], bool]
"""Given the token of a call, or None if it has none, says whether the call may go on."""


class NotAuthenticated(Exception):
    """The call may not go on; the message says what to send."""


def check_token(authorize: Authorize, headers: Iterable[tuple[str, str | bytes]]) -> None:
    """Raises NotAuthenticated if the call with these headers may not go on."""
    given = next((value for name, value in headers if name.lower() == "authorization"), "")
    text = given.decode(errors="replace") if isinstance(given, bytes) else given
    scheme, _, token = text.partition(" ")
    known = token.strip() if scheme.lower() == "bearer" else None
    if not authorize(known):
        what = "no bearer token was given" if known is None else "the token is not known here"
        raise NotAuthenticated(f"{what}; send it as 'authorization: Bearer <token>'")
