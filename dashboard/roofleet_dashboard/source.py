"""Where the dashboard's rows come from: anything that answers SQL with an Arrow table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import pyarrow as pa

__all__ = ["NotLetIn", "Source", "SourceError"]


class SourceError(Exception):
    """The collector is away, or did not accept the SQL; the message says which, for the user."""


class NotLetIn(SourceError):
    """The collector asks for a token, or for another than it was shown."""


class Source(Protocol):
    """Answers read-only SQL. It may be asked from several threads at once."""

    def query(self, sql: str, parameters: Sequence[object] = ()) -> pa.Table:
        """The rows of one statement with `?` parameters. Raises SourceError."""
        ...
