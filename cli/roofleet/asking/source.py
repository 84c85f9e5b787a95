"""The dashboard's sources: a collector's SQL or a data folder, with errors in the dashboard's words."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from roofleet.api import client
from roofleet.api.client import ServerAway, connect
from roofleet.asking.reading import asking_folder
from roofleet.errors import UserError, line_of, status_of
from roofleet.naming.doors import here, local_door
from roofleet_dashboard.source import NotLetIn, SourceError
from roofleet_proto.door import PLAIN, Door

if TYPE_CHECKING:
    import pyarrow as pa


class FlightSource:
    """Implements the dashboard's Source over Flight SQL."""

    def __init__(self, address: str, door: Door = PLAIN) -> None:
        self.address, self.door = address, door
        self._connection = connect(address, door)

    def query(self, sql: str, parameters: Sequence[object] = ()) -> pa.Table:
        """Rows of one statement; SourceError if the collector is away or refuses it."""
        try:
            return self._connection.sql(sql, parameters)
        except client.NotLetIn as error:
            raise NotLetIn(str(error)) from error
        except (ServerAway, UserError) as error:
            raise SourceError(str(error)) from error


class FolderSource:
    """Implements it over a data folder: its file, held only while a query runs, or the collector on it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._ask = asking_folder(folder)
        self._flight: FlightSource | None = None

    def query(self, sql: str, parameters: Sequence[object] = ()) -> pa.Table:
        """Rows of one statement; SourceError where there are no data, others hold them, or it is refused."""
        from roofleet_collector.presence import running_collector

        running = running_collector(self._folder)
        if running is not None:
            flight, at = self._flight, (here(running.sql, running), local_door(self._folder, running))
            if flight is None or (flight.address, flight.door) != at:
                flight = self._flight = FlightSource(*at)
            return flight.query(sql, parameters)
        try:
            return self._ask(sql, parameters)
        except Exception as error:
            if status_of(error) is None:
                raise
            raise SourceError(line_of(error)) from error
