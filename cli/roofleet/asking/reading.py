"""SQL over what is stored: a collector named, the one that holds a data folder, or the folder's file."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from roofleet.errors import UserError, needs
from roofleet.naming.folders import address, data_folder

if TYPE_CHECKING:
    import pyarrow as pa

Query = Callable[[str, Sequence[object]], "pa.Table"]
"""Rows of one statement with its parameters by place."""


@contextmanager
def reading(server: str | None, data: Path | None) -> Iterator[Query]:
    """A function that answers SQL while the block runs.

    `server` is a collector's Flight SQL at HOST:PORT. Without one the data folder is asked, through the
    collector that holds it or straight on its file. UserError if both are named, or the folder has no data.
    """
    from roofleet.api.client import connect

    if server is not None and data is not None:
        raise UserError("give --server or --data, not both")
    if server is not None:
        address(server)
        with connect(server) as connection:
            yield connection.sql
        return
    folder = data_folder(data)
    from roofleet_collector.presence import running_collector

    running = running_collector(folder)
    if running is not None:
        with connect(running.sql) as connection:
            yield connection.sql
        return
    needs("collector", "duckdb")
    from roofleet_collector.store import DuckDBStore
    from roofleet_collector.store.duckdb_store import FILE_NAME

    if not (folder / FILE_NAME).exists():
        raise UserError(
            f"{folder} holds no data yet: run `roofleet profile MODEL` first, or name a folder with --data "
            "or a collector with --server"
        )
    store = DuckDBStore(folder)
    try:
        yield lambda sql, parameters: store.query(sql, parameters).read_all()
    finally:
        store.close()
