"""Space that deleted rows leave behind, given back to the disk while the store is used.

The engine's file does not shrink by itself. A checkpoint frees the blocks of deleted rows, takes them for new
ones, and cuts off what is free at the file's end; VACUUM does nothing of the kind. What keeps a file long is
what lies at its end, so that is moved: its rows are stored again, which puts them into the first blocks that
are free, and deleted where they were, in one transaction. Nobody sees them twice or not at all. Tables with a
key, which the engine never tidies, are small and are copied whole.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

import duckdb

from roofleet_collector.store.engine import ask, is_of_the_machine

BEGIN_SHARE, END_SHARE = 0.25, 0.1
"""Share of the file that is free when moving begins, and when it ends."""
LEAST_FREE_BYTES = 16 * 1024 * 1024
ROWS_AT_ONCE = 10_000
"""Rows that are moved in one transaction."""
MOST_IN_VAIN = 3
"""Moves that leave the file as long as it was, after which all tables with a key are copied: their indexes
lie somewhere, and nothing tells where."""

Work = Callable[[duckdb.DuckDBPyConnection], Any]
Submit = Callable[[Work], Future[Any]]


@dataclass(frozen=True)
class Size:
    """Blocks of the file, how many of them are free, and what one takes in bytes."""

    blocks: int
    free_blocks: int
    block_bytes: int

    @property
    def bytes(self) -> int:
        """What the file takes, without its write-ahead log."""
        return self.blocks * self.block_bytes

    @property
    def free_bytes(self) -> int:
        """What of it is free."""
        return self.free_blocks * self.block_bytes

    def has_free(self, share: float) -> bool:
        """Whether so much of the file is free, and enough to be worth the work."""
        return self.free_bytes >= LEAST_FREE_BYTES and self.free_blocks >= share * self.blocks


def size(cursor: duckdb.DuckDBPyConnection) -> Size:
    """The size of the file."""
    (row,) = ask(cursor, "SELECT total_blocks, free_blocks, block_size FROM pragma_database_size()")
    return Size(*map(int, row))


def give_back(
    cursor: duckdb.DuckDBPyConnection, submit: Submit, tidied: Callable[[], bool]
) -> Iterator[None]:
    """Gives space back as it goes on, a small step each time; ends when not much of the file is free, or when
    that has to wait for a query.

    `cursor` looks, `submit` does a piece of work as a transaction, `tidied` makes a checkpoint if it can.
    """
    keyed = _with_key(cursor)
    copied, in_vain, share = False, 0, BEGIN_SHARE
    shortest = size(cursor).blocks
    while size(cursor).has_free(share):
        share = END_SHARE
        if in_vain < MOST_IN_VAIN:
            table, first, rows = _at_the_end(cursor)
            if table in keyed:
                submit(_copy(table, keyed[table])).result()
            for begin in range(first, first + rows, ROWS_AT_ONCE) if table not in keyed else ():
                submit(_move(table, begin, min(begin + ROWS_AT_ONCE, first + rows))).result()
                yield
        elif not copied:
            copied = True
            for table, made_by in keyed.items():
                submit(_copy(table, made_by)).result()
                yield
        else:
            return
        if not tidied():
            return
        now = size(cursor).blocks  # what was moved may lie at the end again, and make it longer for a while
        in_vain = 0 if now < shortest else in_vain + 1
        shortest = min(shortest, now)
        yield


def checkpoint(connection: duckdb.DuckDBPyConnection) -> bool:
    """Writes the write-ahead log into the file, and frees what was deleted as far as no query still reads it;
    False if some query must come to its end before."""
    try:
        ask(connection, "CHECKPOINT")
    except duckdb.TransactionException as error:
        if is_of_the_machine(error):
            raise
        return False
    return True


def _move(table: str, begin: int, end: int) -> Work:
    """Stores the rows from one place to another, which is not included, again in free blocks."""
    return lambda connection: _stored_again(connection, table, f"rowid >= {begin} AND rowid < {end}")


def _stored_again(connection: duckdb.DuckDBPyConnection, table: str, which: str) -> None:
    stored = ask(connection, f"INSERT INTO {table} SELECT * FROM {table} WHERE {which}")
    deleted = ask(connection, f"DELETE FROM {table} WHERE {which}")
    if stored != deleted:
        raise duckdb.InternalException(f"{stored} rows of {table} were stored again and {deleted} deleted")


def _copy(table: str, made_by: str) -> Work:
    """Stores a table again whole, with its key."""
    fresh = f"{table}_again"
    made = re.sub(rf"^CREATE TABLE (\S*\.)?{table}\b", f"CREATE TABLE {fresh}", made_by)

    def copy(connection: duckdb.DuckDBPyConnection) -> None:
        ask(connection, made)
        connection.execute(f"INSERT INTO {fresh} SELECT * FROM {table}")
        ask(connection, f"DROP TABLE {table}")
        ask(connection, f"ALTER TABLE {fresh} RENAME TO {table}")

    return copy


def _with_key(cursor: duckdb.DuckDBPyConnection) -> dict[str, str]:
    """Tables with a key, and the statement that makes each."""
    return dict(
        ask(
            cursor,
            "SELECT table_name, sql FROM duckdb_tables() WHERE NOT internal AND table_name IN "
            "(SELECT table_name FROM duckdb_constraints() WHERE constraint_type = 'PRIMARY KEY')",
        )
    )


def _at_the_end(cursor: duckdb.DuckDBPyConnection) -> tuple[str, int, int]:
    """What lies last in the file: a table, the first of the rows there, and how many they are."""
    ends: list[tuple[int, str, int, int]] = [(-1, "views_laid", 0, 0)]
    for (table,) in ask(cursor, "SELECT table_name FROM duckdb_tables() WHERE NOT internal"):
        first = 0
        for block, rows in ask(
            cursor,
            "SELECT max(greatest(block_id, coalesce(list_max(additional_block_ids), -1))), "
            f"sum(count) FILTER (column_path = '[0]') FROM pragma_storage_info('{table}') "
            "GROUP BY row_group_id ORDER BY row_group_id",
        ):
            ends.append((int(block), table, first, int(rows)))
            first += int(rows)
    _, table, first, rows = max(ends)
    return table, first, rows
