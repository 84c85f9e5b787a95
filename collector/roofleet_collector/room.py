"""Room for bytes that wait: who finds none waits in turn, and is told when that takes too long."""

from __future__ import annotations

import asyncio
from collections import deque

from roofleet_collector.errors import CollectorBusy


class Room:
    """So many bytes for all who take from it, on one event loop. The last is served last.

    What is larger than the whole room gets in when it is empty.
    """

    def __init__(self, most_bytes: int, patience_s: float | None = None) -> None:
        """Who waits longer than `patience_s` gets CollectorBusy; None waits for ever."""
        self._most, self._patience_s = most_bytes, patience_s
        self.taken = 0
        """Bytes that are in it."""
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    async def take(self, bytes: int) -> None:
        """Returns when the bytes are in; they are then to be given back."""
        if not self._waiting and self._fits(bytes):
            self.taken += bytes
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append((bytes, turn))
        try:
            async with asyncio.timeout(self._patience_s):
                await turn
        except (TimeoutError, asyncio.CancelledError) as error:
            if not turn.cancelled():
                self.give(bytes)  # it was let in at the same moment
            if isinstance(error, TimeoutError):
                raise CollectorBusy(f"{self.taken} bytes wait to be stored") from None
            raise

    def add(self, bytes: int) -> None:
        """Puts more in without waiting: what was let in turned out to be larger."""
        self.taken += bytes

    def give(self, bytes: int) -> None:
        """Gives bytes back, and lets in who waits."""
        self.taken -= bytes
        while self._waiting:
            wanted, turn = self._waiting[0]
            if turn.done():  # gone
                self._waiting.popleft()
            elif self._fits(wanted):
                self._waiting.popleft()
                self.taken += wanted
                turn.set_result(None)
            else:
                return

    def _fits(self, bytes: int) -> bool:
        return self.taken == 0 or self.taken + bytes <= self._most
