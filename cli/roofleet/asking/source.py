"""The dashboard's source: the collector's SQL, with its errors in the dashboard's words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from roofleet.api.client import ServerAway, connect
from roofleet.errors import UserError
from roofleet_dashboard.source import SourceError

if TYPE_CHECKING:
    import pyarrow as pa


class FlightSource:
    """Implements the dashboard's Source over Flight SQL."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._connection = connect(address)

    def query(self, sql: str, parameters: Sequence[object] = ()) -> pa.Table:
        """Rows of one statement; SourceError if the collector is away or refuses it."""
        try:
            return self._connection.sql(sql, parameters)
        except (ServerAway, UserError) as error:
            raise SourceError(str(error)) from error
