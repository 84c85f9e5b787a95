"""The terminal: tables and progress for people on a terminal, plain text when it is piped."""

from __future__ import annotations

import codecs
import io
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions


_PLAIN = {"–": "-", "…": "...", "×": "x", "µ": "u", "°": " ", "→": "->", "≤": "<=", "≥": ">=", "−": "-",
          "·": "-", "²": "2", "≈": "~"}  # fmt: skip
"""What stands for signs that a terminal's encoding does not have."""


def speak_plainly() -> None:
    """Lets signs that the terminal's encoding does not have be written in others, rather than fail."""

    def plainly(error: UnicodeError) -> tuple[str, int]:
        assert isinstance(error, UnicodeEncodeError)
        text = error.object[error.start : error.end]
        return "".join(_PLAIN.get(sign, "?") for sign in text), error.end

    codecs.register_error("roofleet", plainly)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="roofleet")


def out() -> Console:
    """Standard output; colours only on a terminal, and piped text is never wrapped."""
    from rich.console import Console

    return Console(
        width=None if sys.stdout.isatty() else 240, highlight=False, soft_wrap=not sys.stdout.isatty()
    )


def err() -> Console:
    """Standard error, for progress and messages."""
    from rich.console import Console

    return Console(stderr=True, highlight=False, soft_wrap=not sys.stderr.isatty())


def warn(text: str) -> None:
    """Says on standard error what goes on otherwise than its user may expect."""
    err().print(f"warning: {text}", markup=False, soft_wrap=True)


def table(
    title: str | None, headers: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[int] = ()
) -> Any:
    """A table; the columns numbered in `right` are set to the right, and hold figures that are not broken.

    Where the window is too narrow for its words it is a block of lines for each row.
    """
    return _Fitting(title, headers, rows, right)


class _Fitting:
    """What `table` gives: drawn as wide as there is room for."""

    def __init__(
        self, title: str | None, headers: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[int]
    ) -> None:
        self.title, self.headers, self.rows, self.right = title, headers, rows, right

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Any]:
        for gap in (3, 1):
            room = options.max_width - 2 - gap * (len(self.headers) - 1)
            widths = self._widths(room)
            if widths is not None:
                yield self._drawn(widths, gap)
                return
        yield from self._blocks()

    def _widths(self, room: int) -> list[int] | None:
        """The widths of the columns, the wider ones narrowed where there is less room than they would take;
        None if that would break a word or a figure."""
        columns = [[header, *cells] for header, *cells in zip(self.headers, *self.rows, strict=True)]
        widths = [max(map(_width, cells)) for cells in columns]
        least = [
            max((_width(piece) for cell in cells for piece in _pieces(cell)), default=0) for cells in columns
        ]
        if sum(least) > room:
            return None
        while sum(widths) > room:
            slack = [width - low for width, low in zip(widths, least, strict=True)]
            widths[slack.index(max(slack))] -= 1
        return widths

    def _drawn(self, widths: list[int], gap: int) -> Any:
        from rich import box
        from rich.table import Table

        made = Table(
            title=self.title,
            title_justify="left",
            title_style="bold",
            box=box.SIMPLE_HEAD,
            pad_edge=False,
            padding=(0, (gap - 1) // 2),
        )
        for index, (header, width) in enumerate(zip(self.headers, widths, strict=True)):
            justify: Any = "right" if index in self.right else "left"
            made.add_column(_wrapped(header, width), justify=justify, width=width, no_wrap=True)
        for row in self.rows:
            made.add_row(*(_wrapped(cell, width) for cell, width in zip(row, widths, strict=True)))
        return made

    def _blocks(self) -> Iterator[Any]:
        from rich.padding import Padding
        from rich.text import Text

        for heading in (self.title, self.headers[0]):
            if heading:
                yield Text.from_markup(heading, style="bold underline")
        for row in self.rows:
            yield Text.from_markup(row[0], style="bold")
            named = zip(self.headers[1:], row[1:], strict=True)
            yield Padding(facts([(name, cell) for name, cell in named if cell], right=False), (0, 0, 0, 2))


def _pieces(cell: str) -> list[str]:
    """What is not broken: words, and figures with their units; a range may be, before its `to`."""
    return [piece for piece in re.split(r"(?<!\d) |\n| (?=to )", cell) if piece]


def _width(cell: str) -> int:
    from rich.cells import cell_len

    shown = re.sub(r"(?<!\\)\[/?[a-z][a-z ]*\]|\[/\]", "", cell).replace("\\[", "[")
    return max(map(cell_len, shown.split("\n")))


def _wrapped(cell: str, width: int) -> str:
    """The cell in lines that are no wider, if its pieces are not."""
    lines = [""]
    for piece in _pieces(cell):
        joined = f"{lines[-1]} {piece}".strip()
        if lines[-1] and _width(joined) > width:
            lines.append(piece)
        else:
            lines[-1] = joined
    return "\n".join(lines)


def plain(width: int) -> Console:
    """A console without colours, for files and pipes."""
    from rich.console import Console

    return Console(width=max(width, 80), force_terminal=False, highlight=False)


def facts(rows: Sequence[tuple[str, str]], *, right: bool = True) -> Any:
    """Names and values in two columns."""
    from rich.table import Table

    made = Table(box=None, show_header=False, pad_edge=False)
    made.add_column()
    made.add_column(justify="right" if right else "left", overflow="fold")
    for name, value in rows:
        made.add_row(name, value)
    return made


@contextmanager
def progress(label: str, *, quiet: bool = False) -> Iterator[Any]:
    """Gives a function (what, fraction) that shows how far something is.

    On a terminal it is a bar; without one a line for each new thing that is done.
    """
    from rich.markup import escape

    console = err()
    if quiet:
        yield lambda what, fraction: None
        return
    if not console.is_terminal:
        last = [""]

        def line(what: str, fraction: float) -> None:
            what = what.partition(", iteration ")[0]  # see roofleet_agent.passes.base, which imports torch
            if what != last[0]:
                last[0] = what
                console.print(f"{label}: {what}", markup=False)

        yield line
        return
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(escape(label), total=1.0)
        yield lambda what, fraction: bar.update(
            task, completed=fraction, description=f"{escape(label)}: {escape(what)}"
        )
