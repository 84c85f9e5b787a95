"""`make bench`: every speed that the project promises, as a ratio inside one run, with peers beside ours.

Prints a table and writes bench.json. Name benchmarks to run only those: `benchmarks/run.py ingest`.
"""

from __future__ import annotations

import json
import platform
import sys
import time
import traceback
from importlib import import_module
from itertools import chain
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from benchmarks.figure import Figure

BENCHMARKS = (
    *("timed_pass", "pairs", "roofs", "ingest", "fleet", "counts", "trace", "analyze", "small_query"),
    "hostile",
    "growth",
    "retention",
)
"""Each a file here with a function `measure`; imported when it has its turn, so that it fails alone."""

FILE = Path("bench.json")
FAILED, INTERRUPTED = 1, 130


def main(wanted: list[str]) -> int:
    """Runs the benchmarks named, or all; returns the exit status.

    A part that fails is a line of the table, and the others go on. What there is by then is written after
    each part; figures of parts that were not asked for stay as they were in the file.
    """
    console = Console()
    unknown = set(wanted) - set(BENCHMARKS)
    if unknown:
        sys.exit(f"no benchmark {sorted(unknown)}; there are {', '.join(BENCHMARKS)}")
    chosen = wanted or list(BENCHMARKS)
    figures: dict[str, list[Figure]] = {}
    failed: dict[str, str] = {}
    before = [figure for figure in _figures_there() if wanted and figure.get("part") not in wanted]
    stopped = False
    for number, name in enumerate(chosen):
        console.print(f"{number + 1} of {len(chosen)}: {name} …", highlight=False)
        began = time.monotonic()
        try:
            with console.status(name):
                figures[name] = measure(name)
        except KeyboardInterrupt:
            stopped = True
            failed |= dict.fromkeys(chosen[number:], "interrupted")
        except BaseException as error:  # a part may also end by an assertion, or by SystemExit
            traceback.print_exc()
            failed[name] = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
        console.print(f"   {failed.get(name, 'done')} ({time.monotonic() - began:.0f} s)", markup=False)
        _write(before, figures, failed)
        if stopped:
            break
    console.print(_table(figures, failed))
    console.print(f"written to {FILE}")
    return INTERRUPTED if stopped else FAILED if failed else 0


def measure(name: str) -> list[Figure]:
    """The figures of one part."""
    figures: list[Figure] = import_module(f"benchmarks.{name}").measure()
    return figures


def _table(figures: dict[str, list[Figure]], failed: dict[str, str]) -> Table:
    table = Table("benchmark", "figure", "value", "goal", "")
    for figure in chain.from_iterable(figures.values()):
        goal = "" if figure.goal is None else f"{'at most' if figure.at_most else 'at least'} {figure.goal:g}"
        kept = "" if figure.goal is None else ("kept" if figure.kept else "[bold]missed[/bold]")
        table.add_row(figure.benchmark, figure.name, f"{figure.value:.3g} {figure.unit}", goal, kept)
    for name, why in failed.items():
        table.add_row(name, escape(why), "", "", "[bold]failed[/bold]")
    return table


def _figures_there() -> list[dict[str, Any]]:
    try:
        found: list[dict[str, Any]] = json.loads(FILE.read_text())["figures"]
    except (OSError, ValueError, KeyError):
        return []
    return found


def _write(before: list[dict[str, Any]], figures: dict[str, list[Figure]], failed: dict[str, str]) -> None:
    measured = [figure.as_dict() | {"part": part} for part, of_part in figures.items() for figure in of_part]
    document = {
        "machine": {
            "processor": platform.processor() or platform.machine(),
            "python": platform.python_version(),
        },
        "figures": before + measured,
        "failed": failed,
    }
    FILE.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
