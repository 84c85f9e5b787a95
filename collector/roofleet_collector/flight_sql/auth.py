"""Bearer tokens at the SQL door."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol

from roofleet_collector.errors import CollectorError
from roofleet_collector.keys.tokens import bearer_token


class Asking(Protocol):
    """A caller who was let in, for one call."""

    @property
    def name(self) -> str | None:
        """What it is known by; None for somebody who needs no name."""
        ...

    def goes_with(self, leave: Callable[[], None]) -> None:
        """What is called, from another thread, when the caller may no longer stay."""
        ...

    def check(self) -> None:
        """CallRefused if the caller may no longer stay."""
        ...

    def failed(self, error: CollectorError) -> None:
        """The call did not get what it asked for."""
        ...

    def end(self) -> None:
        """The call is over."""
        ...


Admit = Callable[[str | None, str], Asking]
"""Given the token of a call, or None if it has none, and where it comes from, lets it in or raises
CallRefused."""


def admitted(admit: Admit, headers: Iterable[tuple[str, str | bytes]], peer: str) -> Asking:
    """Lets a call with these headers in; CallRefused if it may not go on."""
    return admit(bearer_token(headers), peer)
