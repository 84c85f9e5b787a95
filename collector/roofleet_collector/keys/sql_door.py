"""Who may ask SQL: the tokens of the data folder, at the Flight door."""

from __future__ import annotations

from collections.abc import Callable

from roofleet_collector.errors import (
    CallRefused,
    CollectorError,
    LimitReached,
    StatementRefused,
    UnknownCaller,
)
from roofleet_collector.keys.audit import Audit
from roofleet_collector.keys.identity import LOCAL, NOBODY, SQL, Identity, may
from roofleet_collector.keys.limits import Limits
from roofleet_collector.keys.tokens import Tokens

_UNCOUNTED = (NOBODY, LOCAL)


def _nothing() -> None: ...


class Asking:
    """A caller who was let in to ask SQL, for one call."""

    def __init__(self, door: SqlDoor, identity: Identity, peer: str) -> None:
        self._door, self._identity, self._peer = door, identity, peer
        self.leave: Callable[[], None] = _nothing
        self.name = None if identity in _UNCOUNTED else identity.name

    def goes_with(self, leave: Callable[[], None]) -> None:
        """What is called, from another thread, when the caller may no longer stay."""
        self.leave = leave

    def check(self) -> None:
        """UnknownCaller if the caller may no longer stay."""
        why = self._door.tokens.refusal(self._identity)
        if why is not None:
            raise UnknownCaller(why, self._identity.name)

    def failed(self, error: CollectorError) -> None:
        """Notes it in the audit if it was a refusal, and no mistake."""
        if isinstance(error, (CallRefused, StatementRefused, LimitReached)):
            self._door.note(self._identity, self._peer, error)

    def end(self) -> None:
        """The call is over."""
        self._door.inside.discard(self)
        if self.name is not None:
            self._door.limits.close(self.name)


class SqlDoor:
    """Decides on calls, which come on many threads."""

    def __init__(self, tokens: Tokens, audit: Audit, limits: Limits) -> None:
        self.tokens, self._audit, self.limits = tokens, audit, limits
        self.inside: set[Asking] = set()

    def admit(self, token: str | None, peer: str) -> Asking:
        """Lets a call in; CallRefused, which is in the audit, if it may not."""
        name, role = "", None
        try:
            identity = self.tokens.identify(token)
            name, role = identity.name, identity.role.value
            if not may(identity.role, SQL):
                raise CallRefused(f"the role {identity.role} may not ask SQL")
            if identity not in _UNCOUNTED:
                self.limits.begin(name)
                self.limits.open(name)
        except CallRefused as error:
            named = error.name if isinstance(error, UnknownCaller) else name
            self._audit.refused(named, role, SQL, None, str(error), peer)
            raise
        asking = Asking(self, identity, peer)
        self.inside.add(asking)
        return asking

    def look(self) -> None:
        """Ends the queries of those who may no longer stay, also while the engine works for them."""
        for asking in list(self.inside):
            try:
                asking.check()
            except UnknownCaller:
                asking.leave()

    def note(self, identity: Identity, peer: str, error: CollectorError) -> None:
        """A call that was let in and refused all the same."""
        self._audit.refused(identity.name, identity.role.value, SQL, None, str(error), peer)
