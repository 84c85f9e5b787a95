"""The SQL door: Arrow Flight SQL, read-only, for any tool that speaks it."""

from roofleet_collector.flight_sql.server import FlightSqlServer

__all__ = ["FlightSqlServer"]
