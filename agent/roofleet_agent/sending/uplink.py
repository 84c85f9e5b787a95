"""Carries the spool to a collector over gRPC, and forgets a batch only when it is acknowledged."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from typing import Any

import grpc

from roofleet_agent.connecting import channel
from roofleet_agent.errors import CollectorUnreachable, SpoolUnusable
from roofleet_agent.sending.pauses import Pauses
from roofleet_agent.sending.spool import Spool
from roofleet_proto.door import PLAIN, Door
from roofleet_proto.records import Batch, Filter
from roofleet_proto.services import GET_COLLECTOR, MAX_MESSAGE_BYTES, PUSH, REJECTED_SEQUENCE, RETRY_AFTER_MS

log = logging.getLogger(__name__)

WINDOW = 32
"""Batches sent and not yet acknowledged: enough to keep the collector's commits full."""

LIVE = 8
"""Batches that came in since the stream began, of those that are taken from the spool at a time."""

REPORT_S = 60.0
"""How often a collector that takes rows is told of those that were let go of."""

CHANNEL_OPTIONS = [
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.keepalive_time_ms", 30_000),  # the collector allows pings from 10 s
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.initial_reconnect_backoff_ms", 500),
    ("grpc.max_reconnect_backoff_ms", 5_000),
    ("grpc.enable_retries", 0),
]


def open_channel(address: str, door: Door = PLAIN) -> Any:
    """A channel to a collector; it connects when it is first used."""
    return channel(address, door, CHANNEL_OPTIONS)


def wait_until_ready(channel: Any, address: str, timeout_s: float) -> None:
    """Returns when the collector answers; CollectorUnreachable if it does not in time."""
    # A question, since grpc's own way to wait leaves a thread behind that fails when the channel is closed.
    try:
        GET_COLLECTOR.client(channel)(Filter(), timeout=timeout_s, wait_for_ready=True)
    except grpc.RpcError as error:
        if error.code() in _NOT_LET_IN:
            raise CollectorUnreachable(
                f"the collector at {address} lets nobody in so: {error.details()}"
            ) from None
        if error.code() not in (grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNAVAILABLE):
            return  # it answers, if only that it does not know the question
        raise CollectorUnreachable(
            f"no collector answers at {address}. Start one with `roofleet collector --grpc {address}`, "
            "or name another with --collector HOST:PORT"
        ) from None


