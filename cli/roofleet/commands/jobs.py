"""`roofleet submit`, `jobs`, `cancel` and `label`: work for a fleet, from one place."""

from __future__ import annotations

import dataclasses
import json
import time
from collections import Counter
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from roofleet import console
from roofleet.commands import completion, options
from roofleet.commands.grid import Asked, gridded
from roofleet.commands.reaching import reaching
from roofleet.errors import FAILED, UserError
from roofleet.naming.folders import DEFAULT_GRPC, address
from roofleet_analysis.sweeps import RUN_OPTIONS, WORKLOAD, points, settings_of
from roofleet_proto.jobs import JobRequest, origin_of
from roofleet_proto.records import Job, Label
from roofleet_proto.sizes import size_bytes

if TYPE_CHECKING:
    from roofleet.api.control import Control

WATCH_S = 1.0
"""How often a list that is watched is asked for."""

Collector = Annotated[
    str, typer.Option("--collector", metavar="HOST:PORT", help="The collector's gRPC address.")
]
JobName = Annotated[str, typer.Argument(metavar="JOB", help="Its id, or the beginning of one.")]


@reaching
@gridded
def submit(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="A catalogue name, a hub name owner/name, or the whole path of a folder on the agent's "
            "host; the agent's own rules say what of it is allowed.",
            autocompletion=completion.models,
        ),
    ],
    on: Annotated[
        str,
        typer.Option(
            "--on",
            metavar="SELECTOR",
            help="Which devices: kind=cuda, name~h100, memory>=40GiB, host=NAME, label:site=lab1, joined by "
            "commas; or all, for one on each.",
        ),
    ],
    count: Annotated[int, typer.Option("--count", min=1, help="So many of it.")] = 1,
    sweep: Annotated[
        bool,
        typer.Option("--sweep", help="A job for each point of a grid: options take 1,2,4."),
    ] = False,
    *,
    asked: Asked,
    prompt: options.Prompt = None,
    quality_text: options.QualityText = None,
    keep_outputs: options.KeepOutputs = False,
    name: Annotated[
        str | None, typer.Option("--name", help="What to call the run.", show_default=False)
    ] = None,
    tag: Annotated[
        list[str] | None,
        typer.Option("--tag", help="A word to find the run by; may be given again.", show_default=False),
    ] = None,
    max_time: Annotated[
        float | None,
        typer.Option(
            "--max-time",
            metavar="SECONDS",
            help="End it after so long. Default: what its agent allows.",
            show_default=False,
        ),
    ] = None,
    max_memory: Annotated[
        str | None,
        typer.Option(
            "--max-memory",
            metavar="SIZE",
            help="End it at so much memory of its device, such as 16GiB. Default: what its agent allows.",
            show_default=False,
        ),
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Stay until it has ended.")] = False,
    submission: Annotated[
        str | None,
        typer.Option(
            "--id",
            metavar="TEXT",
            help="A name for this submission: the same again makes no further jobs.",
            show_default=False,
        ),
    ] = None,
    collector: Collector = DEFAULT_GRPC,
    json_output: options.Json = False,
) -> None:
    """Hand a run to the fleet: it goes to a device that fits, waits while that is busy, and runs there."""
    address(collector)
    asked["analyze"] = [False]
    several = [option for option, values in asked.items() if len(values) > 1]
    if several and not sweep:
        raise UserError(f"--{several[0].replace('_', '-')} has several values: say --sweep for a job of each")
    if sweep and (prompt is not None or quality_text is not None):
        raise UserError("a sweep takes random tokens: leave --prompt and --quality-text out")
    if origin_of(model) == "module":
        raise UserError(f"{model} is code of yours, and agents run none: profile it where it is")
    base = JobRequest(
        model,
        prompt=prompt,
        quality_text=options.text_of(quality_text),
        keep_outputs=keep_outputs,
        name=None if name is None else options.run_name(name),
        tags=tuple(options.label(word, "tag") for word in tag or ()),
        max_time_s=max_time,
        max_memory_bytes=None if max_memory is None else _size(max_memory),
    )
    requests = [
        dataclasses.replace(
            base,
            settings=settings_of(point),
            **{option: value for option, value in point.items() if option in _AS_THEY_ARE},
        )
        for point in points(asked)
    ]
    with _control(collector) as control:
        jobs = control.submit(
            requests,
            on,
            count=count,
            sweep=json.dumps(asked) if sweep else "",
            submission_id=submission,
        )
        if wait:
            jobs = _wait(control, jobs, quiet=json_output)
    _report(jobs, json_output)
    if wait and any(job.status != "done" for job in jobs):
        raise typer.Exit(FAILED)


@reaching
def jobs(
    job: Annotated[
        list[str] | None,
        typer.Argument(metavar="[JOB]...", help="Ids, or beginnings of ids.", show_default=False),
    ] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Show it anew as it changes, until Ctrl-C.")] = False,
    is_open: Annotated[bool, typer.Option("--open", help="Only those that have not ended.")] = False,
    limit: Annotated[int, typer.Option("--limit", min=1, help="So many at most, the latest.")] = 20,
    collector: Collector = DEFAULT_GRPC,
    json_output: options.Json = False,
) -> None:
    """List jobs; one that is named is told with why it failed and the last of its log."""
    address(collector)
    with _control(collector) as control:
        if watch:
            _watch(control, job or [], is_open, limit, json_output)
            return
        found = control.jobs(job or [], open_only=is_open, limit=limit)
    if job and not found:
        raise UserError(f"there is no job {job[0]!r}: `roofleet jobs` lists them")
    _report(found, json_output, whole=bool(job))


