"""The tokens of a data folder, in a file of their own that only its owner can read.

A token is 256 random bits, so its plain SHA-256 is kept: there is nothing to guess, which is what slow hashes
are for. Commands change the file while a collector runs, which sees it within a second.
"""

from __future__ import annotations

import contextlib
import getpass
import hashlib
import hmac
import logging
import os
import re
import secrets
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from roofleet_collector.errors import CallRefused, KeysUnreadable, UnknownCaller
from roofleet_collector.keys.identity import LOCAL, NOBODY, Identity, Role
from roofleet_collector.limits import Callers
from roofleet_proto.door import write_secret

log = logging.getLogger(__name__)

FILE_NAME = "keys.sqlite"
LOCAL_NAME = "collector.token"
VERSION = 1
LOOK_S = 0.5
"""How often the file is looked at for changes."""
_SCHEMA = f"""
CREATE TABLE IF NOT EXISTS tokens (
    token_id TEXT PRIMARY KEY, name TEXT NOT NULL, role TEXT NOT NULL, digest BLOB NOT NULL,
    created_at REAL NOT NULL, expires_at REAL, revoked_at REAL
);
CREATE TABLE IF NOT EXISTS owned (agent_id TEXT PRIMARY KEY, name TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS codes (
    code_id TEXT PRIMARY KEY, name TEXT NOT NULL, digest BLOB NOT NULL, expires_at REAL NOT NULL,
    used_at REAL, lifetime_s REAL
);
CREATE TABLE IF NOT EXISTS changes (
    change_id INTEGER PRIMARY KEY, at REAL NOT NULL, who TEXT NOT NULL, what TEXT NOT NULL,
    target TEXT NOT NULL
);
PRAGMA user_version = {VERSION};
"""


@dataclass(frozen=True)
class Token:
    """What is known of a token, which is not the token itself. Times are seconds since 1970."""

    token_id: str
    name: str
    role: Role
    created_at: float
    expires_at: float | None
    revoked_at: float | None

    def refusal(self, now: float) -> str | None:
        """Why it opens nothing; None while it does."""
        if self.revoked_at is not None:
            return "the token was revoked"
        if self.expires_at is not None and self.expires_at <= now:
            return "the token has expired"
        return None


@dataclass(frozen=True)
class Change:
    """Something that a command did to the tokens, on its way into the audit."""

    change_id: int
    at: float
    who: str
    what: str
    target: str


