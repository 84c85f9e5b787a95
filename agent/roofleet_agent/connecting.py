"""Channels to a collector: plain or TLS, with the token that each call shows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import grpc

from roofleet_proto.door import Door


def channel(address: str, door: Door, options: Sequence[tuple[str, Any]]) -> Any:
    """A channel to HOST:PORT, which connects when it is first used; NoEntry if the door cannot be used."""
    door.check()
    if door.tls:
        credentials = grpc.ssl_channel_credentials(
            door.pem(door.tls_ca), door.pem(door.tls_key), door.pem(door.tls_cert)
        )
        opened = grpc.secure_channel(address, credentials, options=options)
    else:
        opened = grpc.insecure_channel(address, options=options)
    if door.shown_at(address) is None:
        return opened
    return grpc.intercept_channel(opened, _Showing(door, address))


class _Details(NamedTuple):
    method: str
    timeout: float | None
    metadata: Any
    credentials: Any
    wait_for_ready: bool | None
    compression: Any


class _Showing(grpc.UnaryUnaryClientInterceptor, grpc.StreamStreamClientInterceptor):  # type: ignore[misc]
    """Shows the token with every call."""

    def __init__(self, door: Door, address: str) -> None:
        self._door, self._address = door, address

    def intercept_unary_unary(self, continuation: Callable[..., Any], details: Any, request: Any) -> Any:
        """See grpc.UnaryUnaryClientInterceptor."""
        return continuation(self._with_token(details), request)

    def intercept_stream_stream(self, continuation: Callable[..., Any], details: Any, requests: Any) -> Any:
        """See grpc.StreamStreamClientInterceptor."""
        return continuation(self._with_token(details), requests)

    def _with_token(self, details: Any) -> _Details:
        metadata = [
            *(details.metadata or ()),
            ("authorization", f"Bearer {self._door.shown_at(self._address)}"),
        ]
        return _Details(
            details.method,
            details.timeout,
            metadata,
            details.credentials,
            details.wait_for_ready,
            details.compression,
        )
