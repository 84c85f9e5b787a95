"""Jobs over real processes, and what breaks on their way: each runs once at a time, and ends in words.

The model is a stand-in that needs no torch, in the process that a job has. It leaves a trace of each time it
began, and one more if it met itself at work.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from tests.processes import end, start
from tests.support import CollectorProcess, eventually, roofleet, start_collector

from roofleet.api.client import connect
from roofleet.api.control import Control, has_ended
from roofleet.errors import UserError
from roofleet_proto.jobs import JobRequest
from roofleet_proto.records import Job

LEASE_S = 6.0

MODEL = """
import datetime, json, os, sys, time
from pathlib import Path
import psutil
import roofleet.running.job as job
from roofleet_agent.inventory import host_id
from roofleet_agent.rows import table_of
from roofleet_agent.sending.spool import Spool

PLACE = Path(sys.argv.pop(1))

def is_at_work(pid):
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False

def run(order, reports):
    what = json.loads(order["request"]).get("name")
    mine = PLACE / f"at-work-{order['job_id']}"
    if mine.exists() and is_at_work(int(mine.read_text())):
        (PLACE / "twice").write_text("a job met itself")
    mine.write_text(str(os.getpid()))
    (PLACE / f"began-{order['job_id']}-{os.getpid()}").touch()
    spool = Spool(Path(order["spool"]))
    row = dict(
        run_id=order["run_id"], job_id=order["job_id"], host_id=host_id(), device_id="d", model_id="m",
        status="running", started_at=datetime.datetime.now(datetime.UTC), dtype="fp32", variant="base",
        weights="random", engine="none", batch_size=1, prompt_tokens=1, new_tokens=1, logits="last",
        iterations=1, warmup=0,
    )
    rows = table_of("runs", [row])
    spool.write("runs", rows)
    reports.ran(rows)
    print("at work")
    if what == "hog":
        kept = bytearray(300_000_000)
    if what != "quick":
        reports.show("measuring 1 of 2", 0.5)
        while not (PLACE / "go").exists():
            time.sleep(0.02)
    rows = table_of("runs", [row | dict(status="done", finished_at=datetime.datetime.now(datetime.UTC))])
    spool.write("runs", rows)
    reports.ran(rows)
    mine.unlink()