@reaching
def cancel(
    job: JobName,
    wait: Annotated[bool, typer.Option("--wait", help="Stay until its process is gone.")] = False,
    collector: Collector = DEFAULT_GRPC,
    json_output: options.Json = False,
) -> None:
    """End a job: one that waits at once; of one that runs the model's process is ended."""
    address(collector)
    with _control(collector) as control:
        found = [control.cancel(job)]
        if wait:
            found = _wait(control, found, quiet=True)
    _report(found, json_output)


@reaching
def label(
    host: Annotated[str, typer.Argument(metavar="HOST", help="Name or id of a host.")],
    labels: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NAME=VALUE]...", help="Labels to give it; NAME- takes one away."),
    ] = None,
    collector: Collector = DEFAULT_GRPC,
    json_output: options.Json = False,
) -> None:
    """Say something of a host, which jobs can pick it by: `roofleet submit … --on label:site=lab1`."""
    address(collector)
    given = [text for text in labels or () if not text.endswith("-")]
    gone = [text.removesuffix("-") for text in labels or () if text.endswith("-")]
    with _control(collector) as control:
        found = control.label(host, [Label(*pair) for pair in options.labels_of(given).items()], gone)
    if json_output:
        print(json.dumps({each.name: each.value for each in found}))
    else:
        print(" ".join(f"{each.name}={each.value}" for each in found) or f"{host} has no labels")


# -- within

_AS_THEY_ARE = {field.name for field in dataclasses.fields(JobRequest)}.intersection(WORKLOAD + RUN_OPTIONS)


def _control(collector: str) -> Control:
    from roofleet.api.control import Control

    return Control(collector)


def _size(text: str) -> int:
    try:
        return size_bytes(text)
    except ValueError as error:
        raise UserError(f"--max-memory {error}") from None


def _wait(control: Control, jobs: list[Job], *, quiet: bool) -> list[Job]:
    """The jobs when all have ended."""
    from roofleet.api.client import ServerAway
    from roofleet.api.control import has_ended

    ids = [job.job_id for job in jobs]
    with console.progress(f"{len(ids)} jobs" if len(ids) > 1 else "job", quiet=quiet) as show:
        while not all(map(has_ended, jobs)):
            show(_in_words(jobs), sum(1.0 if has_ended(job) else job.fraction for job in jobs) / len(jobs))
            time.sleep(WATCH_S / 2)
            try:
                found = {job.job_id: job for job in control.jobs(ids, limit=len(ids))}
            except ServerAway:  # it is restarted, say: the jobs go on
                show("the collector does not answer", 0.0)
                continue
            jobs = [found[job_id] for job_id in ids]
    return jobs


def _in_words(jobs: list[Job]) -> str:
    if len(jobs) == 1:
        return f"{jobs[0].status}{', ' + jobs[0].stage if jobs[0].stage else ''}"
    counts = Counter(job.status for job in jobs)
    return ", ".join(f"{count} {status}" for status, count in counts.items())


def _watch(control: Control, job_ids: list[str], is_open: bool, limit: int, json_output: bool) -> None:
    from rich.live import Live

    before: list[Job] = []
    if json_output:  # a line for each change
        while True:
            now = control.jobs(job_ids, open_only=is_open, limit=limit)
            for job in now:
                if job not in before:
                    print(json.dumps(as_json(job)), flush=True)
            before = now
            time.sleep(WATCH_S)
    with Live(console=console.out(), auto_refresh=False) as live:
        while True:
            now = control.jobs(job_ids, open_only=is_open, limit=limit)
            live.update(jobs_table(now), refresh=now != before)
            before = now
            time.sleep(WATCH_S)


def _report(jobs: list[Job], json_output: bool, whole: bool = False) -> None:
    if json_output:
        print(json.dumps([as_json(job) for job in jobs]))
        return
    out = console.out()
    if not jobs:
        out.print("no jobs yet: `roofleet submit MODEL --on SELECTOR`")
        return
    out.print(jobs_table(jobs))
    for job in jobs if whole else [job for job in jobs if job.error]:
        if job.error:
            out.print(f"{job.job_id[:8]} {job.status}: {job.error}", markup=False)
        if whole and job.log_tail:
            out.print(f"{job.job_id[:8]} printed last:\n{_plain(job.log_tail)}", markup=False)


def _plain(text: str) -> str:
    """Text of another machine without what would steer the terminal."""
    return "".join(sign if sign.isprintable() or sign in "\n\t" else " " for sign in text.replace("\r", "\n"))


def as_json(job: Job) -> dict[str, Any]:
    """A job as scripts read it; what is not known is null."""
    values = {name: getattr(job, name) for name in job.__dataclass_fields__}
    for name in ("submitted", "started", "finished"):
        at = values.pop(f"{name}_unix_us")
        values[f"{name}_at"] = datetime.fromtimestamp(at / 1e6, UTC).isoformat() if at else None
    values["request"] = json.loads(job.request)
    return {name: None if value == "" else value for name, value in values.items()}


def jobs_table(found: list[Job]) -> Any:
    """A table of jobs."""
    from rich.markup import escape

    headers = ["job", "model", "status", "on", "is at", "submitted", "run"]
    rows = []
    for job in found:
        request = json.loads(job.request)
        place = f"{job.device_name or job.device_id} on {job.hostname}" if job.device_id else job.selector
        at = f"{job.stage} {job.fraction:.0%}" if job.status in ("running", "cancelling") else ""
        since = datetime.fromtimestamp(job.submitted_unix_us / 1e6, UTC).strftime("%Y-%m-%d %H:%M")
        cells = (job.job_id[:8], str(request.get("model")), job.status, place, at, since, job.run_id[:8])
        rows.append([escape(_plain(cell)) for cell in cells])
    return console.table(None, headers, rows)
