"""What can go wrong in the collector.

    CollectorError
    ├── StoreInUse            another process holds the data
    ├── StoreUnreadable       also an OSError: no store, of a newer Roofleet, or without the right to it
    │   └── StoreDamaged      its file or write-ahead log is not what was written
    ├── StoreClosed           also a RuntimeError: asked after it was closed, or closed while it answered
    ├── AddressInUse          also an OSError: another process listens on the port
    ├── SqlError              also a ValueError: a statement that the engine does not accept
    │   └── StatementRefused  a statement that is not a read
    ├── RejectedBatch         also a ValueError: a batch that can never be stored
    ├── CollectorBusy         more is on its way than can be stored: come back later
    ├── RowsRefused           also a ValueError: rows that the engine cannot take
    ├── JobRefused            also a ValueError: a job that cannot be as it is asked for
    ├── NoSuchJob             also a LookupError
    ├── QueryTimeout          also a TimeoutError: a query that took too long
    ├── LimitReached          a query that takes more than is allowed
    │   ├── TooManyQueries    ... because others run
    │   └── ResultTooLarge    ... because its result has no end
    ├── CallerLeft            whoever asked does not wait for the answer any more
    ├── KeysUnreadable        also an OSError: tokens or certificates that cannot be used
    ├── PolicyUnusable        also a ValueError: ages that rows are kept for and that cannot be read
    ├── Unprotected           doors that would open without keys to others than this machine
    └── CallRefused           also a PermissionError: a caller who may not do that
        ├── UnknownCaller     it shows no token, or one that opens nothing
        └── TooMuch           it is at its limit

The message of an SqlError is the engine's own, ready to be shown to whoever wrote the statement.
"""

from __future__ import annotations

from roofleet_proto.records import Batch


class CollectorError(Exception):
    """Root of everything the collector raises on purpose."""


class StoreInUse(CollectorError):
    """The store's file is held by another process."""


class StoreUnreadable(OSError, CollectorError):
    """What lies in the folder cannot be opened as a store; the message says why."""


class StoreDamaged(StoreUnreadable):
    """The file or its write-ahead log is not what was written.

    `good_log_bytes` is how much of the log can be replayed; None where it is not the log that is damaged.
    """

    def __init__(self, message: str, good_log_bytes: int | None = None) -> None:
        super().__init__(message)
        self.good_log_bytes = good_log_bytes


class StoreClosed(RuntimeError, CollectorError):
    """The store was closed."""


class AddressInUse(OSError, CollectorError):
    """Another process listens on this address."""


class RejectedBatch(ValueError, CollectorError):
    """The batch can never be stored; sending it again is of no use."""

    def __init__(self, message: str, batch: Batch) -> None:
        super().__init__(message)
        self.batch = batch


class CollectorBusy(CollectorError):
    """More rows are on their way than can be stored; to be sent again later."""


class RowsRefused(ValueError, CollectorError):
    """The engine cannot take these rows; storing them again is of no use."""


class SqlError(ValueError, CollectorError):
    """The engine does not accept the statement, or failed while running it."""


class StatementRefused(SqlError):
    """The statement is not one that reads; the message says what is allowed."""


class JobRefused(ValueError, CollectorError):
    """A job, or what is to be done to one, cannot be; the message says why, for whoever asked."""


class NoSuchJob(LookupError, CollectorError):
    """There is no job of that id."""


class QueryTimeout(TimeoutError, CollectorError):
    """The query was ended because it ran, or was left unread, for longer than allowed."""


class LimitReached(CollectorError):
    """The query takes more than is allowed; the message says what to do."""


class TooManyQueries(LimitReached):
    """As many queries run as may."""


class ResultTooLarge(LimitReached):
    """The result is larger than one may be."""


class CallerLeft(CollectorError):
    """Whoever asked has gone."""


class KeysUnreadable(OSError, CollectorError):
    """Tokens or certificates cannot be read or written; the message says why."""


class StoreBroken(CollectorError):
    """The engine has given the database up, such as for a disk that was full in the wrong moment; it has to
    be opened anew, and what was acknowledged is in it."""


class PolicyUnusable(ValueError, CollectorError):
    """How long rows are to be kept cannot be read, or says what is not known."""


class Unprotected(CollectorError):
    """The collector would listen beyond this machine without keys; the message says what to do."""


class CallRefused(PermissionError, CollectorError):
    """The caller may not do that."""


class UnknownCaller(CallRefused):
    """No token, or one that opens nothing; `name` is whose it was, where that is known."""

    def __init__(self, message: str, name: str) -> None:
        super().__init__(message)
        self.name = name


class TooMuch(CallRefused):
    """The caller is at one of its limits."""
