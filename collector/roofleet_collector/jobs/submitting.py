"""From what a client asks for to rows of `jobs`: checked, named as in the catalogue, and placed."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from roofleet_analysis.catalogs.models import find_model, nearest_models
from roofleet_analysis.units import capacity_text
from roofleet_collector.errors import JobRefused
from roofleet_collector.jobs.board import JobRow
from roofleet_collector.jobs.selector import Place, Selector, SelectorError, Term, parse
from roofleet_proto.codec import MalformedMessage
from roofleet_proto.jobs import JobRequest, job_id_of, parse_request, sweep_id_of
from roofleet_proto.records import Submission

MOST_JOBS = 10_000
"""Jobs of one submission."""
_LISTED = 10


def rows_of(submission: Submission, places: Sequence[Place]) -> tuple[list[JobRow], dict[str, Any] | None]:
    """The jobs of a submission, and the row of its sweep if it is one.

    JobRefused, saying why, if a request or the selector is none, or no device that is there fits.
    """
    try:
        selector = parse(submission.selector)
        requests = [_named(parse_request(text)) for text in submission.requests]
    except (SelectorError, MalformedMessage) as error:
        raise JobRefused(str(error)) from None
    fitting = [place for place in places if selector.fits(place)]
    if not fitting:
        raise JobRefused(f"no device fits {str(selector)!r}. {_there(places)}")
    sweep = None
    if submission.sweep:
        requests, sweep = _swept(submission, requests, fitting)
    selectors = _pinned(selector, fitting) if selector.each else [selector]
    count = max(submission.count, 1)
    total = len(selectors) * count * len(requests)
    if total > MOST_JOBS:
        raise JobRefused(f"{total:,} jobs at once: the most is {MOST_JOBS:,}, submit them in parts")
    now = datetime.now(UTC)
    wanted = [(request, each) for request in requests for _ in range(count) for each in selectors]
    rows = [
        JobRow(
            job_id_of(submission.submission_id, number),
            request.text(),
            submission.submission_id,
            str(each),
            request.model,
            now + timedelta(microseconds=number),  # the order of the queue
            sweep_id=request.sweep_id,
        )
        for number, (request, each) in enumerate(wanted)
    ]
    return rows, sweep


def check_same(submission: Submission, known: Sequence[str]) -> None:
    """JobRefused if a submission came before and its requests were others; `known` are those."""
    try:
        now = {_named(parse_request(text)).text() for text in submission.requests}
    except MalformedMessage as error:
        raise JobRefused(str(error)) from None
    if not submission.sweep and now != set(known):  # points of a sweep were completed
        raise JobRefused(
            f"the submission {submission.submission_id!r} came before, and asked for another thing"
        )


def _named(request: JobRequest) -> JobRequest:
    """The request with the catalogue's name for its model."""
    if request.origin == "module":
        raise JobRefused(f"{request.model} is code of yours, and agents run none: profile it where it is")
    if request.origin == "folder":
        if not request.model.startswith("/"):
            raise JobRefused(f"{request.model} is a folder of the agent's host: write its whole path, from /")
        return request
    entry = find_model(request.model)
    if entry is not None:
        return dataclasses.replace(request, model=entry.name)
    if request.origin == "catalog":
        nearest = ", ".join(nearest_models(request.model))
        hint = f". Did you mean {nearest}?" if nearest else ""
        raise JobRefused(f"there is no model {request.model!r}{hint}")
    return request


def _pinned(selector: Selector, fitting: Sequence[Place]) -> list[Selector]:
    """A selector for each device."""
    ids = dict.fromkeys(place.device.device_id for place in fitting)
    return [Selector((Term("device", "=", device_id),)) for device_id in ids]


def _swept(
    submission: Submission, requests: list[JobRequest], fitting: Sequence[Place]
) -> tuple[list[JobRequest], dict[str, Any]]:
    """The points of a sweep with its id, and its row. Its dtypes are named, by which points are known."""
    try:
        axes = json.loads(submission.sweep)
        dtypes = list(axes["dtype"])
    except (ValueError, KeyError, TypeError, RecursionError):
        raise JobRefused("the axes of a sweep are a JSON object of lists, one of them dtype") from None
    usual = {"fp32" if place.device.kind == "cpu" else "bf16" for place in fitting}
    if "auto" in dtypes and len(usual) > 1:
        raise JobRefused(
            "dtype auto is fp32 on a CPU and bf16 on an accelerator, and the selector fits both: name the "
            "dtype, or pick by kind"
        )
    named = usual.pop()
    axes["dtype"] = list(dict.fromkeys(named if dtype == "auto" else dtype for dtype in dtypes))
    sweep_id = sweep_id_of(submission.submission_id)
    points = [
        dataclasses.replace(
            request, sweep_id=sweep_id, dtype=named if request.dtype == "auto" else request.dtype
        )
        for request in requests
    ]
    row = {
        "sweep_id": sweep_id,
        "model_name": requests[0].model,
        "axes": json.dumps(axes),
        "points": len(points),
        "started_at": datetime.now(UTC),
    }
    return points, row


def _there(places: Sequence[Place]) -> str:
    """What there is to pick from."""
    if not places:
        return "No agent that takes jobs is attached: start one with `roofleet agent`"
    lines = []
    for place in places[:_LISTED]:
        device = place.device
        memory = f", memory {capacity_text(device.memory_bytes)}" if device.memory_bytes else ""
        labels = "".join(f", label:{name}={value}" for name, value in sorted(place.labels.items()))
        lines.append(
            f"\n  host={place.hostname}, kind={device.kind} ({device.backend}), name={device.name}"
            f"{memory}{labels}"
        )
    more = f"\n  and {len(places) - _LISTED} more" if len(places) > _LISTED else ""
    return f"There are:{''.join(lines)}{more}"
