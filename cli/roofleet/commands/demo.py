"""`roofleet demo`: a collector, a dashboard and an agent on this machine, and two models profiled."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from roofleet import console
from roofleet.errors import FAILED, INTERRUPTED, UserError, needs
from roofleet.naming.folders import DEFAULT_DASHBOARD, DEFAULT_GRPC, DEFAULT_SQL, address

if TYPE_CHECKING:
    from roofleet.api.client import Connection

MODELS = ("gpt2", "bert-base-uncased")
BUDGET_S = 8
"""Seconds that each is measured for at most: a first look should not take long."""
_QUERY = "SELECT model_name, phase, bare_p50_ns, bound FROM phase_summary JOIN run_summary USING (run_id)"
START_S = 60.0
STOP_S = 15.0


def demo(
    once: Annotated[
        bool, typer.Option("--once", help="End after the summaries; so it does without a terminal.")
    ] = False,
    data: Annotated[Path, typer.Option("--data", help="Folder for the demo's data.", file_okay=False)] = Path(
        ".demo"
    ),
    again: Annotated[
        bool, typer.Option("--again", help="Profile even if the folder holds the runs.")
    ] = False,
) -> None:
    """Start a collector, a dashboard and an agent here, profile two models, and show the results."""
    for extra, module in (("agent", "torch"), ("collector", "duckdb"), ("dashboard", "dash")):
        needs(extra, module)
    from roofleet.reports.run import print_run
    from roofleet_collector.presence import running_collector

    once = once or os.environ.get("ONCE") == "1" or not sys.stdout.isatty()
    data = data.resolve()
    data.mkdir(parents=True, exist_ok=True)
    out = console.out()
    holder = running_collector(data)
    if holder is not None:
        raise UserError(
            f"a collector serves {data} already (process {holder.pid}): end it with `kill {holder.pid}`, or "
            "give another folder with --data"
        )
    for number in (signal.SIGTERM, signal.SIGHUP):  # a terminal that is closed ends the demo like Ctrl-C
        signal.signal(number, _interrupt)
    shown = False
    try:
        with _fleet(data) as (grpc, connection, pages):
            for model in MODELS:
                run_id = None if again else _done(connection, model)
                if run_id is None:
                    _profile(model, grpc, data)
                else:
                    print_run(out, lambda sql, values: connection.sql(sql, values), run_id)
            out.print(f"\n[bold]dashboard[/bold]  http://{pages}", soft_wrap=True)
            place = f"--data {os.path.relpath(data)}" if once else f"--server {connection.address}"
            out.print(f"SQL        {_command()} sql '{_QUERY}' {place}", soft_wrap=True, markup=False)
            if once:
                out.print("The demo ends here; in a terminal and without ONCE=1 it goes on serving.")
            shown = True
            if not once:
                out.print("Ctrl-C ends the demo.")
                signal.pause()
    except KeyboardInterrupt:
        out.print("\nstopped")
        if not shown:
            raise typer.Exit(INTERRUPTED) from None


def _command() -> str:
    """What to type for `roofleet` here, where its folder may not be on the PATH."""
    if shutil.which("roofleet"):
        return "roofleet"
    return os.path.relpath(Path(sys.executable).parent / "roofleet")


def _done(connection: Connection, model: str) -> str | None:
    """The newest finished run of a model that the folder holds already."""
    found = connection.sql(
        "SELECT run_id FROM run_summary WHERE model_name = ? AND status = 'done' "
        "ORDER BY started_at DESC LIMIT 1",
        (model,),
    )
    return str(found.column(0)[0]) if found.num_rows else None


def _profile(model: str, grpc: str, data: Path) -> None:
    sys.stdout.flush()
    status = subprocess.run(
        [sys.executable, "-m", "roofleet", "profile", model, "--collector", grpc, "--budget", str(BUDGET_S)],
        env=_agent_environment(data),
        check=False,
    ).returncode
    if status:
        raise UserError(f"profiling {model} ended with status {status}", FAILED)


def _agent_environment(data: Path) -> dict[str, str]:
    return os.environ | {"ROOFLEET_DATA": str(data / "agent")}


@contextmanager
def _fleet(data: Path) -> Iterator[tuple[str, Connection, str]]:
    """Three processes, ready; whatever happens they are stopped in the end."""
    from roofleet.api.client import connect

    grpc, sql, pages = (_free(wanted) for wanted in (DEFAULT_GRPC, DEFAULT_SQL, DEFAULT_DASHBOARD))
    parts = {
        "collector": ["collector", "--data", str(data), "--grpc", grpc, "--sql", sql],
        "agent": ["agent", "--collector", grpc],
        "dashboard": ["dashboard", "--server", sql, "--listen", pages],
    }
    running: dict[str, subprocess.Popen[bytes]] = {}
    connection = connect(sql)
    try:
        with console.progress("starting") as show:
            for name, arguments in parts.items():
                show(name, 0.3)
                with (data / f"{name}.log").open("wb") as log:
                    running[name] = subprocess.Popen(
                        [sys.executable, "-m", "roofleet", *arguments],
                        stdin=subprocess.DEVNULL,
                        stdout=log,
                        stderr=subprocess.STDOUT,
                        env=_agent_environment(data),
                        start_new_session=True,  # Ctrl-C reaches the demo, which ends them in order
                    )
                if name == "collector":
                    _wait(running, data, name, lambda: _listens(sql) and _listens(grpc))
            _wait(running, data, "dashboard", lambda: _serves(pages))
        yield grpc, connection, pages
    finally:
        connection.close()
        _stop(running)


def _stop(running: dict[str, subprocess.Popen[bytes]]) -> None:
    """Ends the agent and the dashboard before the collector they talk to; Ctrl-C again does not stop it."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    for name in ("agent", "dashboard", "collector"):
        process = running.get(name)
        if process is None or process.poll() is not None:
            continue
        process.terminate()
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait(running: dict[str, subprocess.Popen[bytes]], data: Path, name: str, is_ready: object) -> None:
    give_up = time.monotonic() + START_S
    while time.monotonic() < give_up:
        if running[name].poll() is not None:
            said = (data / f"{name}.log").read_text(errors="replace").strip().splitlines()
            reason = said[-1].removeprefix("error: ") if said else "it said nothing"
            raise UserError(f"the {name} did not start: {reason}", FAILED)
        if is_ready():  # type: ignore[operator]
            return
        time.sleep(0.1)
    raise UserError(f"the {name} did not answer in {START_S:.0f} s; see {data / name}.log", FAILED)


def _free(wanted: str) -> str:
    """The usual address, or one with a free port where that is taken."""
    host, port = address(wanted)
    for candidate in (port, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, candidate))
            except OSError:
                continue
            return f"{host}:{probe.getsockname()[1]}"
    raise UserError(f"no port is free on {host}", FAILED)


def _listens(where: str) -> bool:
    try:
        with socket.create_connection(address(where), timeout=1):
            return True
    except OSError:
        return False


def _serves(where: str) -> bool:
    try:
        with urllib.request.urlopen(f"http://{where}/", timeout=5) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt
