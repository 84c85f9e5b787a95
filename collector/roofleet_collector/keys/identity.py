"""Who calls: a name with a role, and what each role may call."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache

from roofleet_proto.errors import MalformedMessage

MOST_CHARACTERS = 200


class Role(StrEnum):
    """What a token is for."""

    agent = "agent"
    reader = "reader"
    operator = "operator"
    admin = "admin"


@dataclass(frozen=True)
class Identity:
    """A caller. `token_id` is the token it came with; None for one that needs none."""

    name: str
    role: Role
    token_id: str | None = None


NOBODY = Identity("nobody", Role.admin)
"""Who calls where no keys are asked for: one user on one machine, who may do everything."""
LOCAL = Identity("local", Role.admin)
"""A command of this machine that could read the data folder, and so its token of the moment."""

ANY = frozenset(Role)
_WORKERS = frozenset({Role.agent, Role.admin})
_WRITERS = frozenset({Role.agent, Role.operator, Role.admin})
_READERS = frozenset({Role.reader, Role.operator, Role.admin})
_OPERATORS = frozenset({Role.operator, Role.admin})

SQL = "SQL"
"""The right to ask SQL, beside the paths of gRPC methods."""
_ADMINS = frozenset({Role.admin})
_RIGHTS = {
    SQL: _READERS,
    "/roofleet.v1.Ingest/Push": _WRITERS,
    "/roofleet.v1.Fleet/Attach": _WORKERS,
    "/roofleet.v1.Control/GetCollector": ANY,
}
PUBLIC = frozenset({"/roofleet.v1.Keys/Join", "/grpc.health.v1.Health/Check"})
"""What needs no token: a code that is given for one, and whether the collector is well."""


def may(role: Role, what: str) -> bool:
    """Whether a role may call a method or ask SQL. What is not known here is for operators."""
    if what in _RIGHTS:
        return role in _RIGHTS[what]
    service, _, method = what.rpartition("/")
    if service == "/roofleet.v1.Keys":
        return role in _ADMINS
    asks = service == "/roofleet.v1.Control" and method.startswith(("List", "Get"))
    return role in (_READERS if asks else _OPERATORS)


@lru_cache(maxsize=4096)
def check_id(text: str, what: str) -> str:
    """The text; MalformedMessage unless it can be an id or a name of a machine: one short line that reads
    from left to right and leads nowhere as a path."""
    if not text or len(text) > MOST_CHARACTERS:
        raise MalformedMessage(f"{what} has {len(text)} characters; it needs 1 to {MOST_CHARACTERS}")
    plain = text.isprintable() and not any(unicodedata.bidirectional(c) in ("R", "AL", "AN") for c in text)
    if not plain or ".." in text or "/" in text or "\\" in text:
        raise MalformedMessage(f"{what} {text!a:.80} is no id: printable text without / and .. is one")
    return text
