"""Carries the spool to a collector over gRPC, and forgets a batch only when it is acknowledged."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from typing import Any

import grpc

from roofleet_agent.errors import CollectorUnreachable
from roofleet_agent.sending.spool import Spool
from roofleet_proto.records import Batch
from roofleet_proto.services import MAX_MESSAGE_BYTES, PUSH, REJECTED_SEQUENCE

log = logging.getLogger(__name__)

WINDOW = 32
"""Batches sent and not yet acknowledged: enough to keep the collector's commits full."""

CHANNEL_OPTIONS = [
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.keepalive_time_ms", 30_000),  # the collector allows pings from 10 s
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.initial_reconnect_backoff_ms", 500),
    ("grpc.max_reconnect_backoff_ms", 5_000),
    ("grpc.enable_retries", 0),
]


def open_channel(address: str) -> Any:
    """A channel to a collector; it connects when it is first used."""
    return grpc.insecure_channel(address, options=CHANNEL_OPTIONS)


def wait_until_ready(channel: Any, address: str, timeout_s: float) -> None:
    """Returns when the collector answers; CollectorUnreachable if it does not in time."""
    try:
        grpc.channel_ready_future(channel).result(timeout=timeout_s)
    except grpc.FutureTimeoutError:
        raise CollectorUnreachable(
            f"no collector answers at {address}. Start one with `roofleet collector --grpc {address}`, "
            "or name another with --collector HOST:PORT"
        ) from None


class Uplink:
    """Sends what a spool holds, oldest first."""

    def __init__(self, spool: Spool, channel: Any) -> None:
        self._spool = spool
        self._push = PUSH.client(channel)
        self._stopping = threading.Event()

    def stop(self) -> None:
        """Ends `run` after the batches that are under way."""
        self._stopping.set()
        self._spool.wait(0)

    def drain(self, timeout_s: float) -> None:
        """Sends everything in the spool and returns when it is empty.

        Raises CollectorUnreachable if the collector goes
        away and does not come back in time; what is not acknowledged stays in the spool.
        """
        give_up = time.monotonic() + timeout_s
        window = WINDOW
        while self._spool.count():
            try:
                acknowledged = self._stream(window, follow=False)
                give_up = time.monotonic() + timeout_s if acknowledged else give_up
                window = WINDOW
            except grpc.RpcError as error:
                window = self._after(error, window)
                if time.monotonic() > give_up:
                    raise CollectorUnreachable(
                        f"the collector stopped answering ({_reason(error)}); "
                        f"{self._spool.count()} batches stay in {self._spool.path}"
                    ) from None

    def run(self) -> None:
        """Sends rows as they come until `stop`; waits for a collector that is away."""
        window, pause_s, said = WINDOW, 0.5, False
        while not self._stopping.is_set():
            try:
                self._stream(window, follow=True)
                window, pause_s, said = WINDOW, 0.5, False
            except grpc.RpcError as error:
                if error.code() == grpc.StatusCode.UNAVAILABLE and not said:
                    log.warning("the collector is away; rows wait in %s", self._spool.path)
                    said = True
                window = self._after(error, window)
                self._stopping.wait(pause_s)
                pause_s = min(pause_s * 2, 5.0)

    def _stream(self, window: int, *, follow: bool) -> int:
        """One Push stream; returns how many batches were acknowledged on it."""
        credit = threading.Semaphore(window)
        ended = threading.Event()
        call = self._push(self._requests(credit, ended, follow=follow))
        acknowledged = 0
        try:
            for ack in call:
                self._spool.acknowledge([ack.sequence])
                credit.release()
                acknowledged += 1
        finally:
            ended.set()
            credit.release()
            call.cancel()
        return acknowledged

    def _requests(
        self, credit: threading.Semaphore, ended: threading.Event, *, follow: bool
    ) -> Iterator[Batch]:
        """What is to be sent; gRPC takes from it on a thread of its own."""
        last = 0
        while not ended.is_set():
            batches = self._spool.pending(after=last)
            if not batches:
                if not follow or self._stopping.is_set():
                    return
                self._spool.wait(0.2)
                continue
            for batch in batches:
                credit.acquire()
                if ended.is_set():
                    return
                yield batch
                last = batch.sequence

    def _after(self, error: Any, window: int) -> int:
        """What a broken stream means for the next: how many batches may be under way on it."""
        if error.code() == grpc.StatusCode.INVALID_ARGUMENT:
            metadata = dict(error.trailing_metadata() or ())
            if REJECTED_SEQUENCE in metadata:
                self._set_aside(int(metadata[REJECTED_SEQUENCE]), error.details())
                return window
        elif error.code() != grpc.StatusCode.RESOURCE_EXHAUSTED:
            return window
        # The collector could not say which batch it was: send one at a time until it is found.
        oldest = self._spool.pending(limit=1)
        if window == 1 and oldest:
            self._set_aside(oldest[0].sequence, error.details())
        return 1

    def _set_aside(self, sequence: int, reason: str) -> None:
        log.error("the collector cannot take batch %d: %s. It is set aside", sequence, reason)
        self._spool.set_aside(sequence, reason)


def _reason(error: Any) -> str:
    return f"{error.code().name}: {error.details()}"
