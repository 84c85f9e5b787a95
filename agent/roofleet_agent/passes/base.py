"""What a pass takes and gives: a loaded model with its workload on a device in, rows of tables out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from roofleet_agent.devices.base import Device
from roofleet_agent.engines.base import Engine, Session
from roofleet_agent.workload import ModelRequest, Workload

Progress = Callable[[str, float], None]
"""Hears what is being done and how far the run is, from 0 to 1."""
STEP = ", iteration "
"""Between what is being done and which step of how many it is: a new step is nothing new that is done."""


class Found(NamedTuple):
    """Rows of one table as a pass found them, without the run they are of, which the record knows.

    Rows of `runs` are columns of the run's one row: only those that the pass has something to say of.
    """

    table: str
    rows: Sequence[Mapping[str, Any]]


def of_run(**columns: Any) -> Found:
    """Columns of the run's row."""
    return Found("runs", [columns])


@dataclass(frozen=True)
class Subject:
    """What the passes on a device are given: a loaded model, what it is to do, and where.

    `began_ns` is when the run began, by `time.perf_counter_ns`: steps are told in time since then.
    """

    request: ModelRequest
    engine: Engine
    session: Session
    device: Device
    dtype: str
    workload: Workload
    began_ns: int
    progress: Progress = lambda what, fraction: None

    @property
    def torch_device(self) -> torch.device:
        """The device as torch names it."""
        return torch.device(self.device.torch_name)


Pass = Callable[[Subject], Iterable[Found]]
"""One way of looking at a subject. What it yields is kept when it is yielded."""
