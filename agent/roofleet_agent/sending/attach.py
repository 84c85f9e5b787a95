"""The standing connection to the collector: hello, then heartbeats, again whenever it breaks."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, Protocol

import grpc

from roofleet_agent.errors import SpoolUnusable
from roofleet_agent.sending.pauses import Pauses
from roofleet_agent.sending.spool import Spool
from roofleet_proto.records import AgentMessage, CollectorMessage, Heartbeat, Hello, Separation, Welcome
from roofleet_proto.services import ATTACH, HEARTBEAT_MS

log = logging.getLogger(__name__)


class Listener(Protocol):
    """Who hears what the collector says, and may say something on the connection."""

    def connected(self, send: Callable[[AgentMessage], None]) -> None:
        """There is a connection; `send` is of use until `disconnected`."""
        ...

    def disconnected(self) -> None:
        """It has ended, or never began."""
        ...

    def hear(self, message: CollectorMessage) -> None:
        """The collector said something."""
        ...


class Attachment:
    """Stays attached until stopped, under the identity that the spool has."""

    def __init__(self, hello: Hello, spool: Spool, channel: Any, listener: Listener | None = None) -> None:
        self._hello, self._spool, self._listener = hello, spool, listener
        self._attach = ATTACH.client(channel)
        self._stopping = threading.Event()
        self._out: queue.SimpleQueue[AgentMessage | None] | None = None
        self._heartbeat_s = HEARTBEAT_MS / 1000
        self.is_attached = False
        """Whether the collector has welcomed the connection that there is."""

    def stop(self) -> None:
        """Ends `run`, once what was to be said is said."""
        self._stopping.set()
        if (out := self._out) is not None:
            out.put(None)

    def run(self) -> None:
        """Attaches, and does so again when the collector went away."""
        pauses = Pauses()
        while not self._stopping.is_set():
            out = self._out = queue.SimpleQueue()
            try:
                for message in self._attach(self._messages(out)):
                    if isinstance(message, Welcome):
                        self._heartbeat_s = message.heartbeat_ms / 1000
                        pauses = Pauses()
                        self.is_attached = True
                        log.info("attached to a collector of version %s", message.collector_version)
                        if self._listener is not None:
                            self._listener.connected(out.put)
                    elif isinstance(message, Separation):
                        self._spool.separate()
                        break
                    elif self._listener is not None:
                        self._listener.hear(message)
            except SpoolUnusable as error:
                log.error("attachment ended: %s", error)
            except grpc.RpcError as error:
                log.debug("attachment ended: %s", error.details())
            finally:
                self.is_attached = False
                out.put(None)
                if self._listener is not None:
                    self._listener.disconnected()
            self._stopping.wait(pauses.next_s())

    def _messages(self, out: queue.SimpleQueue[AgentMessage | None]) -> Iterator[AgentMessage]:
        """What is said on one connection: what `out` is given, and heartbeats; until it is given None."""
        agent_id = self._spool.agent_id
        yield replace(self._hello, agent_id=agent_id, sent_unix_us=_now_us())
        next_beat = time.monotonic() + self._heartbeat_s
        while True:
            try:
                message = out.get(timeout=max(next_beat - time.monotonic(), 0.0))
            except queue.Empty:
                if agent_id != self._spool.agent_id:  # the rows say so by now
                    return
                next_beat = time.monotonic() + self._heartbeat_s
                yield Heartbeat(self._spool.count(), _now_us())
            else:
                if message is None:
                    return
                yield message


def _now_us() -> int:
    return time.time_ns() // 1000
