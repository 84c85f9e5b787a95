"""Room for bytes: it is never overfilled, who waits is served in turn, and nobody waits for ever."""

from __future__ import annotations

import asyncio

import pytest

from roofleet_collector.errors import CollectorBusy
from roofleet_collector.room import Room


def test_who_finds_no_room_waits_until_some_is_given_back() -> None:
    """In the order in which they came, and a small one behind a large one does not overtake it."""

    async def scene() -> list[str]:
        room, order = Room(100), list[str]()

        async def take(name: str, bytes: int) -> None:
            await room.take(bytes)
            order.append(name)

        await take("first", 80)
        waiting = [asyncio.create_task(take("large", 90)), asyncio.create_task(take("small", 5))]
        await asyncio.sleep(0)
        assert (order, room.taken) == (["first"], 80)
        room.give(80)
        await asyncio.gather(*waiting)
        assert room.taken == 95
        return order

    assert asyncio.run(scene()) == ["first", "large", "small"]


def test_what_is_larger_than_the_room_gets_in_when_it_is_empty() -> None:
    """A message that no room holds is not refused for ever."""

    async def scene() -> None:
        room = Room(10)
        await room.take(1000)
        assert room.taken == 1000

    asyncio.run(scene())


def test_who_waits_too_long_is_told() -> None:
    """And leaves nothing behind: what is given back then is there for the next."""

    async def scene() -> None:
        room = Room(10, patience_s=0.01)
        await room.take(10)
        with pytest.raises(CollectorBusy, match="10 bytes wait"):
            await room.take(5)
        room.give(10)
        await room.take(10)
        assert room.taken == 10

    asyncio.run(scene())


def test_who_leaves_while_it_waits_takes_no_room() -> None:
    """A stream that is cancelled makes way for those behind it."""

    async def scene() -> None:
        room = Room(10)
        await room.take(10)
        leaving = asyncio.create_task(room.take(10))
        staying = asyncio.create_task(room.take(3))
        await asyncio.sleep(0)
        leaving.cancel()
        await asyncio.sleep(0)
        room.give(10)
        await staying
        assert room.taken == 3

    asyncio.run(scene())
