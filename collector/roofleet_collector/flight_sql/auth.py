"""Bearer tokens at the SQL door."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pyarrow import flight

Authorize = Callable[[str | None], bool]
"""Given the token of a call, or None if it has none, says whether the call may go on."""


class BearerTokens(flight.ServerMiddlewareFactory):  # type: ignore[misc]
    """Lets a call through if `authorize` accepts the token in its `authorization: Bearer ...` header."""

    def __init__(self, authorize: Authorize) -> None:
        super().__init__()
        self._authorize = authorize

    def start_call(self, info: Any, headers: Mapping[str, Sequence[str]]) -> None:
        """Raises FlightUnauthenticatedError if the call may not go on."""
        given = next((values for name, values in headers.items() if name.lower() == "authorization"), [])
        scheme, _, token = str(given[0]).partition(" ") if given else ("", "", "")
        known = token.strip() if scheme.lower() == "bearer" else None
        if not self._authorize(known):
            what = "no bearer token was given" if known is None else "the token is not known here"
            raise flight.FlightUnauthenticatedError(f"{what}; send it as 'authorization: Bearer <token>'")
