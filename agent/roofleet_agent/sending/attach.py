"""The standing connection to the collector: hello, then heartbeats, again whenever it breaks."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import grpc

from roofleet_agent.sending.pauses import Pauses
from roofleet_agent.sending.spool import Spool
from roofleet_proto.records import AgentMessage, Heartbeat, Hello, Welcome
from roofleet_proto.services import ATTACH, HEARTBEAT_MS

log = logging.getLogger(__name__)


class Attachment:
    """Stays attached until stopped."""

    def __init__(self, hello: Hello, spool: Spool, channel: Any) -> None:
        self._hello, self._spool = hello, spool
        self._attach = ATTACH.client(channel)
        self._stopping = threading.Event()
        self._heartbeat_s = HEARTBEAT_MS / 1000

    def stop(self) -> None:
        """Ends `run`."""
        self._stopping.set()

    def run(self) -> None:
        """Attaches, and does so again when the collector went away."""
        pauses = Pauses()
        while not self._stopping.is_set():
            try:
                for message in self._attach(self._messages()):
                    if isinstance(message, Welcome):
                        self._heartbeat_s = message.heartbeat_ms / 1000
                        pauses = Pauses()
                        log.info("attached to a collector of version %s", message.collector_version)
            except grpc.RpcError as error:
                log.debug("attachment ended: %s", error.details())
            self._stopping.wait(pauses.next_s())

    def _messages(self) -> Iterator[AgentMessage]:
        yield replace(self._hello, sent_unix_us=_now_us())
        while not self._stopping.wait(self._heartbeat_s):
            yield Heartbeat(self._spool.count(), _now_us())


def _now_us() -> int:
    return time.time_ns() // 1000