class Tokens:
    """The tokens of a data folder; without its file there are none, and nobody is asked for one."""

    def __init__(
        self,
        folder: Path,
        clock: Callable[[], float] = time.time,
        most_ids: int = Callers.agents,
    ) -> None:
        """A name may write under `most_ids` agent ids. KeysUnreadable if there is a file that cannot be used:
        doors do not open for that."""
        self.path = folder / FILE_NAME
        self._clock, self._most_ids = clock, most_ids
        self._lock = threading.RLock()
        self._db: sqlite3.Connection | None = None
        self._version = -1
        self._asked = False
        self._looked = float("-inf")
        self._tokens: dict[str, tuple[Token, bytes]] = {}
        self._owned: dict[str, str] = {}
        self._local: bytes | None = None
        self._look(0)

    # -- asking

    def exist(self) -> bool:
        """Whether there ever was a token or a code here; then the doors ask for one."""
        with self._lock:
            self._look()
            return self._asked

    def identify(self, text: str | None) -> Identity:
        """Who shows this token; UnknownCaller, with the reason, if it opens nothing."""
        with self._lock:
            self._look()
            if text and self._local and hmac.compare_digest(_digest(text), self._local):
                return LOCAL
            if not self._asked:
                return NOBODY
            if not text:
                raise UnknownCaller("no token was given", "without a token")
            token_id = _id_of(text)
            if token_id and token_id not in self._tokens:
                self._look(0)  # made a moment ago
            token, digest = self._tokens.get(token_id, (None, b""))
            right = hmac.compare_digest(_digest(text), digest)
            if token is None or not right:
                raise UnknownCaller("the token is not known here", "an unknown token")
            why = token.refusal(self._clock())
            if why is not None:
                raise UnknownCaller(why, token.name)
            return Identity(token.name, token.role, token_id)

    def refusal(self, identity: Identity) -> str | None:
        """Why somebody who was let in may not stay; None while they may."""
        with self._lock:
            self._look()
            if identity == LOCAL:
                return None
            if identity.token_id is None:
                return "tokens are asked for now" if self._asked else None
            token, _ = self._tokens.get(identity.token_id, (None, b""))
            return "the token is gone" if token is None else token.refusal(self._clock())

    def must_own(self, identity: Identity, agent_id: str) -> None:
        """CallRefused if the id is another's. One that no agent has used becomes the calling agent's, for
        good; people send runs from many folders and own none."""
        with self._lock:
            owner = self._owned.get(agent_id)
            if owner == identity.name:
                return
            if owner is not None:
                raise CallRefused(f"agent {agent_id} belongs to {owner!r}, not to {identity.name!r}")
            if identity.role is not Role.agent:
                return
            if sum(name == identity.name for name in self._owned.values()) >= self._most_ids:
                raise CallRefused(f"{identity.name!r} has used {self._most_ids} agent ids, which is the most")
            with self._changing() as db:
                db.execute("INSERT OR IGNORE INTO owned VALUES (?, ?)", [agent_id, identity.name])
            if self._owned.get(agent_id) != identity.name:
                raise CallRefused(f"agent {agent_id} belongs to another")

    def listed(self) -> list[Token]:
        """All tokens, the expired and revoked too, by name and age."""
        with self._lock:
            self._look(0)
            return sorted((token for token, _ in self._tokens.values()), key=lambda t: (t.name, t.created_at))

    # -- changing

    def create(
        self, name: str, role: Role, *, lifetime_s: float | None = None, agent_ids: Sequence[str] = ()
    ) -> str:
        """A new token, which is told this once. Tokens of one name are one identity, with one role.

        ValueError if the name has another role, or an agent id another owner.
        """
        with self._lock, self._changing("create token", f"{name} ({role})") as db:
            return self._create(db, name, role, lifetime_s, agent_ids)

    def take(
        self,
        text: str,
        name: str,
        role: Role,
        *,
        lifetime_s: float | None = None,
        agent_ids: Sequence[str] = (),
    ) -> bool:
        """The same with a token that was made elsewhere; whether it was not there already.

        ValueError also if the text is no token.
        """
        if not _id_of(text):
            raise ValueError("that is no token: it would be rft_, eight hexadecimal digits, _ and 20 letters")
        with self._lock:
            self._look(0)
            token, digest = self._tokens.get(_id_of(text), (None, b""))
            if token is not None:
                if digest == _digest(text) and (token.name, token.role) == (name, role):
                    return False
                raise ValueError(f"there is another token {_id_of(text)}: make this one anew")
            with self._changing("take token", f"{name} ({role})") as db:
                self._create(db, name, role, lifetime_s, agent_ids, text)
            return True

    def revoke(self, which: str) -> list[Token]:
        """Revokes a token by its id, or all of a name; those that were open until now."""
        with self._lock:
            self._look(0)
            open_now = [
                token
                for token, _ in self._tokens.values()
                if which in (token.token_id, token.name) and token.revoked_at is None
            ]
            if open_now:
                with self._changing(
                    "revoke token", ", ".join(f"{t.token_id} ({t.name})" for t in open_now)
                ) as db:
                    db.executemany(
                        "UPDATE tokens SET revoked_at = ? WHERE token_id = ?",
                        [(self._clock(), token.token_id) for token in open_now],
                    )
            return open_now

    def join_code(self, name: str, *, valid_s: float = 3600.0, lifetime_s: float | None = None) -> str:
        """A code that is exchanged once for an agent's token of that name."""
        code = f"rfj_{secrets.token_hex(4)}_{secrets.token_urlsafe(32)}"
        with self._lock, self._changing("create join code", name) as db:
            self._check_role(db, name, Role.agent)
            db.execute(
                "INSERT INTO codes VALUES (?, ?, ?, ?, NULL, ?)",
                [_id_of(code), name, _digest(code), self._clock() + valid_s, lifetime_s],
            )
        return code

    def join(self, code: str, agent_id: str) -> tuple[str, str]:
        """An agent's token and its name for a code; UnknownCaller if it is none, was used, or is too old."""
        with self._lock:
            self._look(0)
            if self._db is None:
                raise UnknownCaller("no code was made here", "a join code")
            with self._changing() as db:
                found = db.execute(
                    "SELECT name, digest, expires_at, used_at, lifetime_s FROM codes WHERE code_id = ?",
                    [_id_of(code)],
                ).fetchone()
                name, digest, expires_at, used_at, lifetime_s = found or ("", b"", 0.0, None, None)
                if not hmac.compare_digest(_digest(code), digest):
                    raise UnknownCaller("the code is not known here", "a join code")
                if used_at is not None:
                    raise UnknownCaller("the code was used before", name)
                if expires_at <= self._clock():
                    raise UnknownCaller("the code has expired", name)
                db.execute("UPDATE codes SET used_at = ? WHERE code_id = ?", [self._clock(), _id_of(code)])
                self._note(db, name, "join", agent_id)
                try:
                    return self._create(db, name, Role.agent, lifetime_s, [agent_id]), name
                except ValueError as error:
                    raise UnknownCaller(str(error), name) from None

    # -- what the collector needs

    def open_locally(self) -> Path:
        """Makes a token for commands of this machine, good while this process lives; the file it lies in."""
        text = f"rfl_{secrets.token_urlsafe(32)}"
        path = self.path.parent / LOCAL_NAME
        write_secret(path, text)
        self._local = _digest(text)
        return path

    def changes(self) -> list[Change]:
        """What was changed and is not in the audit yet."""
        with self._lock:
            self._look()
            if self._db is None:
                return []
            return [Change(*row) for row in self._db.execute("SELECT * FROM changes ORDER BY change_id")]

    def forget_changes(self, last: int) -> None:
        """They are in the audit up to that one."""
        with self._lock, self._changing() as db:
            db.execute("DELETE FROM changes WHERE change_id <= ?", [last])

    # -- within

    def _create(
        self,
        db: sqlite3.Connection,
        name: str,
        role: Role,
        lifetime_s: float | None,
        agent_ids: Sequence[str],
        text: str | None = None,
    ) -> str:
        self._check_role(db, name, role)
        for agent_id in agent_ids:
            db.execute("INSERT OR IGNORE INTO owned VALUES (?, ?)", [agent_id, name])
            (owner,) = db.execute("SELECT name FROM owned WHERE agent_id = ?", [agent_id]).fetchone()
            if owner != name:
                raise ValueError(f"agent {agent_id} belongs to {owner!r}: give that name, or another id")
        text = text or f"rft_{secrets.token_hex(4)}_{secrets.token_urlsafe(32)}"
        now = self._clock()
        expires_at = None if lifetime_s is None else now + lifetime_s
        db.execute(
            "INSERT INTO tokens VALUES (?, ?, ?, ?, ?, ?, NULL)",
            [_id_of(text), name, role.value, _digest(text), now, expires_at],
        )
        return text

    def _check_role(self, db: sqlite3.Connection, name: str, role: Role) -> None:
        other = db.execute(
            "SELECT role FROM tokens WHERE name = ? AND role <> ? AND revoked_at IS NULL", [name, role.value]
        ).fetchone()
        if other:
            raise ValueError(f"{name!r} has the role {other[0]}: revoke that first, or choose another name")

    @contextlib.contextmanager
    def _changing(self, what: str | None = None, target: str = "") -> Iterator[sqlite3.Connection]:
        """A transaction; what was done is noted in it, for the audit."""
        db = self._opened(make=True)
        assert db is not None
        try:
            db.execute("BEGIN IMMEDIATE")
            try:
                yield db
                if what is not None:
                    self._note(db, f"{_user()} by command", what, target)
                db.execute("COMMIT")
            except BaseException:
                db.execute("ROLLBACK")
                raise
        except sqlite3.Error as error:
            raise KeysUnreadable(f"{self.path} cannot be written: {error}") from error
        self._version = -1
        self._look(0)

    def _note(self, db: sqlite3.Connection, who: str, what: str, target: str) -> None:
        db.execute(
            "INSERT INTO changes (at, who, what, target) VALUES (?, ?, ?, ?)",
            [self._clock(), who, what, target],
        )

    def _opened(self, *, make: bool) -> sqlite3.Connection | None:
        if self._db is not None:
            return self._db
        if not self.path.exists():
            if not make:
                return None
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(FileExistsError):
                os.close(os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        try:
            db = sqlite3.connect(self.path, timeout=10, isolation_level=None, check_same_thread=False)
            db.execute("PRAGMA synchronous = FULL")
            (version,) = db.execute("PRAGMA user_version").fetchone()
            if version > VERSION:
                raise KeysUnreadable(f"{self.path} was written by a newer Roofleet: install that")
            if version == 0:
                if not make:  # another process is making it
                    db.close()
                    return None
                db.executescript(f"BEGIN IMMEDIATE; {_SCHEMA} COMMIT;")
        except sqlite3.Error as error:
            raise KeysUnreadable(f"{self.path} cannot be used: {error}") from error
        self._db = db
        return db

    def _look(self, every_s: float = LOOK_S) -> None:
        """Takes up what others have changed. What cannot be read leaves what was known."""
        now = time.monotonic()
        if now - self._looked < every_s:
            return
        first, self._looked = self._looked == float("-inf"), now
        try:
            db = self._opened(make=False)
            if db is None:
                return
            (version,) = db.execute("PRAGMA data_version").fetchone()
            if version == self._version:
                return
            tokens = db.execute(
                "SELECT token_id, name, role, created_at, expires_at, revoked_at, digest FROM tokens"
            ).fetchall()
            owned = dict(db.execute("SELECT agent_id, name FROM owned").fetchall())
        except (sqlite3.Error, KeysUnreadable) as error:
            if first:
                if isinstance(error, KeysUnreadable):
                    raise
                raise KeysUnreadable(f"{self.path} cannot be used: {error}") from error
            log.error("%s cannot be read (%s): the tokens known until now count", self.path, error)
            return
        self._tokens = {
            row[0]: (Token(row[0], row[1], Role(row[2]), *row[3:6]), bytes(row[6])) for row in tokens
        }
        self._owned, self._version, self._asked = owned, version, True


def bearer_token(headers: Iterable[tuple[str, str | bytes]]) -> str | None:
    """The token of a call with these headers; None if it shows none, or more than one."""
    given = [value for name, value in headers or () if name.lower() == "authorization"]
    if len(given) != 1:
        return None
    text = given[0].decode(errors="replace") if isinstance(given[0], bytes) else given[0]
    scheme, _, token = text.partition(" ")
    return (token.strip() or None) if scheme.lower() == "bearer" else None


def _user() -> str:
    """Who gives the command, by name where the system knows one."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"user {os.getuid()}"


def _id_of(text: str) -> str:
    found = re.fullmatch(r"rf[tj]_([0-9a-f]{8})_[A-Za-z0-9_-]{20,100}", text)
    return found[1] if found else ""


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()
