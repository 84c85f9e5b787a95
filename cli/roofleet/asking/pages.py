"""The dashboard's page of a run: a link where one serves the folder, else the command that would."""

from __future__ import annotations

import json
import os
import shlex
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from roofleet.naming.folders import data_folder

NOTE_NAME = "dashboard.json"
ANSWER_S = 1.0


@contextmanager
def noted(folder: Path, pages: str) -> Iterator[None]:
    """Leaves a note in a folder, while it lasts, that a dashboard serves it at that address."""
    note = folder / NOTE_NAME
    folder.mkdir(parents=True, exist_ok=True)
    note.write_text(json.dumps({"pid": os.getpid(), "pages": pages}))
    try:
        yield
    finally:
        note.unlink(missing_ok=True)


def way_to_pages(run_id: str, data: Path | None, server: str | None = None) -> str:
    """Where the page of a run is seen: the address of a dashboard that runs, or the command that starts one.

    `server` is the Flight SQL of the collector that has the run; without it the data folder does.
    """
    if server is not None:
        return f"roofleet dashboard --server {server}"
    folder = data_folder(data)
    try:
        pages = str(json.loads((folder / NOTE_NAME).read_text())["pages"])
    except (OSError, ValueError, KeyError, TypeError):
        pages = ""
    if pages and _serves(pages):
        return f"{pages}/runs?run={run_id}"
    place = "" if folder == data_folder(None) else f" --data {shlex.quote(str(folder))}"
    return f"roofleet dashboard{place}"


def _serves(pages: str) -> bool:
    try:
        with urllib.request.urlopen(pages, timeout=ANSWER_S) as answer:
            return b"Roofleet" in answer.read(65_536)
    except (urllib.error.URLError, OSError, ValueError):
        return False
