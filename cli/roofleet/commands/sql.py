"""`roofleet sql`: one read-only statement, through Flight SQL or straight on the file."""

from __future__ import annotations

import sys
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO

import typer

from roofleet import console
from roofleet.commands import options
from roofleet.errors import UserError, needs
from roofleet.folders import address, data_folder

if TYPE_CHECKING:
    import pyarrow as pa

MOST_ROWS_SHOWN = 200


class Format(StrEnum):
    """How rows are written."""

    table = "table"
    csv = "csv"
    json = "json"
    parquet = "parquet"


def sql(
    query: Annotated[
        str, typer.Argument(metavar="QUERY", help="One statement that reads; - for standard input.")
    ],
    server: Annotated[
        str | None,
        typer.Option("--server", metavar="HOST:PORT", help="Flight SQL of a collector.", show_default=False),
    ] = None,
    data: options.Data = None,
    format: Annotated[Format, typer.Option("--format", "-f", help="How to write the rows.")] = Format.table,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="File to write to instead of standard output.", show_default=False
        ),
    ] = None,
) -> None:
    """Ask the fleet's data in SQL.

    Without --server the data folder is asked: through the collector that holds it, or straight on its file.
    """
    if server is not None and data is not None:
        raise UserError("give --server or --data, not both")
    if format is Format.parquet and output is None and sys.stdout.isatty():
        raise UserError("parquet is not for a terminal: give --output FILE")
    if query == "-":
        query = sys.stdin.read()
    rows = _rows(query, server, data)
    if output is None:
        _write(rows, format, sys.stdout.buffer)
        return
    try:
        with output.open("wb") as file:
            _write(rows, format, file)
    except OSError as error:
        raise UserError(f"{output} cannot be written: {error.strerror}") from None


def _rows(query: str, server: str | None, data: Path | None) -> pa.Table:
    from roofleet.client import connect

    if server is not None:
        address(server)
        with connect(server) as connection:
            return connection.sql(query)
    folder = data_folder(data)
    needs("collector", "duckdb")
    from roofleet_collector.service import running_collector
    from roofleet_collector.store import DuckDBStore
    from roofleet_collector.store.duckdb_store import FILE_NAME

    running = running_collector(folder)
    if running is not None:
        with connect(running.sql) as connection:
            return connection.sql(query)
    if not (folder / FILE_NAME).exists():
        raise UserError(
            f"{folder} holds no data yet: run `roofleet profile MODEL` first, or name a folder with --data "
            "or a collector with --server"
        )
    store = DuckDBStore(folder)
    try:
        return store.query(query).read_all()
    finally:
        store.close()


def _write(rows: pa.Table, format: Format, file: BinaryIO) -> None:
    _WRITERS[format](rows, file)
    file.flush()


def _write_table(rows: pa.Table, file: BinaryIO) -> None:
    shown = rows.slice(0, MOST_ROWS_SHOWN).to_pylist()
    numeric = [i for i, field in enumerate(rows.schema) if _is_number(field.type)]
    cells = [[_cell(row[name]) for name in rows.column_names] for row in shown]
    table = console.table(None, rows.column_names, cells, right=numeric)
    if file is sys.stdout.buffer:
        out = console.out()
        out.print(table)
    else:
        from rich.console import Console

        with Console(file=None, width=240, record=True, quiet=False, force_terminal=False) as plain:
            with plain.capture() as capture:
                plain.print(table)
        file.write(capture.get().encode())
    if rows.num_rows > MOST_ROWS_SHOWN:
        console.err().print(
            f"{rows.num_rows} rows, the first {MOST_ROWS_SHOWN} shown; --format csv gives all"
        )


def _is_number(type: Any) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_integer(type) or pa.types.is_floating(type))


def _cell(value: object) -> str:
    from rich.markup import escape

    if value is None:
        return "NULL"
    return f"{value:.6g}" if isinstance(value, float) else escape(str(value))


def _write_csv(rows: pa.Table, file: BinaryIO) -> None:
    import csv
    import io
    import json

    text = io.TextIOWrapper(file, encoding="utf-8", newline="", write_through=True)
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(rows.column_names)
    for batch in rows.to_batches(max_chunksize=4096):
        for row in batch.to_pylist():
            writer.writerow(
                [
                    "" if v is None else json.dumps(v) if isinstance(v, (list, dict)) else v
                    for v in row.values()
                ]
            )
    text.detach()


def _write_json(rows: pa.Table, file: BinaryIO) -> None:
    import json

    file.write(json.dumps(rows.to_pylist(), default=str, indent=1).encode() + b"\n")


def _write_parquet(rows: pa.Table, file: BinaryIO) -> None:
    import pyarrow.parquet as parquet

    parquet.write_table(rows, file)


_WRITERS: dict[Format, Callable[[pa.Table, BinaryIO], None]] = {
    Format.table: _write_table,
    Format.csv: _write_csv,
    Format.json: _write_json,
    Format.parquet: _write_parquet,
}
