"""Which batches are stored: their sequences by agent and epoch, as ranges, in memory and in `ingest_log`."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from enum import Enum

import duckdb
import pyarrow as pa

from roofleet_collector.store.engine import ask

MARKED = 1024
"""The newest batches of an agent's epoch whose bytes are known again."""
MOST_MARKED = 2048
"""Epochs, of all agents, for which they are: of those that last sent something."""
MOST_ROWS = 100_000
"""Rows of `ingest_log` after which they are joined to what they are in memory."""

_SCHEMA = pa.schema(
    [
        pa.field("agent_id", pa.string()),
        pa.field("epoch", pa.int64()),
        pa.field("first_sequence", pa.int64()),
        pa.field("last_sequence", pa.int64()),
    ]
)

Key = tuple[str, int, int]
"""Agent, epoch and sequence of a batch."""


class Noted(Enum):
    """What became of a batch that was to be noted."""

    new = "new"
    stored = "stored"
    """It is stored or noted already."""
    foreign = "foreign"
    """Another batch is, with its key."""


class Ledger:
    """The keys of the batches in one database, used by the thread that writes to it.

    What is noted counts at once, and for good when the transaction it is written in is committed.
    """

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self._stored: dict[tuple[str, int], Ranges] = {}
        self._noted: dict[tuple[str, int], set[int]] = {}
        self._marks: OrderedDict[tuple[str, int], Marks] = OrderedDict()
        self._rows = 0
        self._rewritten = False
        for agent_id, epoch, first, last in ask(
            connection, "SELECT agent_id, epoch, first_sequence, last_sequence FROM ingest_log"
        ):
            self._ranges(agent_id, epoch).add(first, last)
            self._rows += 1
        self.batches = sum(ranges.count for ranges in self._stored.values())
        """How many batches are stored."""

    def note(self, key: Key, checksum: int | None = 0) -> Noted:
        """Notes a batch whose bytes have that checksum; None is like any."""
        agent_id, epoch, sequence = key
        stored = self._stored.get((agent_id, epoch))
        noted = self._noted.setdefault((agent_id, epoch), set())
        marks = self._marks_of((agent_id, epoch))
        if sequence in noted or (stored is not None and sequence in stored):
            foreign = checksum is not None and marks.differ(sequence, checksum)
            return Noted.foreign if foreign else Noted.stored
        noted.add(sequence)
        if checksum is not None:
            marks.put(sequence, checksum)
        return Noted.new

    def write(self, connection: duckdb.DuckDBPyConnection) -> None:
        """Writes what was noted since the last commit, in the transaction of its rows."""
        rows = [
            (agent_id, epoch, first, last)
            for (agent_id, epoch), sequences in self._noted.items()
            for first, last in joined(sequences)
        ]
        if not rows:
            return
        self._rewritten = self._rows + len(rows) > max(MOST_ROWS, 2 * len(self._stored))
        if self._rewritten:
            connection.execute("DELETE FROM ingest_log")
            rows += [
                (agent_id, epoch, first, last)
                for (agent_id, epoch), ranges in self._stored.items()
                for first, last in ranges
            ]
        columns = [
            pa.array(column, field.type)
            for column, field in zip(zip(*rows, strict=True), _SCHEMA, strict=True)
        ]
        connection.register("keys", pa.table(columns, schema=_SCHEMA))
        connection.execute("INSERT INTO ingest_log SELECT *, now() FROM keys")
        connection.unregister("keys")

    def committed(self) -> None:
        """What was noted is stored."""
        if self._rewritten:
            self._rows, self._rewritten = sum(len(ranges) for ranges in self._stored.values()), False
        for (agent_id, epoch), sequences in self._noted.items():
            ranges = self._ranges(agent_id, epoch)
            self.batches += len(sequences)
            for first, last in joined(sequences):
                ranges.add(first, last)
                self._rows += 1
        self._noted.clear()

    def rolled_back(self) -> None:
        """What was noted is not."""
        self._noted.clear()
        self._rewritten = False

    def _marks_of(self, epoch: tuple[str, int]) -> Marks:
        marks = self._marks.pop(epoch, None) or Marks()
        self._marks[epoch] = marks
        if len(self._marks) > MOST_MARKED:
            self._marks.popitem(last=False)
        return marks

    def _ranges(self, agent_id: str, epoch: int) -> Ranges:
        return self._stored.setdefault((agent_id, epoch), Ranges())


class Marks:
    """The checksums of the newest of numbered things."""

    def __init__(self) -> None:
        self._numbers = array("Q", bytes(8 * MARKED))
        self._checksums = array("I", bytes(4 * MARKED))

    def put(self, number: int, checksum: int) -> None:
        """Keeps the checksum of a thing, numbered from 1."""
        self._numbers[number % MARKED] = number
        self._checksums[number % MARKED] = checksum

    def differ(self, number: int, checksum: int) -> bool:
        """Whether the thing of that number is known to have another checksum."""
        return self._numbers[number % MARKED] == number and self._checksums[number % MARKED] != checksum


class Ranges:
    """A set of whole numbers, as ranges that neither overlap nor touch."""

    def __init__(self) -> None:
        self._firsts: list[int] = []
        self._lasts: list[int] = []

    def __contains__(self, number: int) -> bool:
        place = bisect_right(self._firsts, number) - 1
        return place >= 0 and number <= self._lasts[place]

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return zip(self._firsts, self._lasts, strict=True)

    def __len__(self) -> int:
        return len(self._firsts)

    @property
    def count(self) -> int:
        """How many numbers are in it."""
        return sum(self._lasts) - sum(self._firsts) + len(self._firsts)

    def add(self, first: int, last: int) -> None:
        """Puts the numbers from `first` to `last` in, both included."""
        begin = bisect_right(self._firsts, first)
        if begin > 0 and self._lasts[begin - 1] >= first - 1:
            begin -= 1
            first = self._firsts[begin]
        end = bisect_right(self._firsts, last + 1)
        if end > begin:
            last = max(last, self._lasts[end - 1])
        self._firsts[begin:end] = [first]
        self._lasts[begin:end] = [last]


def joined(numbers: Iterable[int]) -> list[tuple[int, int]]:
    """Numbers as ranges, in order."""
    ranges = Ranges()
    for number in sorted(numbers):
        ranges.add(number, number)
    return list(ranges)
