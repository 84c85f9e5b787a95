"""One attached agent in a data folder: two would send each reading twice, and answer for one host."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import TextIO

from roofleet_agent.errors import AgentRuns

FILE_NAME = "agent.lock"


def alone_in(folder: Path) -> TextIO:
    """Holds the folder until the file is closed or the process has ended, however it does.

    AgentRuns if another one holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file = (folder / FILE_NAME).open("a+")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        holder = file.read().strip()
        file.close()
        raise AgentRuns(
            f"an agent runs in {folder} already" + (f" (process {holder})" if holder else "") + ": end that "
            "one, or give this one a folder of its own with --data"
        ) from None
    file.truncate(0)
    file.write(f"{os.getpid()}\n")
    file.flush()
    return file
