"""A network between agents and a collector, on loopback, that can be cut, stall, or forget connections."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator


class Network:
    """Carries connections to one port; agents dial `address`."""

    def __init__(self, to: str) -> None:
        host, _, port = to.rpartition(":")
        self._to = (host, int(port))
        self._flows = threading.Event()
        self._flows.set()
        self._is_cut = False
        self._lock = threading.Lock()
        self._links: list[_Link] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """Connections break, and new ones are refused."""
        with self._lock:
            self._is_cut = True
        self.drop()

    def stall(self) -> None:
        """Nothing gets through; what is on its way is kept."""
        self._flows.clear()

    def forget(self) -> None:
        """Connections stay open on both sides, and what is said on them goes nowhere; new ones work."""
        for link in self._all():
            link.forgotten = True

    def drop(self) -> None:
        """Connections break."""
        for link in self._all():
            link.close()

    def heal(self) -> None:
        """All is well; what was forgotten stays so."""
        with self._lock:
            self._is_cut = False
        self._flows.set()

    def close(self) -> None:
        """Ends it."""
        self.heal()
        self._listener.close()
        self.drop()

    def _all(self) -> list[_Link]:
        with self._lock:
            return list(self._links)

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            try:
                if self._is_cut:
                    raise ConnectionRefusedError
                far = socket.create_connection(self._to, timeout=10)
            except OSError:  # nobody listens there
                near.close()
                continue
            far.settimeout(None)
            link = _Link(near, far, self._flows)
            with self._lock:
                self._links = [*(other for other in self._links if not other.over), link]


class _Link:
    """One connection, in two parts."""

    def __init__(self, near: socket.socket, far: socket.socket, flows: threading.Event) -> None:
        self._ends, self._flows = (near, far), flows
        self.forgotten = self.over = False
        for source, target in ((near, far), (far, near)):
            threading.Thread(target=self._carry, args=(source, target), daemon=True).start()

    def close(self) -> None:
        """Breaks it."""
        self.over = True
        for end in self._ends:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def _carry(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            for data in _read(source):
                self._flows.wait()
                if not self.forgotten:
                    target.sendall(data)
            if not self.forgotten:  # one side has ended it, and the other does not hear of it where forgotten
                self.close()


def _read(source: socket.socket) -> Iterator[bytes]:
    while data := source.recv(65536):
        yield data
