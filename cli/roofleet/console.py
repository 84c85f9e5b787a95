"""The terminal: tables and progress for people on a terminal, plain text when it is piped."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console


def out() -> Console:
    """Standard output; colours only on a terminal, and piped text is never wrapped."""
    from rich.console import Console

    return Console(
        width=None if sys.stdout.isatty() else 240, highlight=False, soft_wrap=not sys.stdout.isatty()
    )


def err() -> Console:
    """Standard error, for progress and messages."""
    from rich.console import Console

    return Console(stderr=True, highlight=False)


def table(
    title: str | None, headers: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[int] = ()
) -> Any:
    """A table; the columns numbered in `right` are set to the right."""
    from rich import box
    from rich.table import Table

    made = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    for index, header in enumerate(headers):
        made.add_column(header, justify="right" if index in right else "left", overflow="fold")
    for row in rows:
        made.add_row(*row)
    return made


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