class Uplink:
    """Sends what a spool holds: what comes in while it is connected first, and twice as much of what waited.

    So a page shows what is now, soon after an outage, and the backlog shrinks however much comes in.
    """

    def __init__(self, spool: Spool, channel: Any) -> None:
        self._spool = spool
        self._push = PUSH.client(channel)
        self._stopping = threading.Event()
        # sent on the present stream and not acknowledged, oldest first, without rows
        self._under_way: dict[int, Batch] = {}
        self._said = ""
        self._pauses = Pauses()

    def stop(self) -> None:
        """Ends `run` after the batches that are under way."""
        self._stopping.set()
        self._spool.wake()

    def drain(self, timeout_s: float) -> None:
        """Sends everything in the spool and returns when it is empty.

        Raises CollectorUnreachable if the collector goes away and does not come back in time, or takes
        nothing for so long; what is not acknowledged stays in the spool.
        """
        give_up = time.monotonic() + timeout_s
        window = WINDOW
        while self._spool.count():
            try:
                self._stream(window, follow=False, patience_s=timeout_s)
                give_up, window = time.monotonic() + timeout_s, WINDOW
            except grpc.RpcError as error:
                if error.code() == grpc.StatusCode.UNIMPLEMENTED:
                    raise CollectorUnreachable(_NO_COLLECTOR) from None
                if error.code() in _NOT_LET_IN:
                    raise CollectorUnreachable(f"the collector does not take it: {error.details()}") from None
                window = self._after(error, window)
                if time.monotonic() > give_up:
                    raise CollectorUnreachable(
                        f"the collector stopped answering ({_reason(error)}); "
                        f"{self._spool.count()} batches stay in {self._spool.path}"
                    ) from None
                if not _over_one_batch(error):
                    time.sleep(max(0.2, _retry_after_s(error)))

    def run(self) -> None:
        """Sends rows as they come until `stop`; waits for a collector that is away."""
        window = WINDOW
        while not self._stopping.is_set():
            try:
                # A narrow stream looks for the batch at fault; once it is through, the next is wide again.
                self._stream(window, follow=window == WINDOW)
                window = WINDOW
            except SpoolUnusable as error:
                self._say_once(str(error))
                self._stopping.wait(self._pauses.next_s())
            except grpc.RpcError as error:
                self._say(error)
                window = self._after(error, window)
                if not _over_one_batch(error):
                    self._stopping.wait(max(self._pauses.next_s(), _retry_after_s(error)))

    def _stream(self, window: int, *, follow: bool, patience_s: float | None = None) -> None:
        """One Push stream, until the spool is empty or, with `follow`, until the uplink is stopped.

        With `patience_s` it is called off when nothing was acknowledged for so long.
        """
        credit = threading.Semaphore(window)
        ended = threading.Event()
        self._under_way.clear()
        call = self._push(self._requests(credit, ended, follow=follow))
        progress = [time.monotonic()]
        reported_at = float("-inf")
        if patience_s is not None:
            threading.Thread(target=_watch, args=(call, progress, ended, patience_s), daemon=True).start()
        try:
            for ack in call:
                if ack.foreign:
                    self._spool.rename(ack.agent_id, ack.sequence)
                else:
                    sent = self._under_way.get(ack.sequence)
                    given_up = sent is not None and sent.given_up
                    self._spool.acknowledge([ack.sequence], stored=ack.duplicate or not given_up)
                if time.monotonic() - reported_at > REPORT_S:  # it is there: it hears what is gone
                    reported_at = time.monotonic()
                    self._spool.report_dropped()
                self._under_way.pop(ack.sequence, None)
                credit.release()
                progress[0] = time.monotonic()
                if ack.rejected_rows:
                    log.error(
                        "the collector set %d rows of batch %d aside: its table rejected_rows says why",
                        *(ack.rejected_rows, ack.sequence),
                    )
                self._said = ""
                self._pauses.begin_anew()
        finally:
            ended.set()
            credit.release()
            call.cancel()

    def _requests(
        self, credit: threading.Semaphore, ended: threading.Event, *, follow: bool
    ) -> Iterator[Batch]:
        """What is to be sent; gRPC takes from it on a thread of its own."""
        waited = now = self._spool.last_sequence()  # of what waited, and of what comes in meanwhile
        sent = 0
        while not ended.is_set():
            live = self._spool.pending(after=now, limit=LIVE)
            backlog = self._spool.pending(after=sent, until=waited, limit=2 * LIVE)
            if not live and not backlog:
                if not follow or self._stopping.is_set():
                    return
                self._spool.wait(0.2)
                continue
            going = [*live, *backlog]
            with suppress(SpoolUnusable):  # a disk that is full now
                if len(self._spool.note_sent(going)) < len(going):
                    continue  # some of them were let go of meanwhile
            for batch in going:
                credit.acquire()
                if ended.is_set():
                    return
                self._under_way[batch.sequence] = replace(batch, arrow_ipc=b"")
                yield batch
            now = live[-1].sequence if live else now
            sent = backlog[-1].sequence if backlog else sent

    def _after(self, error: Any, window: int) -> int:
        """What a broken stream means for the next: how many batches may be under way on it."""
        code = error.code()
        metadata = dict(error.trailing_metadata() or ())
        if code == grpc.StatusCode.INVALID_ARGUMENT and REJECTED_SEQUENCE in metadata:
            self._set_aside(int(metadata[REJECTED_SEQUENCE]), error.details())
            return window
        if code == grpc.StatusCode.PERMISSION_DENIED:
            self._spool.set_former_aside(error.details())
        if not _over_one_batch(error):
            return window
        # The collector could not say which batch it was: they are sent one at a time until it is found.
        if window == 1 and self._under_way:
            self._set_aside(next(iter(self._under_way)), error.details())
            return WINDOW
        return 1

    def _set_aside(self, sequence: int, reason: str) -> None:
        log.error("the collector cannot take batch %d: %s. It is set aside", sequence, reason)
        self._spool.set_aside(sequence, reason)

    def _say(self, error: Any) -> None:
        """Logs why nothing gets through, once for each reason."""
        if _over_one_batch(error):
            return
        if error.code() == grpc.StatusCode.UNIMPLEMENTED:
            self._say_once(_NO_COLLECTOR)
        elif self._said != error.code().name:
            log.warning(
                "the collector does not take rows (%s); they wait in %s", _reason(error), self._spool.path
            )
            self._said = error.code().name

    def _say_once(self, text: str) -> None:
        if text != self._said:
            log.error(text)
        self._said = text


_NOT_LET_IN = (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED)
_NO_COLLECTOR = (
    "what answers there is no Roofleet collector's gRPC port: name that one, 7700 unless told otherwise "
    "(7701 is its SQL)"
)


def _over_one_batch(error: Any) -> bool:
    """Whether a stream ended over a batch that can never be taken, and not because the collector is busy."""
    exhausted = error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED and not _retry_after_s(error)
    return exhausted or error.code() == grpc.StatusCode.INVALID_ARGUMENT


def _retry_after_s(error: Any) -> float:
    """When a collector that cannot keep up wants to be asked again; 0 if it does not say."""
    return float(dict(error.trailing_metadata() or ()).get(RETRY_AFTER_MS, 0)) / 1000


def _watch(call: Any, progress: list[float], ended: threading.Event, patience_s: float) -> None:
    """Calls a stream off that acknowledges nothing for too long."""
    while not ended.wait(0.5):
        if time.monotonic() - progress[0] > patience_s:
            call.cancel()
            return


def _reason(error: Any) -> str:
    return f"{error.code().name}: {error.details()}"
