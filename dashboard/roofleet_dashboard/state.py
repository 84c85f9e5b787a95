"""What each page shows, as a value that goes into the URL's query and comes back out of it.

A link that is shared is a view that is shared. Whatever a query holds that makes no sense is left out rather
than refused, because people edit URLs by hand.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode

__all__ = [
    "LEVELS",
    "METRICS",
    "PHASES",
    "LayerAt",
    "NetworkState",
    "RooflineState",
    "RunPhase",
    "RunsState",
    "SweepsState",
    "phases_of",
]

PHASES = ("prefill", "decode", "forward")
LEVELS = ("model", "role", "layer")
METRICS = ("time", "self", "flops", "bytes", "memory")


def phases_of(task: str | None, new_tokens: int | None) -> tuple[str, ...]:
    """The phases a run of that task has."""
    if task != "generate":
        return ("forward",)
    return ("prefill", "decode") if (new_tokens or 0) > 1 else ("prefill",)


@dataclass(frozen=True, order=True)
class RunPhase:
    """One phase of one run; as text `run:phase`."""

    run_id: str
    phase: str

    def __str__(self) -> str:
        return f"{self.run_id}:{self.phase}"

    @staticmethod
    def parse(text: str) -> RunPhase | None:
        """The inverse of str(); None for anything else."""
        run_id, _, phase = text.rpartition(":")
        return RunPhase(run_id, phase) if run_id and phase in PHASES and _plain(run_id) else None


@dataclass(frozen=True)
class LayerAt:
    """A point on the roofline: a phase of a run, a level, and the name at that level; `run:phase:level:name`.

    Text because a path may hold anything but a comma.
    """

    at: RunPhase
    level: str
    name: str

    def __str__(self) -> str:
        return f"{self.at}:{self.level}:{self.name}"

    @staticmethod
    def parse(text: str) -> LayerAt | None:
        """The inverse of str(); None for anything else."""
        parts = text.split(":", 3)
        if len(parts) != 4 or parts[2] not in LEVELS:
            return None
        at = RunPhase.parse(f"{parts[0]}:{parts[1]}")
        return None if at is None else LayerAt(at, parts[2], parts[3])


@dataclass(frozen=True)
class RunsState:
    """The Runs page: the run that is summed up, those ticked for comparison, and the filters."""

    run: str | None = None
    ticked: tuple[str, ...] = ()
    filters: str | None = None
    """The table's filter model as JSON, keys sorted."""

    def search(self) -> str:
        """The query of the URL."""
        return _search(run=self.run, ticked=_join(self.ticked), filter=self.filters)

    @staticmethod
    def parse(search: str | None) -> RunsState:
        """The state that a query stands for."""
        given = _given(search)
        run = given.get("run")
        return RunsState(
            run=run if run and _plain(run) else None,
            ticked=tuple(item for item in _split(given.get("ticked")) if _plain(item)),
            filters=_json_object(given.get("filter")),
        )


@dataclass(frozen=True)
class RooflineState:
    """The Roofline page. No runs means the latest run; no dtypes means those of the runs shown."""

    runs: tuple[RunPhase, ...] = ()
    level: str = "role"
    hardware: tuple[str, ...] = ()
    dtypes: tuple[str, ...] = ()
    point: LayerAt | None = None

    def search(self) -> str:
        """The query of the URL."""
        return _search(
            runs=_join(str(item) for item in self.runs),
            level=self.level if self.level != "role" else None,
            hardware=_join(self.hardware),
            dtypes=_join(self.dtypes),
            point=str(self.point) if self.point else None,
        )

    @staticmethod
    def parse(search: str | None) -> RooflineState:
        """The state that a query stands for."""
        given = _given(search)
        level = given.get("level", "role")
        return RooflineState(
            runs=tuple(found for item in _split(given.get("runs")) if (found := RunPhase.parse(item))),
            level=level if level in LEVELS else "role",
            hardware=_split(given.get("hardware")),
            dtypes=_split(given.get("dtypes")),
            point=LayerAt.parse(given.get("point", "")),
        )


@dataclass(frozen=True)
class NetworkState:
    """The Network page. No run means the latest; `opened` None means as the model is first shown."""

    run: str | None = None
    phase: str | None = None
    metric: str = "time"
    opened: tuple[str, ...] | None = None
    node: str | None = None
    """Path of the layer whose details are shown; the empty string is the model itself."""

    def search(self) -> str:
        """The query of the URL."""
        return _search(
            run=self.run,
            phase=self.phase,
            metric=self.metric if self.metric != "time" else None,
            open=None if self.opened is None else ",".join(self.opened),
            node=self.node,
        )

    @staticmethod
    def parse(search: str | None) -> NetworkState:
        """The state that a query stands for."""
        given = _given(search)
        run, phase, metric = given.get("run"), given.get("phase"), given.get("metric", "time")
        return NetworkState(
            run=run if run and _plain(run) else None,
            phase=phase if phase in PHASES else None,
            metric=metric if metric in METRICS else "time",
            opened=_split(given["open"]) if "open" in given else None,
            node=given.get("node"),
        )


@dataclass(frozen=True)
class SweepsState:
    """The Sweeps page. No sweep means the latest; None else means what suits the sweep."""

    sweep: str | None = None
    across: str | None = None
    """The option along the axis."""
    figure: str | None = None
    """The column of the query sweep_runs that is drawn."""
    only: tuple[str, ...] = ()
    """Values of options that points must have to be drawn, as `option:value`."""

    def search(self) -> str:
        """The query of the URL."""
        return _search(sweep=self.sweep, across=self.across, figure=self.figure, only=_join(self.only))

    @staticmethod
    def parse(search: str | None) -> SweepsState:
        """The state that a query stands for."""
        given = _given(search)
        fields = (given.get(name) for name in ("sweep", "across", "figure"))
        sweep, across, figure = (text if text and _plain(text) else None for text in fields)
        return SweepsState(sweep, across, figure, _split(given.get("only")))


def _given(search: str | None) -> dict[str, str]:
    return dict(parse_qsl((search or "").removeprefix("?"), keep_blank_values=True))


def _search(**fields: str | None) -> str:
    """Only what differs from the default; readable, so that a URL can be understood and typed."""
    given = {name: value for name, value in fields.items() if value is not None}
    return "?" + urlencode(given, safe=",:/", quote_via=quote) if given else ""


def _join(items: Any) -> str | None:
    return ",".join(items) or None


def _split(text: str | None) -> tuple[str, ...]:
    """Items between commas, each once, in their order."""
    return tuple(dict.fromkeys(item for item in (text or "").split(",") if item))


def _plain(text: str) -> bool:
    return not set(text) & set(",:")


def _json_object(text: str | None) -> str | None:
    try:
        found = json.loads(text or "")
    except ValueError:
        return None
    return json.dumps(found, sort_keys=True) if isinstance(found, dict) and found else None
