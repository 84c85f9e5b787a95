"""SQL over what is stored: a collector named, the one that holds a data folder, or the folder's file."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from roofleet import console
from roofleet.errors import UserError, needs
from roofleet.naming.doors import door, here, local_door
from roofleet.naming.folders import address, data_folder

if TYPE_CHECKING:
    import pyarrow as pa

Query = Callable[[str, Sequence[object]], "pa.Table"]
"""Rows of one statement with its parameters by place."""


@contextmanager
def reading(server: str | None, data: Path | None) -> Iterator[Query]:
    """A function that answers SQL while the block runs.

    `server` is a collector's Flight SQL at HOST:PORT. Without one the data folder is asked, as
    `asking_folder` does. UserError if both are named, or the folder has no data.
    """
    from roofleet.api.client import connect

    if server is not None and data is not None:
        raise UserError("give --server or --data, not both")
    if server is not None:
        address(server)
        with connect(server, door()) as connection:
            yield connection.sql
        return
    folder = data_folder(data)
    store_kept(folder)
    yield asking_folder(folder)


def asking_folder(folder: Path) -> Query:
    """A function that asks a data folder, through the collector that holds it at the moment or straight on
    its file, which it holds only meanwhile. UserError, when it is called, if there are no data."""
    from roofleet_collector.presence import running_collector

    def ask(sql: str, parameters: Sequence[object]) -> pa.Table:
        from roofleet.api.client import connect

        running = running_collector(folder)
        if running is not None:
            with connect(here(running.sql, running), local_door(folder, running)) as connection:
                return connection.sql(sql, parameters)
        needs("collector", "duckdb")
        from roofleet_collector.store.visits import holds_data, visited

        if not holds_data(folder):
            raise UserError(
                f"{folder} holds no data yet: run `roofleet profile MODEL` first, or name a folder with "
                "--data or a collector with --server"
            )
        return visited(folder).query(sql, parameters)

    return ask


def store_kept(folder: Path) -> None:
    """Stores what an earlier run kept in the folder, because its store was held by others or was missing."""
    from roofleet.running.destinations import DataFolder, NotDelivered
    from roofleet_agent.sending.spool import Spool, run_spool

    if not run_spool(folder, None).exists() or not os.access(folder, os.W_OK):
        return  # nothing is kept, or nobody but its owner may store it
    spool = Spool(run_spool(folder, None))
    try:
        if spool.count():
            DataFolder(folder).deliver(spool)
    except NotDelivered as error:
        console.warn(f"runs in {spool.path} are not shown: {error}")
    finally:
        spool.close()
