"""`roofleet sql`: one read-only statement, through Flight SQL or straight on the file."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO

import typer

from roofleet import console
from roofleet.asking.reading import reading
from roofleet.commands import options
from roofleet.commands.reaching import reaching
from roofleet.errors import UserError

if TYPE_CHECKING:
    import pyarrow as pa

MOST_ROWS_SHOWN = 200


class Format(StrEnum):
    """How rows are written."""

    table = "table"
    csv = "csv"
    json = "json"
    parquet = "parquet"


@reaching
def sql(
    query: Annotated[
        str, typer.Argument(metavar="QUERY", help="One statement that reads; - for standard input.")
    ],
    server: options.Server = None,
    data: options.Data = None,
    format: Annotated[
        Format | None,
        typer.Option(
            "--format",
            "-f",
            help="How to write the rows. Default: what the output's name ends with, else a table.",
            show_default=False,
        ),
    ] = None,
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
        raise UserError("give --server or --data, not both")  # before standard input is read
    if format is None:
        format = _by_suffix(output)
    if format is Format.parquet and output is None and sys.stdout.isatty():
        raise UserError("parquet is not for a terminal: give --output FILE")
    if query == "-":
        query = sys.stdin.read()
    if not query.strip():
        raise UserError("the query is empty")
    with reading(server, data) as ask:
        rows = ask(query, ())
    if output is None:
        _write(rows, format, sys.stdout.buffer)
        return
    try:
        with output.open("wb") as file:
            _write(rows, format, file)
    except OSError as error:
        raise UserError(f"{output} cannot be written: {error.strerror}") from None


def _by_suffix(output: Path | None) -> Format:
    """The format that a file's name asks for; a table for none, and for a text."""
    suffix = output.suffix.lower().removeprefix(".") if output is not None else ""
    suffix = {"pq": "parquet", "": "table", "txt": "table"}.get(suffix, suffix)
    if suffix not in [form.value for form in Format]:
        raise UserError(f"{output} names no format that is known here: say which with --format")
    return Format(suffix)


def _write(rows: pa.Table, format: Format, file: BinaryIO) -> None:
    _WRITERS[format](rows, file)
    file.flush()


def _rows_of(rows: pa.Table) -> Iterator[tuple[Any, ...]]:
    """Rows by position: two columns may have one name."""
    for batch in rows.to_batches(max_chunksize=4096):
        yield from zip(*(column.to_pylist() for column in batch.columns), strict=True)


def _write_table(rows: pa.Table, file: BinaryIO) -> None:
    names = rows.column_names
    cells = [[_cell(value) for value in row] for row in _rows_of(rows.slice(0, MOST_ROWS_SHOWN))]
    widths = [max([len(n), *(len(row[i]) for row in cells)]) for i, n in enumerate(names)]
    natural = sum(widths) + 2 * len(widths) + 2
    on_terminal = file is sys.stdout.buffer and sys.stdout.isatty()
    if on_terminal and natural > console.out().width:
        # too wide for the window: a line a value, as psql does
        shown = [console.facts(list(zip(names, row, strict=True)), right=False) for row in cells]
    else:
        numeric = [i for i, field in enumerate(rows.schema) if _is_number(field.type)]
        shown = [console.table(None, names, cells, right=numeric)]
    plain = console.out() if on_terminal else console.plain(natural)
    with plain.capture() as capture:
        for index, part in enumerate(shown):
            if len(shown) > 1:
                plain.rule(f"row {index + 1}", align="left")
            plain.print(part)
    file.write(capture.get().encode())
    if rows.num_rows > MOST_ROWS_SHOWN:
        console.err().print(
            f"{rows.num_rows} rows, of which {MOST_ROWS_SHOWN} are shown; --format csv has all"
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

    def cell(value: Any) -> Any:
        if value is None:
            return ""
        return json.dumps(value, default=str) if isinstance(value, (list, dict)) else value

    text = io.TextIOWrapper(file, encoding="utf-8", newline="", write_through=True)
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(rows.column_names)
    writer.writerows([cell(value) for value in row] for row in _rows_of(rows))
    text.detach()


def _write_json(rows: pa.Table, file: BinaryIO) -> None:
    import json
    import math

    def plain(value: Any) -> Any:
        # JSON knows neither infinity nor NaN
        return None if isinstance(value, float) and not math.isfinite(value) else value

    names = _distinct(rows.column_names)
    listed = [dict(zip(names, map(plain, row), strict=True)) for row in _rows_of(rows)]
    file.write(json.dumps(listed, default=str, indent=1).encode() + b"\n")


def _distinct(names: list[str]) -> list[str]:
    """The names, a repeated one with a number: a, a_2."""
    seen: dict[str, int] = {}
    distinct = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        distinct.append(name if seen[name] == 1 else f"{name}_{seen[name]}")
    return distinct


def _write_parquet(rows: pa.Table, file: BinaryIO) -> None:
    import pyarrow.parquet as parquet

    parquet.write_table(rows.rename_columns(_distinct(rows.column_names)), file)


_WRITERS: dict[Format, Callable[[pa.Table, BinaryIO], None]] = {
    Format.table: _write_table,
    Format.csv: _write_csv,
    Format.json: _write_json,
    Format.parquet: _write_parquet,
}
