"""Errors as Flight clients see them: the right status, the engine's message, no Python trace.

pyarrow adds a Python trace to everything that is not a FlightError, and no FlightError stands for "invalid
argument". So a mistake in a statement goes out as FlightServerError (status UNKNOWN) with the engine's own
message, which names its kind ("Binder Error: ..."), and a fault of ours as FlightInternalError. In GetSchema
pyarrow adds the trace to FlightErrors too; drivers ask GetFlightInfo, or prepare, and do not see it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from pyarrow import flight

from roofleet_collector.errors import QueryTimeout, SqlError, StatementRefused, StoreClosed
from roofleet_proto.flight_sql import CommandError

log = logging.getLogger(__name__)


@contextmanager
def flight_errors() -> Iterator[None]:
    """Turns what the store raises inside the block into FlightErrors."""
    try:
        yield
    except flight.FlightError:
        raise
    except StatementRefused as error:
        raise flight.FlightUnauthorizedError(str(error)) from None
    except QueryTimeout as error:
        raise flight.FlightTimedOutError(str(error)) from None
    except StoreClosed as error:
        raise flight.FlightUnavailableError(str(error)) from None
    except (SqlError, CommandError) as error:
        raise flight.FlightServerError(str(error)) from None
    except Exception:
        log.exception("the Flight SQL server failed to answer")
        raise flight.FlightInternalError("the collector failed to answer; its log says why") from None
