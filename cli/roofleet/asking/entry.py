"""What the dashboard's login tries tokens on: a collector's SQL, or the tokens of a data folder."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from roofleet.asking.source import FlightSource, FolderSource
from roofleet_dashboard.source import NotLetIn, SourceError
from roofleet_proto.door import Door, NoEntry

if TYPE_CHECKING:
    import pyarrow as pa

    from roofleet_collector.keys.identity import Identity
    from roofleet_collector.keys.tokens import Tokens

ASK_AGAIN_S = 5.0


class ServerEntry:
    """A collector, which is asked without a token whether it wants one."""

    def __init__(self, address: str, door: Door, *, always: bool = False) -> None:
        """With `always` nobody gets in without a token, also while the collector lets everybody in."""
        self._address, self._door, self._always = address, door, always
        self._without = FlightSource(address, replace(door, token=None, token_file=None))
        self._lock = threading.Lock()
        self._asked: bool | None = None
        self._at = float("-inf")

    def is_asked(self) -> bool:
        """See Entry.is_asked; as long as the collector does not answer there is nothing to keep."""
        return self._always or bool(self.asks())

    def asks(self) -> bool | None:
        """Whether the collector asks for a token; None while it does not answer."""
        with self._lock:
            if time.monotonic() - self._at > ASK_AGAIN_S and not self._asked:
                try:
                    self._without.query("SELECT 1")
                except NotLetIn:
                    self._asked = True
                except SourceError:
                    self._asked = None
                else:
                    self._asked = False
                self._at = time.monotonic()
            return self._asked

    def enter(self, token: str) -> FlightSource:
        """See Entry.enter."""
        if self._always and self.asks() is False:
            raise SourceError(
                "the collector asks nobody for a token: make some with `roofleet tokens create`"
            )
        if not token or not token.isascii() or not token.isprintable():
            raise NotLetIn("that is no token")
        try:
            source = FlightSource(self._address, replace(self._door, token=token, token_file=None))
            source.query("SELECT 1")
        except NoEntry as error:
            raise SourceError(str(error)) from None
        return source


class FolderEntry:
    """The tokens that lie in a data folder."""

    def __init__(self, folder: Path) -> None:
        from roofleet_collector.keys.tokens import Tokens

        self._tokens, self._folder = Tokens(folder), folder

    def is_asked(self) -> bool:
        """See Entry.is_asked."""
        return self._tokens.exist()

    def enter(self, token: str) -> _UsersFolder:
        """See Entry.enter."""
        from roofleet_collector.errors import CallRefused
        from roofleet_collector.keys.identity import SQL, may

        try:
            identity = self._tokens.identify(token)
        except CallRefused as error:
            raise NotLetIn(str(error)) from None
        if not may(identity.role, SQL):
            raise NotLetIn(f"the role {identity.role} may not see this")
        return _UsersFolder(FolderSource(self._folder), self._tokens, identity)


class _UsersFolder:
    """A data folder for one user, until the token opens nothing any more."""

    def __init__(self, source: FolderSource, tokens: Tokens, identity: Identity) -> None:
        self._source, self._tokens, self._identity = source, tokens, identity

    def query(self, sql: str, parameters: Sequence[object] = ()) -> pa.Table:
        """See Source.query."""
        why = self._tokens.refusal(self._identity)
        if why is not None:
            raise NotLetIn(why)
        return self._source.query(sql, parameters)
