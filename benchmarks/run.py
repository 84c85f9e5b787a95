"""`make bench`: every speed that the project promises, as a ratio inside one run, with peers beside ours.

Prints a table and writes bench.json. Name benchmarks to run only those: `benchmarks/run.py ingest`.
"""

from __future__ import annotations

import json
import platform
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks import analyze, counts, ingest, small_query, timed_pass, trace
from benchmarks.figure import Figure

BENCHMARKS = {
    "timed_pass": timed_pass.measure,
    "ingest": ingest.measure,
    "counts": counts.measure,
    "trace": trace.measure,
    "analyze": analyze.measure,
    "small_query": small_query.measure,
}


def main(wanted: list[str]) -> None:
    """Runs the benchmarks named, or all."""
    console = Console()
    unknown = set(wanted) - set(BENCHMARKS)
    if unknown:
        sys.exit(f"no benchmark {sorted(unknown)}; there are {', '.join(BENCHMARKS)}")
    figures: list[Figure] = []
    for name in wanted or BENCHMARKS:
        with console.status(f"{name} …"):
            figures += BENCHMARKS[name]()
    table = Table("benchmark", "figure", "value", "goal", "")
    for figure in figures:
        goal = "" if figure.goal is None else f"{'at most' if figure.at_most else 'at least'} {figure.goal:g}"
        kept = "" if figure.goal is None else ("kept" if figure.kept else "[bold]missed[/bold]")
        table.add_row(figure.benchmark, figure.name, f"{figure.value:.3g} {figure.unit}", goal, kept)
    console.print(table)
    document = {
        "machine": {
            "processor": platform.processor() or platform.machine(),
            "python": platform.python_version(),
        },
        "figures": [figure.as_dict() for figure in figures],
    }
    Path("bench.json").write_text(json.dumps(document, indent=1) + "\n")
    console.print("written to bench.json")


if __name__ == "__main__":
    main(sys.argv[1:])