job.run = run
job.main()
"""

AGENT = """
import signal, sys, threading
from pathlib import Path
from roofleet_agent.jobs.rules import read_rules
from roofleet_agent.service import AgentService, Hired
address, folder, model, place = sys.argv[1:]
folder = Path(folder)
hired = Hired([sys.executable, model, place], read_rules(folder / "agent.toml"), {})
service = AgentService(address, folder, hired=hired)
signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=service.stop).start())
service.run()
"""


def is_at_work(pid: int) -> bool:
    """Whether a process goes on."""
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


class Fleet:
    """A collector, the agents of one test, and a folder where the models leave their traces."""

    def __init__(self, folder: Path, collector: CollectorProcess) -> None:
        self.folder, self.collector = folder, collector
        self.agents: dict[str, Any] = {}
        self.mine = f"label:test={folder.name}"
        """Picks the agents of this test."""
        self.place.mkdir()

    @property
    def place(self) -> Path:
        """Where the models leave their traces, and wait for the file `go`."""
        return self.folder / "place"

    @property
    def control(self) -> Control:
        """A client."""
        return Control(self.collector.grpc)

    def agent(self, name: str, rules: str = "", address: str | None = None) -> None:
        """Starts an agent."""
        folder = self.folder / name
        folder.mkdir(exist_ok=True)
        (folder / "agent.toml").write_text(f'{rules}\n[labels]\ntest = "{self.folder.name}"\nname = "{name}"')
        model = self.folder / "model.py"
        model.write_text(MODEL)
        where = address or self.collector.grpc
        self.agents[name] = start("-c", AGENT, where, str(folder), str(model), str(self.place))

    def submit(self, what: str = "wait", on: str = "", **more: Any) -> str:
        """The id of a new job; the agent that it is for may still be on its way."""
        options = {key: more.pop(key) for key in list(more) if key in JobRequest.__dataclass_fields__}
        on = f"{self.mine},{on}" if on else self.mine
        made: list[Job] = []

        def is_taken() -> bool:
            with self.control as control, contextlib.suppress(UserError):
                made.extend(control.submit([JobRequest("gpt2", name=what, **options)], on, **more))
            return bool(made)

        eventually(is_taken)
        return made[0].job_id

    def job(self, job_id: str) -> Job:
        """A job as it is now."""
        with self.control as control:
            return control.jobs([job_id])[0]

    def ends(self, job_id: str) -> Job:
        """A job when it has ended."""
        eventually(lambda: has_ended(self.job(job_id)))
        return self.job(job_id)

    def began(self, job_id: str) -> list[int]:
        """Processes that began it."""
        return [int(p.name.rpartition("-")[2]) for p in self.place.glob(f"began-{job_id}-*")]

    def at_work(self, job_id: str, times: int = 1) -> int:
        """The process of a job, when it was begun so often."""
        eventually(lambda: len(self.began(job_id)) == times)
        eventually(lambda: self.job(job_id).stage == "measuring 1 of 2")
        return max(self.began(job_id), key=is_at_work)

    def go(self) -> None:
        """Lets the models come to their end."""
        (self.place / "go").touch()

    def runs(self, job_id: str) -> list[tuple[str, str]]:
        """Ids and statuses of the runs that are stored of a job."""
        with connect(self.collector.sql) as connection:
            rows = connection.sql("SELECT run_id, status FROM runs WHERE job_id = ?", (job_id,)).to_pylist()
        return [(row["run_id"], row["status"]) for row in rows]

    def is_done_once(self, job_id: str) -> Job:
        """The job, done, with one run that is done."""
        job = self.ends(job_id)
        assert (job.status, job.error) == ("done", "")
        assert self.runs(job_id) == [(job.run_id, "done")]
        return job


LEASE = ("--lease", str(LEASE_S))


@pytest.fixture(scope="module")
def holder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CollectorProcess]:
    """A collector for all tests; one that kills it starts it again."""
    running = start_collector(tmp_path_factory.mktemp("data"), "127.0.0.1:0", "127.0.0.1:0", *LEASE)
    try:
        yield running
    finally:
        end(running.process)


@pytest.fixture
def fleet(tmp_path: Path, holder: CollectorProcess) -> Iterator[Fleet]:
    """See `fleet_of`."""
    with fleet_of(tmp_path, holder) as made:
        yield made


@contextlib.contextmanager
def fleet_of(folder: Path, holder: CollectorProcess) -> Iterator[Fleet]:
    """No agents yet; whatever happens, no job ever met itself at work."""
    made = Fleet(folder, holder)
    try:
        yield made
        assert not (made.place / "twice").exists()
    finally:
        for agent in made.agents.values():
            with contextlib.suppress(ProcessLookupError):
                agent.send_signal(signal.SIGCONT)
            end(agent)
        with made.control as control:
            for job in control.jobs(open_only=True):
                with contextlib.suppress(UserError):  # it has ended meanwhile
                    control.cancel(job.job_id)
            eventually(lambda: not control.jobs(open_only=True))


class Way:
    """A way to a port that can be cut and mended."""

    def __init__(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        self._to = (host, int(port))
        self._ends: list[socket.socket] = []
        self._is_cut = False
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """Ends what goes on, and lets nothing through."""
        self._is_cut = True
        for each in self._ends:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def mend(self) -> None:
        """Lets new connections through."""
        self._is_cut = False

    def close(self) -> None:
        """Ends all."""
        self.cut()
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                if self._is_cut:
                    near.close()
                    continue
                far = socket.create_connection(self._to)
                self._ends += [near, far]
                for one, other in ((near, far), (far, near)):
                    threading.Thread(target=self._carry, args=(one, other), daemon=True).start()

    def _carry(self, one: socket.socket, other: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := one.recv(65_536):
                other.sendall(data)
        for each in (one, other):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)


def test_a_job_runs_in_a_process_of_its_own_and_its_run_arrives(fleet: Fleet) -> None:
    """With progress and the last of its log; another for the device waits, and is cancelled at once."""
    fleet.agent("a")
    job_id = fleet.submit()
    fleet.at_work(job_id)
    second = fleet.submit()
    eventually(lambda: fleet.job(job_id).log_tail == "at work\n")
    assert (fleet.job(job_id).status, fleet.job(job_id).fraction) == ("running", 0.5)
    assert fleet.job(second).status == "queued"
    with fleet.control as control:
        assert control.cancel(second).status == "cancelled"
    fleet.go()
    assert fleet.is_done_once(job_id).token == 1
    assert fleet.began(second) == []


def test_a_job_is_cancelled_while_it_runs(fleet: Fleet) -> None:
    """Its process is gone when it is said to be, its run is cancelled, and the next one has the device."""
    fleet.agent("a")
    job_id = fleet.submit()
    process = psutil.Process(fleet.at_work(job_id))
    second = fleet.submit("quick")
    with fleet.control as control:
        assert control.cancel(job_id).status in ("cancelling", "cancelled")
        with pytest.raises(UserError, match="no job"):
            control.cancel("nothing like it")
    assert fleet.ends(job_id).status == "cancelled"
    assert not process.is_running()
    eventually(lambda: [status for _, status in fleet.runs(job_id)] == ["cancelled"])
    fleet.is_done_once(second)
    with fleet.control as control, pytest.raises(UserError, match="has ended"):
        control.cancel(job_id)


def test_a_job_of_an_agent_that_is_killed_runs_once_more_elsewhere(fleet: Fleet) -> None:
    """One result, of the second lease; nothing of the first stays."""
    fleet.agent("a")
    job_id = fleet.submit()
    model = psutil.Process(fleet.at_work(job_id))
    eventually(lambda: fleet.runs(job_id))
    fleet.agents["a"].kill()
    fleet.agents["a"].wait()
    eventually(lambda: not model.is_running() or model.status() == psutil.STATUS_ZOMBIE)
    fleet.agent("b")
    fleet.at_work(job_id, times=2)
    fleet.go()
    assert fleet.is_done_once(job_id).token == 2


def test_a_job_outlives_a_collector_that_is_killed(tmp_path: Path) -> None:
    """The agent keeps its lease with the next one; nothing runs a second time."""
    lease = ("--lease", "120")
    running = start_collector(tmp_path / "data", "127.0.0.1:0", "127.0.0.1:0", *lease)
    with fleet_of(tmp_path, running) as fleet:
        fleet.agent("a")
        job_id = fleet.submit()
        fleet.at_work(job_id)
        waiting = fleet.submit("quick")
        running.kill()
        end(running.process)
        running.process = start_collector(running.data, running.grpc, running.sql, *lease).process
        fleet.go()
        assert fleet.is_done_once(job_id).token == 1
        assert len(fleet.began(job_id)) == 1
        fleet.is_done_once(waiting)
    end(running.process)


def test_an_agent_that_is_cut_off_ends_its_job_before_it_is_handed_on(fleet: Fleet) -> None:
    """When it is back, its run is kept out and how it ended is refused: one result, of the other."""
    way = Way(fleet.collector.grpc)
    try:
        fleet.agent("a", address=way.address)
        job_id = fleet.submit()
        model = psutil.Process(fleet.at_work(job_id))
        way.cut()
        eventually(lambda: not model.is_running())
        fleet.agent("b")
        fleet.at_work(job_id, times=2)
        way.mend()
        fleet.go()
        assert fleet.is_done_once(job_id).token == 2
        last = fleet.submit("quick", "label:name=a")  # its rows come after what it had of the other
        fleet.is_done_once(last)
        fleet.is_done_once(job_id)
    finally:
        way.close()


def test_an_agent_that_stands_still_has_its_model_end_itself(fleet: Fleet) -> None:
    """The process looks at its own clock, and nobody runs the job twice at once."""
    fleet.agent("a")
    job_id = fleet.submit()
    model = psutil.Process(fleet.at_work(job_id))
    fleet.agents["a"].send_signal(signal.SIGSTOP)
    eventually(lambda: not model.is_running() or model.status() == psutil.STATUS_ZOMBIE)
    fleet.agent("b")
    fleet.at_work(job_id, times=2)
    fleet.agents["a"].send_signal(signal.SIGCONT)
    fleet.go()
    assert fleet.is_done_once(job_id).token == 2


def test_an_agent_that_ends_in_order_gives_its_job_back(fleet: Fleet) -> None:
    """It does not come to an end there, and not twice."""
    fleet.agent("a")
    job_id = fleet.submit()
    fleet.at_work(job_id)
    fleet.agents["a"].terminate()
    assert fleet.agents["a"].wait(60) == 0
    eventually(lambda: fleet.job(job_id).status == "queued")
    fleet.go()
    fleet.agent("b")
    fleet.is_done_once(job_id)


def test_a_submission_that_is_repeated_makes_its_jobs_once(fleet: Fleet) -> None:
    """A client that did not hear the answer asks again, also after a restart of the collector."""
    fleet.agent("a")
    fleet.go()
    requests = [JobRequest("gpt2", name="quick"), JobRequest("gpt2", name="other")]
    fleet.submit("quick")  # the agent is there
    with fleet.control as control:
        first = control.submit(requests, fleet.mine, count=2, submission_id="mine")
        again = control.submit(requests, fleet.mine, count=2, submission_id="mine")
        assert len(first) == 4
        assert {job.job_id for job in first} == {job.job_id for job in again}
        for job in first:
            assert fleet.is_done_once(job.job_id).token == 1
        later = control.submit(requests, fleet.mine, count=2, submission_id="mine")
        assert {job.status for job in later} == {"done"}
        with pytest.raises(UserError, match="another"):
            control.submit(requests[:1], fleet.mine, submission_id="mine")


def _kills(fleet: Fleet, pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize(
    ("what", "limits", "harm", "says"),
    [
        ("wait", {}, _kills, "from outside by SIGKILL"),
        ("wait", {"max_time_s": 1.0}, None, "more than the 1 s"),
        ("hog", {"max_memory_bytes": 150_000_000}, None, "may hold 0.14 GiB"),
    ],
)
def test_a_model_that_is_ended_takes_nobody_along(
    fleet: Fleet, what: str, limits: dict[str, Any], harm: Callable[[Fleet, int], None] | None, says: str
) -> None:
    """The job and its run have failed with the reason, and the agent goes on with the next."""
    fleet.agent("a")
    job_id = fleet.submit(what, **limits)
    if harm is not None:
        harm(fleet, fleet.at_work(job_id))
    job = fleet.ends(job_id)
    assert job.status == "failed"
    assert says in job.error
    if job.run_id:  # it had come so far
        eventually(lambda: fleet.runs(job_id) == [(job.run_id, "failed")])
    fleet.is_done_once(fleet.submit("quick"))


def test_the_rules_of_an_agent_refuse_a_job_and_its_command_says_which(fleet: Fleet) -> None:
    """Another agent that allows it may have it; a device that is not there is told with those that are."""
    fleet.agent("a", '[models]\nallowed = ["gpt2"]')
    fleet.submit("quick")  # the agent is there
    where = ["--collector", fleet.collector.grpc]
    done = roofleet("submit", "t5-small", "--on", fleet.mine, "--wait", *where, data=fleet.folder)
    assert done.returncode == 1
    assert "models.allowed" in done.stdout
    done = roofleet("submit", "gpt2", "--on", "kind=tpu", *where, data=fleet.folder)
    assert done.returncode == 2
    assert "no device fits 'kind=tpu'" in done.stderr
    assert "kind=cpu (cpu)" in done.stderr
    done = roofleet("submit", "gtp2", "--on", "all", *where, data=fleet.folder)
    assert "gpt2" in done.stderr
    done = roofleet("submit", "gpt2", "--on", "kind>cpu", *where, data=fleet.folder)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)


def test_labels_are_given_to_an_agent_or_by_the_operator(fleet: Fleet) -> None:
    """Jobs pick by both; what the operator says stands above."""
    fleet.agent("a")
    fleet.go()
    where = ["--collector", fleet.collector.grpc]
    host = socket.gethostname()
    fleet.is_done_once(fleet.submit("quick"))  # the host is known
    assert roofleet("label", host, "site=lab1", "name=mine", *where, data=fleet.folder).returncode == 0
    fleet.is_done_once(fleet.submit("quick", "label:site=lab1,label:name=mine"))
    done = roofleet("label", host, "name-", *where, data=fleet.folder)
    assert done.stdout == "site=lab1\n"
    fleet.is_done_once(fleet.submit("quick", "label:site=lab1,label:name=a"))
    done = roofleet("label", "nowhere", "a=b", *where, data=fleet.folder)
    assert "no host" in done.stderr


def test_a_sweep_becomes_jobs_of_one_sweep(fleet: Fleet) -> None:
    """A job for each point, in the dtype that auto means there, and the sweep is a row."""
    fleet.agent("a")
    fleet.submit("quick")  # the agent is there
    fleet.go()
    done = roofleet(
        *("submit", "gpt2", "--on", fleet.mine, "--sweep", "--batch-size", "1,2", "--set", "n_layer=1,2"),
        *("--wait", "--json", "--collector", fleet.collector.grpc),
        data=fleet.folder,
    )
    jobs = json.loads(done.stdout)
    assert [job["status"] for job in jobs] == ["done"] * 4
    assert len({job["sweep_id"] for job in jobs}) == 1
    assert {job["request"]["dtype"] for job in jobs} == {"fp32"}
    asked = [job["request"] for job in jobs]  # what is as usual is left out
    points = [(one.get("batch_size", 1), one["settings"]["n_layer"]) for one in asked]
    assert sorted(points) == [(1, 1), (1, 2), (2, 1), (2, 2)]
    with connect(fleet.collector.sql) as connection:
        rows = connection.sql(
            "SELECT points FROM sweeps WHERE sweep_id = ?", (jobs[0]["sweep_id"],)
        ).to_pylist()
    assert rows == [{"points": 4}]
