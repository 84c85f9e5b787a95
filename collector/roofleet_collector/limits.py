"""What may be taken of a collector, as its operator decides: by queries, callers and senders."""

from __future__ import annotations

from dataclasses import dataclass, field

MEBIBYTE = 1024**2


@dataclass(frozen=True)
class Limits:
    """Of queries at the SQL door. None switches a limit off.

    A query may keep the engine busy for `timeout_s`, and may be left unread for `idle_s`, because a reader
    that has stalled holds on to old versions of every row. `at_once` queries run beside one another, of which
    `at_once_each` may be of one caller. A result has `max_bytes` and `max_rows` at most.
    """

    timeout_s: float | None = 60
    idle_s: float | None = 60
    at_once: int | None = 32
    at_once_each: int | None = 16
    max_bytes: int | None = 4 * 1024 * MEBIBYTE
    max_rows: int | None = 100_000_000


@dataclass(frozen=True)
class Engine:
    """Of the engine, all queries and writing together; None goes by the machine.

    `memory_bytes` is its memory, by default a quarter of the machine's; `temporary_bytes` what it may put on
    the disk beyond, by default a quarter of what is free and 16 GiB at most. A statement that could not be
    interrupted has a process of its own, with `apart_bytes` at most: by default an eighth of the memory and
    2 GiB at most. Planning a statement may take `plan_s`.
    """

    memory_bytes: int | None = None
    temporary_bytes: int | None = None
    apart_bytes: int | None = None
    plan_s: float = 3.0


@dataclass(frozen=True)
class Callers:
    """Of each caller with a name: calls that it may begin in a second, and at once after a pause; streams and
    queries that it may have open; agent ids that it may write under."""

    calls_per_s: float = 50.0
    burst: float = 200.0
    streams: int = 32
    agents: int = 64


@dataclass(frozen=True)
class Senders:
    """Of rows that wait for their commit: bytes of all senders together, and of one stream of them.

    Beside it each stream has one message that gRPC has taken in.
    """

    all_bytes: int = 256 * MEBIBYTE
    stream_bytes: int = 32 * MEBIBYTE


@dataclass(frozen=True)
class Bounds:
    """All limits of one collector."""

    queries: Limits = field(default_factory=Limits)
    engine: Engine = field(default_factory=Engine)
    callers: Callers = field(default_factory=Callers)
    senders: Senders = field(default_factory=Senders)


USUAL = Bounds()
"""What there is without a wish."""
