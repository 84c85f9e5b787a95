"""SQL to a collector over Arrow Flight SQL, through the stock ADBC driver."""

from __future__ import annotations

import re
import threading
from collections.abc import Sequence
from types import TracebackType
from typing import Any

import adbc_driver_flightsql
import adbc_driver_manager
import pyarrow as pa
from adbc_driver_flightsql import dbapi

from roofleet.errors import UserError
from roofleet_proto.door import PLAIN, Door, NoEntry

_FETCH_TIMEOUT_S = 120.0


class ServerAway(ConnectionError):
    """No collector answers SQL at that address."""


class NotLetIn(UserError):
    """The collector asks for a token, or for another than it was shown."""


class Connection:
    """A connection to one collector; safe to use from several threads, and it heals by itself."""

    def __init__(self, address: str, door: Door = PLAIN) -> None:
        self.address, self._door = address, door
        self._local = threading.local()

    def sql(self, query: str, parameters: Sequence[object] = ()) -> pa.Table:
        """The rows of one statement as a pyarrow.Table.

        Raises UserError with the engine's message for a statement that fails or is refused, ServerAway if
        the collector does not answer.
        """
        for attempt in (1, 2):
            try:
                with self._connection().cursor() as cursor:
                    cursor.execute(query, parameters=tuple(parameters) or None)
                    return cursor.fetch_arrow_table()
            except adbc_driver_manager.Error as error:
                if "Unimplemented" in str(error):
                    raise UserError(
                        f"{self.address} does not speak Flight SQL: name a collector's SQL port, "
                        "7701 unless told otherwise (7700 is its gRPC)"
                    ) from None
                if _is_not_let_in(error):
                    raise NotLetIn(f"{self.address} lets nobody in so: {_message(error)}") from None
                if not _is_away(error):
                    raise UserError(_message(error)) from None
                # A collector that was restarted has forgotten this connection's statement: once more.
                self.close()
                if attempt == 2:
                    raise ServerAway(
                        f"no collector answers SQL at {self.address}. Start one with `roofleet collector`, "
                        "or name another with --server HOST:PORT"
                    ) from None
        raise AssertionError("unreachable")

    def _connection(self) -> Any:
        found = getattr(self._local, "connection", None)
        if found is None:
            scheme = "grpc+tls" if self._door.tls else "grpc"
            found = dbapi.connect(f"{scheme}://{self.address}", db_kwargs=self._options(), autocommit=True)
            self._local.connection = found
        return found

    def _options(self) -> dict[str, str]:
        names = adbc_driver_flightsql.DatabaseOptions
        door = self._door
        try:
            token = door.shown_at(self.address)
            files = {
                names.TLS_ROOT_CERTS: door.pem(door.tls_ca),
                names.MTLS_CERT_CHAIN: door.pem(door.tls_cert),
                names.MTLS_PRIVATE_KEY: door.pem(door.tls_key),
            }
        except NoEntry as error:
            raise UserError(str(error)) from None
        options = {
            names.TIMEOUT_FETCH: str(_FETCH_TIMEOUT_S),
            names.TIMEOUT_QUERY: str(_FETCH_TIMEOUT_S),
            names.AUTHORIZATION_HEADER: f"Bearer {token}" if token else None,
        } | {name: text.decode() for name, text in files.items() if text is not None}
        return {name.value: text for name, text in options.items() if text is not None}

    def close(self) -> None:
        """Ends this thread's connection."""
        found = getattr(self._local, "connection", None)
        self._local.connection = None
        if found is not None:
            found.close()

    def __enter__(self) -> Connection:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def connect(address: str, door: Door = PLAIN) -> Connection:
    """A connection to the collector whose Flight SQL listens at `host:port`; it dials at the first query."""
    return Connection(address, door)


def _is_not_let_in(error: Any) -> bool:
    status, codes = error.status_code, adbc_driver_manager.AdbcStatusCode
    return status == codes.UNAUTHENTICATED or (
        status == codes.UNAUTHORIZED and "may not ask SQL" in str(error)  # else it is the statement
    )


def _is_away(error: Any) -> bool:
    return bool(error.status_code == adbc_driver_manager.AdbcStatusCode.IO)


def _message(error: Exception) -> str:
    """The engine's own message, without what the driver puts around it."""
    text = re.sub(r"^[A-Z_]+: \[FlightSQL\] ", "", str(error))
    text = re.sub(r"\. Detail: \w+ \(\w+; .*\)$", "", text, flags=re.DOTALL)
    return re.sub(r" \(\w+; \w+\)\. Vendor code: \d+$", "", text)
