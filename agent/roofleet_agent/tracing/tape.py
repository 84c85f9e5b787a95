"""What a block of a model did, told so that another block can be said to have done the same.

Who follows a model on `meta` (the trace, the memory pass) notes what happens as events on a tape. On a tape a
storage is a number and a path is told from the block on, so that blocks that did the same have equal tapes,
and a tape can be played again for another block, with that block's storages and paths.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Container, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol

import torch


class Event(NamedTuple):
    """Something that happened to storages, told apart by their addresses, in the layer of a path.

    `begins` and `ends` say whether the first storage is one that was not there before, whatever had its
    address (`made`) or unless it is known (`met`), and whether it is no more afterwards.
    """

    what: str
    storages: tuple[int, ...] = ()
    path: str | None = None
    rest: Any = None
    begins: Literal["made", "met"] | None = None
    ends: bool = False

    def renamed(self, storage: Callable[[int], int], path: Callable[[str], str]) -> Event:
        """The same of other storages, at another path."""
        return Event(
            self.what,
            tuple(map(storage, self.storages)),
            None if self.path is None else path(self.path),
            *self[3:],
        )


class Follower(Protocol):
    """Somebody who notes what happens while a model runs."""

    def begin_tape(self, given: Container[int]) -> None:
        """From now on events are kept; the storages at these addresses were there before."""
        ...

    def end_tape(self) -> tuple[list[Event], set[int]]:
        """The events since, and the storages made meanwhile that somebody still holds."""
        ...

    def adopt(self, storage: torch.UntypedStorage) -> None:
        """Follows this storage, which no op made, as one of the events that are played next."""
        ...

    def happened(self, event: Event) -> None:
        """Notes an event that is played again."""
        ...

    def paused(self) -> AbstractContextManager[None]:
        """Nothing is noted while it lasts."""
        ...


followers: list[Follower] = []
"""Those who follow now."""

_fresh = itertools.count(-1, -1)
"""Numbers for storages that never were: addresses are positive."""


@dataclass(frozen=True)
class Tape:
    """What one follower noted of a block. Storages are numbers: 0 and up for those the block was given,
    -1 and down for those it made. `outliving` says which of these it left; None for one that was not seen."""

    events: tuple[Event, ...]
    outliving: tuple[int | None, ...]

    def play(
        self,
        follower: Follower,
        given: Sequence[int],
        left: Sequence[torch.UntypedStorage],
        path: Callable[[str], str],
    ) -> None:
        """Lets all of it happen again: to the storages `given`, leaving the storages `left`."""
        names: dict[int, int] = dict(enumerate(given))
        for number, storage in zip(self.outliving, left, strict=True):
            if number is not None:
                follower.adopt(storage)
                names[number] = storage._cdata

        def name(number: int) -> int:
            if number < 0 and number not in names:
                names[number] = next(_fresh)
            return names.get(number, number)

        for event in self.events:
            follower.happened(event.renamed(name, path))


def tape_of(
    events: Sequence[Event], given: Mapping[int, int], outliving: Sequence[int], path: Callable[[str], str]
) -> Tape:
    """The tape of these events: `given` numbers the storages the block was given, by address."""
    numbers, made = dict(given), 0
    told = []
    for event in events:
        first = event.storages[0] if event.storages else 0
        if event.begins == "made" or (event.begins == "met" and first not in numbers):
            made += 1
            numbers[first] = -made
        told.append(event.renamed(lambda address: numbers.get(address, address), path))
        if event.ends:
            numbers.pop(first, None)
    return Tape(tuple(told), tuple(numbers.get(address) for address in outliving))
