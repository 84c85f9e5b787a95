"""Ingest.Push: one stream of batches, read as there is room for them and acknowledged in their order."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any
from weakref import WeakValueDictionary

from roofleet_collector.errors import RejectedBatch, RowsRefused
from roofleet_collector.ingest import Ingest
from roofleet_collector.keys.gate import caller
from roofleet_collector.keys.identity import Identity
from roofleet_collector.limits import USUAL, Senders
from roofleet_collector.metrics import Metrics
from roofleet_collector.room import Room
from roofleet_collector.store import Append, Receipt
from roofleet_proto import services
from roofleet_proto.records import Ack, Batch

WINDOW = 64
"""Batches of one stream that may wait for their commit before the next is read."""
PATIENCE_S = 10.0
"""How long a message waits for room before its sender is told to come back."""
LARGE_BYTES = 256 * 1024
"""Messages from this size on are decoded beside the event loop, two at a time."""


@dataclass
class _Waiting:
    batch: Batch
    """Without its rows."""
    rows: Mapping[str, int]
    """How many of each table."""
    committed: asyncio.Future[Receipt]
    came_s: float


class Pushes:
    """All Push streams of one server: they share room and the threads that decode."""

    def __init__(self, ingest: Ingest, metrics: Metrics, senders: Senders = USUAL.senders) -> None:
        self._ingest, self._metrics, self._senders = ingest, metrics, senders
        self._room = Room(senders.all_bytes, PATIENCE_S)
        self._rooms: WeakValueDictionary[str, Room] = WeakValueDictionary()
        self._decoding = ThreadPoolExecutor(2, "roofleet-decode")
        metrics.waiting_bytes.set_function(lambda: self._room.taken)

    def close(self) -> None:
        """Ends the threads that decode."""
        self._decoding.shutdown(wait=False, cancel_futures=True)

    async def serve(self, requests: AsyncIterator[bytes], context: Any) -> None:
        """One stream, to its end. Raises what ended it, after everything before it was acknowledged.

        A batch that can never be stored is a RejectedBatch, one that finds no room in time CollectorBusy.
        """
        waiting: asyncio.Queue[_Waiting | Exception | None] = asyncio.Queue(WINDOW)
        own = self._room_of(caller().identity)
        reading = asyncio.create_task(self._read(requests, waiting, own))
        try:
            while (item := await waiting.get()) is not None:
                if isinstance(item, Exception):
                    raise item
                try:
                    receipt = await asyncio.shield(item.committed)
                except RowsRefused as error:
                    raise RejectedBatch(str(error), item.batch) from error
                self._metrics.answered(receipt, item.rows, time.monotonic() - item.came_s)
                await context.write(services.PUSH.encode_reply(_ack(item.batch, receipt)))
        finally:
            # What waits for its commit is committed, and a duplicate when the agent sends it again.
            reading.cancel()

    def _room_of(self, who: Identity) -> Room:
        """The room of a stream's own, which streams of one token share: more of them are no more room."""
        if who.token_id is None:
            return Room(self._senders.stream_bytes)
        room = self._rooms.get(who.name)
        if room is None:
            room = self._rooms[who.name] = Room(self._senders.stream_bytes)
        return room

    async def _read(self, requests: AsyncIterator[bytes], waiting: asyncio.Queue[Any], own: Room) -> None:
        try:
            async for data in requests:
                await waiting.put(await self._take(data, own))
                del data  # while the next is waited for
        except Exception as error:
            await waiting.put(error)
        else:
            await waiting.put(None)

    async def _take(self, data: bytes, own: Room) -> _Waiting:
        size, came_s = len(data), time.monotonic()
        await own.take(size)
        try:
            await self._room.take(size)
        except BaseException:
            own.give(size)
            raise
        try:
            batch, rows = await self._rows(data)
            caller().must_own(batch.agent_id)
            if (more := rows.bytes - size) > 0:
                own.add(more)
                self._room.add(more)
                size += more
            counts = {name: table.num_rows for name, table in rows.rows.items()}
            committed = asyncio.wrap_future(self._ingest.store(rows))
        except BaseException:
            self._give(own, size)
            raise
        committed.add_done_callback(lambda done: self._settled(done, own, size))
        return _Waiting(batch, counts, committed, came_s)

    async def _rows(self, data: bytes) -> tuple[Batch, Append]:
        if len(data) < LARGE_BYTES:
            return self._decode(data)
        return await asyncio.get_running_loop().run_in_executor(self._decoding, self._decode, data)

    def _decode(self, data: bytes) -> tuple[Batch, Append]:
        batch: Batch = services.PUSH.decode_request(data)
        rows = self._ingest.read(batch)
        return Batch(batch.agent_id, batch.epoch, batch.sequence, batch.table, b""), rows

    def _settled(self, committed: asyncio.Future[Receipt], own: Room, size: int) -> None:
        self._give(own, size)
        if not committed.cancelled():
            committed.exception()  # whether or not somebody is left to hear of it

    def _give(self, own: Room, bytes: int) -> None:
        own.give(bytes)
        self._room.give(bytes)


def _ack(batch: Batch, receipt: Receipt) -> Ack:
    key = (batch.agent_id, batch.epoch, batch.sequence)
    return Ack(*key, receipt.duplicate, receipt.rejected, receipt.foreign)
