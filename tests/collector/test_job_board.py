"""The board of jobs: leases, tokens, the queue of each device, and what is handed on."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from roofleet_collector.jobs.board import MOST_LOSSES, Board, JobRow
from roofleet_proto.jobs import run_id_of
from roofleet_proto.records import (
    Assignment,
    Cancellation,
    DeviceOffer,
    Hello,
    JobProgress,
    Lease,
    Offer,
    Settled,
)

LEASE_S = 10.0


def job(job_id: str, selector: str = "kind=cpu") -> JobRow:
    """A job that was just submitted."""
    return JobRow(job_id, '{"model": "gpt2"}', "s", selector, "gpt2", datetime.now(UTC))


def attach(board: Board, agent: str, now: float = 0.0, device: str | None = None) -> None:
    """An agent with one CPU."""
    offer = Offer((DeviceOffer(device or f"cpu of {agent}", "cpu", "a CPU", "cpu", 0),))
    board.attach(Hello(agent, f"host of {agent}", agent, "1"), offer, now)


def handed_out(board: Board) -> list[tuple[str, Assignment]]:
    """What would be sent of new leases."""
    messages = board.take_changes().messages
    return [(agent, message) for agent, message in messages if isinstance(message, Assignment)]


def report(job_id: str, token: int, status: str, **more: Any) -> JobProgress:
    """How a job ended, or how it is."""
    return JobProgress(job_id, status, 0.5, "measuring", token, **more)


def one_running() -> Board:
    """A board whose one job runs at agent `a` under token 1; `b` has nothing to do."""
    board = Board(LEASE_S)
    attach(board, "a")
    board.add([job("1")])
    board.tick(0.0)
    assert [(agent, lease.token) for agent, lease in handed_out(board)] == [("a", 1)]
    assert board.renew("a", [Lease("1", 1)], 0.1) == (Lease("1", 1),)
    attach(board, "b")
    return board


def test_jobs_for_one_device_queue_and_devices_run_side_by_side() -> None:
    """Of three jobs two run on two devices, and the third when one of them is free."""
    board = Board(LEASE_S)
    attach(board, "a")
    attach(board, "b")
    board.add([job("1"), job("2"), job("3")])
    board.tick(0.0)
    assert [(agent, lease.job_id) for agent, lease in handed_out(board)] == [("a", "1"), ("b", "2")]
    board.hear("b", report("2", 1, "done"), 1.0)
    board.tick(1.0)
    assert [(agent, lease.job_id) for agent, lease in handed_out(board)] == [("b", "3")]


def test_two_agents_with_the_same_device_do_not_use_it_at_once() -> None:
    """Two agents on one host tell of one device."""
    board = Board(LEASE_S)
    attach(board, "a", device="the CPU")
    attach(board, "b", device="the CPU")
    board.add([job("1"), job("2")])
    board.tick(0.0)
    assert [(agent, lease.job_id) for agent, lease in handed_out(board)] == [("a", "1")]


def test_a_job_is_handed_on_when_its_lease_ends_and_not_before() -> None:
    """With a new token, and the run of the old one is kept out."""
    board = one_running()
    board.detach("a")
    board.tick(0.1 + LEASE_S)
    assert handed_out(board) == []
    board.heard("b", LEASE_S)
    board.tick(0.2 + LEASE_S)
    changes = board.take_changes()
    assert changes.fenced == [run_id_of("1", 1)]
    assert [(agent, m.token) for agent, m in changes.messages if isinstance(m, Assignment)] == [("b", 2)]


def test_what_is_said_under_an_old_token_is_refused() -> None:
    """Progress changes nothing, an end is answered as not accepted, and the lease is not renewed."""
    board = one_running()
    board.heard("b", LEASE_S)
    board.tick(0.2 + LEASE_S)
    board.take_changes()
    board.hear("a", report("1", 1, "running"), 11.0)
    assert not board.take_changes()
    board.hear("a", report("1", 1, "done"), 11.0)
    changes = board.take_changes()
    assert changes.messages == [("a", Settled("1", 1, False))]
    assert not changes.rows
    assert board.renew("a", [Lease("1", 1)], 11.0) == ()
    assert board.renew("a", [Lease("1", 2)], 11.0) == ()  # another agent's
    assert board.renew("b", [Lease("1", 2)], 11.0) == (Lease("1", 2),)


def test_a_lease_that_has_ended_is_not_renewed_even_if_nobody_noticed_yet() -> None:
    """A renewal that was read late does not bring it back."""
    board = one_running()
    assert board.renew("a", [Lease("1", 1)], 0.2 + LEASE_S) == ()


def test_an_agent_that_lost_a_job_is_given_nothing_until_it_is_heard_again() -> None:
    """It may have said something else after its last renewal, and stand still since."""
    board = one_running()
    board.heard("a", 5.0)
    board.detach("b")
    board.tick(0.2 + LEASE_S)
    assert handed_out(board) == []
    board.heard("a", 0.3 + LEASE_S)
    board.tick(0.3 + LEASE_S)
    assert [agent for agent, _ in handed_out(board)] == ["a"]


def test_a_silent_agent_is_given_nothing() -> None:
    """One whose connection is half open would only lose time."""
    board = Board(LEASE_S)
    attach(board, "a", now=0.0)
    board.add([job("1")])
    board.tick(LEASE_S + 1)
    assert handed_out(board) == []
    board.heard("a", LEASE_S + 1)
    board.tick(LEASE_S + 1)
    assert len(handed_out(board)) == 1


def test_a_job_that_loses_its_agents_is_given_up() -> None:
    """What takes an agent along does not go round the whole fleet."""
    board = Board(LEASE_S)
    now = 0.0
    board.add([job("1")])
    for number in range(MOST_LOSSES):
        attach(board, f"agent {number}", now)
        board.tick(now)
        assert len(handed_out(board)) == 1
        board.renew(f"agent {number}", [Lease("1", number + 1)], now)
        board.detach(f"agent {number}")
        now += LEASE_S + 1
    row = board.row("1")
    board.tick(now)
    assert row is not None
    assert row.status == "failed"
    assert "not heard of" in (row.error or "")
    assert "with 3 agents" in (row.error or "")


def test_a_job_that_was_never_begun_is_not_lost() -> None:
    """An assignment that never arrived counts for nothing, however often."""
    board = Board(LEASE_S)
    board.add([job("1")])
    for number in range(MOST_LOSSES + 3):
        attach(board, "a", number * 11.0)
        board.tick(number * 11.0)
        assert len(handed_out(board)) == 1


def test_a_waiting_job_is_cancelled_at_once_and_a_running_one_by_its_agent() -> None:
    """The agent is told, again with every renewal, until it says that the process is gone."""
    board = one_running()
    board.add([job("2", "kind=gpu")])
    waiting = board.cancel("2")
    assert waiting is not None
    assert waiting.status == "cancelled"
    running = board.cancel("1")
    assert running is not None
    assert running.status == "cancelling"
    told = ("a", Cancellation("1", 1))
    assert told in board.take_changes().messages
    board.renew("a", [Lease("1", 1)], 1.0)
    assert board.take_changes().messages == [told]
    board.hear("a", report("1", 1, "cancelled"), 2.0)
    assert running.status == "cancelled"
    assert board.open_rows() == []


def test_a_cancelled_job_is_not_handed_on() -> None:
    """If its agent is lost before it could say so, it has ended all the same."""
    board = one_running()
    row = board.cancel("1")
    board.tick(0.2 + LEASE_S)
    assert row is not None
    assert row.status == "cancelled"
    assert handed_out(board) == []


def test_a_job_that_one_agent_refuses_goes_to_another_and_ends_when_all_have() -> None:
    """The rules that refused it are told, each with its host."""
    board = one_running()
    board.hear("a", report("1", 1, "refused", error="hub is off"), 1.0)
    board.heard("a", 1.0)
    board.tick(1.0)
    assert [agent for agent, _ in handed_out(board)] == ["b"]
    row = board.row("1")
    board.hear("b", report("1", 2, "refused", error="only bert"), 2.0)
    assert row is not None
    assert row.status == "refused"
    assert row.error == "a: hub is off; b: only bert"


def test_a_job_that_an_ending_agent_gives_back_is_handed_on_at_once() -> None:
    """Nobody waits for a lease that its holder has given up."""
    board = one_running()
    board.hear("a", report("1", 1, "returned"), 1.0)
    board.detach("a")
    board.tick(1.0)
    assert [(agent, lease.token) for agent, lease in handed_out(board)] == [("b", 2)]


def test_a_restarted_collector_goes_on_with_what_is_leased() -> None:
    """The agent keeps its job; if it does not come back, the job is handed on after a whole lease."""
    rows = one_running().open_rows()
    board = Board(LEASE_S, rows, now=100.0)
    attach(board, "b", 100.0)
    board.tick(100.0)
    assert handed_out(board) == []
    assert board.renew("a", [Lease("1", 1)], 105.0) == (Lease("1", 1),)
    board.hear("a", report("1", 1, "done", run_id="any"), 106.0)
    assert rows[0].status == "done"
    assert rows[0].run_id == run_id_of("1", 1)
    later = Board(LEASE_S, one_running().open_rows(), now=100.0)
    attach(later, "b", 109.0)
    later.tick(100.1 + LEASE_S)
    assert [(agent, lease.token) for agent, lease in handed_out(later)] == [("b", 2)]


class Fleet(RuleBasedStateMachine):
    """Agents that hear late or never, and a collector: a job is never run by two at once.

    Each agent runs what it has a lease for until its own, shorter, time is up, as leases.py has it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.board = Board(LEASE_S)
        self.agents = ("a", "b", "c")
        for agent in self.agents:
            attach(self.board, agent)
        self.board.add([job("1"), job("2")])
        self.asked: list[tuple[str, Lease, float]] = []
        self.may_run: dict[tuple[str, Lease], float] = {}
        self.given: set[tuple[str, Lease]] = set()
        self.done: list[tuple[str, int]] = []

    @rule(seconds=st.floats(0.0, 12.0))
    def time_passes(self, seconds: float) -> None:
        """And the collector looks at its leases."""
        self.now += seconds
        for agent in self.agents:
            self.board.heard(agent, self.now)
        self.board.tick(self.now)
        for agent, message in self.board.take_changes().messages:
            if isinstance(message, Assignment):
                self.given.add((agent, Lease(message.job_id, message.token)))
            elif isinstance(message, Settled) and message.accepted:
                self.done.append((message.job_id, message.token))

    @rule(data=st.data())
    def an_agent_asks(self, data: st.DataObject) -> None:
        """For a lease that it was given; when that arrives is another matter."""
        if self.given:
            agent, lease = data.draw(st.sampled_from(sorted(self.given, key=str)))
            self.asked.append((agent, lease, self.now))

    @rule(data=st.data())
    def the_collector_hears_and_answers(self, data: st.DataObject) -> None:
        """Some renewal, however old; what is answered counts from when it was sent."""
        if self.asked:
            agent, lease, sent = self.asked.pop(data.draw(st.integers(0, len(self.asked) - 1)))
            if self.board.renew(agent, [lease], self.now):
                key = (agent, lease)
                self.may_run[key] = max(sent + 0.8 * LEASE_S, self.may_run.get(key, 0.0))

    @rule(data=st.data())
    def an_agent_is_done(self, data: st.DataObject) -> None:
        """With what it may run."""
        running = [key for key, until in self.may_run.items() if until > self.now]
        if running:
            agent, lease = data.draw(st.sampled_from(sorted(running, key=str)))
            self.board.hear(agent, report(lease.job_id, lease.token, "done"), self.now)
            del self.may_run[agent, lease]
            self.given.discard((agent, lease))

    @invariant()
    def a_job_runs_at_most_once_at_a_time(self) -> None:
        """Whoever may run it now is alone."""
        running = [lease.job_id for (_, lease), until in self.may_run.items() if until > self.now]
        assert len(running) == len(set(running))

    @invariant()
    def a_job_is_done_once(self) -> None:
        """One result is accepted."""
        jobs = [job_id for job_id, _ in self.done]
        assert len(jobs) == len(set(jobs))


TestFleet = Fleet.TestCase
TestFleet.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
