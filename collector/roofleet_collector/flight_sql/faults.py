"""Errors as Flight clients see them: the right status, the engine's message, no Python trace."""

from __future__ import annotations

import logging

import grpc

from roofleet_collector.errors import (
    CallerLeft,
    CallRefused,
    LimitReached,
    QueryTimeout,
    SqlError,
    StatementRefused,
    StoreClosed,
    TooMuch,
    UnknownCaller,
)
from roofleet_proto.errors import MalformedMessage
from roofleet_proto.flight_sql import CommandError

log = logging.getLogger(__name__)

MAX_MESSAGE_LETTERS = 4096
"""gRPC sends a message in a header, and clients take headers of 8 or 16 KiB; it may grow threefold there."""

STATUS: tuple[tuple[type[Exception] | tuple[type[Exception], ...], grpc.StatusCode], ...] = (
    (UnknownCaller, grpc.StatusCode.UNAUTHENTICATED),
    (TooMuch, grpc.StatusCode.RESOURCE_EXHAUSTED),
    ((StatementRefused, CallRefused), grpc.StatusCode.PERMISSION_DENIED),
    (QueryTimeout, grpc.StatusCode.DEADLINE_EXCEEDED),
    (LimitReached, grpc.StatusCode.RESOURCE_EXHAUSTED),
    (StoreClosed, grpc.StatusCode.UNAVAILABLE),
    (CallerLeft, grpc.StatusCode.CANCELLED),
    ((SqlError, CommandError, MalformedMessage), grpc.StatusCode.INVALID_ARGUMENT),
)


def status_of(error: Exception) -> tuple[grpc.StatusCode, str]:
    """The status and the message that a client gets for an error. What is a fault of ours is logged here."""
    for kinds, status in STATUS:
        if isinstance(error, kinds):
            text = str(error)
            return status, text if len(text) <= MAX_MESSAGE_LETTERS else f"{text[:MAX_MESSAGE_LETTERS]} ..."
    log.error("the Flight SQL server failed to answer", exc_info=error)
    return grpc.StatusCode.INTERNAL, "the collector failed to answer; its log says why"
