"""A process that ends by SIGKILL at a step of a batch's life: `python -m tests.faults STEP TIMES …`.

Then follow `roofleet` and its arguments, or `send`, the path of a spool, the address of a collector and how
many batches are written first. What was written is told a line a batch.
"""

from __future__ import annotations

import functools
import os
import signal
import sys
from pathlib import Path
from typing import Any

from tests.support import spans

ROWS = 50


def _agents() -> dict[str, tuple[Any, str, str]]:
    from roofleet_agent.sending import dropping
    from roofleet_agent.sending.spool import Spool
    from roofleet_proto.services import PUSH

    return {
        "before it is kept": (dropping, "make_room", "after"),
        "kept": (Spool, "wake", "before"),
        "taken from the spool": (Spool, "pending", "after"),
        "sent": (PUSH, "encode_request", "after"),
        "acknowledged": (Spool, "acknowledge", "before"),
        "forgotten": (Spool, "acknowledge", "after"),
    }


def _collectors() -> dict[str, tuple[Any, str, str]]:
    from roofleet_collector.ingest import Ingest
    from roofleet_collector.store.duckdb_store import DuckDBStore
    from roofleet_collector.store.writer import Writer
    from roofleet_proto.services import PUSH

    return {
        "received": (Ingest, "read", "before"),
        "decoded": (Ingest, "read", "after"),
        "queued": (Writer, "submit_gathered", "after"),
        "begun": (DuckDBStore, "_append_all", "before"),
        "inserted": (DuckDBStore, "_append_all", "after"),
        "committed": (DuckDBStore, "_committed", "before"),
        "about to be acknowledged": (PUSH, "encode_reply", "before"),
        "acknowledged to the agent": (PUSH, "encode_reply", "after"),
    }


AGENT_STEPS = (
    "before it is kept", "kept", "taken from the spool", "sent", "acknowledged", "forgotten",
)  # fmt: skip
COLLECTOR_STEPS = (
    "received", "decoded", "queued", "begun", "inserted", "committed", "about to be acknowledged",
    "acknowledged to the agent",
)  # fmt: skip


def _kill_at(owner: Any, name: str, when: str, times: int) -> None:
    """The process ends when that was called so many times."""
    own = getattr(owner, name)
    left = [times]

    @functools.wraps(own)
    def counted(*args: Any, **kwargs: Any) -> Any:
        left[0] -= 1
        if left[0] == 0 and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        answer = own(*args, **kwargs)
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return answer

    if isinstance(owner, type) or not hasattr(owner, "__dataclass_fields__"):
        setattr(owner, name, counted)
    else:
        object.__setattr__(owner, name, counted)  # a frozen record


def _send(spool_at: str, collector: str, batches: str) -> None:
    from roofleet_agent.sending.spool import Spool
    from roofleet_agent.sending.uplink import Uplink, open_channel

    spool = Spool(Path(spool_at))
    for number in range(int(batches)):
        spool.write("spans", spans(ROWS, spool.path.stem, first=ROWS * number))
        print(number, flush=True)
    with open_channel(collector) as channel:
        Uplink(spool, channel).drain(120)


def main(step: str, times: str, what: str, *arguments: str) -> None:
    """Runs what is asked for, to its end or to the step."""
    if step != "none":
        known = _collectors() if what == "roofleet" else _agents()
        _kill_at(*known[step], int(times))
    if what == "send":
        _send(*arguments)
        return
    from roofleet.main import run

    sys.argv = ["roofleet", *arguments]
    run()


if __name__ == "__main__":
    main(*sys.argv[1:])
