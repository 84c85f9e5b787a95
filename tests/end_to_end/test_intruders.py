"""Intruders at the doors: each is refused or bounded, and an honest writer goes on without losing a row."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import grpc
import pytest
from tests.support import CollectorProcess, batch, collector, eventually, spans

from roofleet.api.client import NotLetIn, connect
from roofleet.errors import UserError
from roofleet_agent.sending.uplink import open_channel
from roofleet_collector.keys.identity import Role
from roofleet_collector.keys.tokens import Tokens
from roofleet_collector.limits import Callers
from roofleet_proto import services
from roofleet_proto.door import Door
from roofleet_proto.records import Filter, Hello, JoinRequest, RunChange, RunIds


@dataclass
class Fleet:
    """A collector with keys, a token of every kind, and what the honest writer had acknowledged."""

    running: CollectorProcess
    tokens: Tokens
    shown: dict[str, str]
    acknowledged: list[int]

    def channel(self, who: str | None) -> Any:
        """A channel that shows a token."""
        return open_channel(self.running.grpc, Door(token=self.shown.get(who or "", who)))

    def sql(self, who: str, query: str, *parameters: object) -> list[Any]:
        """The first column of a query."""
        with connect(self.running.sql, Door(token=self.shown.get(who, who))) as connection:
            return connection.sql(query, parameters).column(0).to_pylist()  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """One fleet for all intruders; at the end every row that was acknowledged is stored, once."""
    data = tmp_path_factory.mktemp("fleet")
    tokens = Tokens(data)
    shown = {role.value: tokens.create(role.value, role) for role in Role}
    shown["other agent"] = tokens.create("other agent", Role.agent, agent_ids=["other"])
    shown["honest"] = tokens.create("honest", Role.agent, agent_ids=["honest"])
    shown["revoked"] = tokens.create("gone", Role.admin)
    shown["expired"] = tokens.create("late", Role.admin, lifetime_s=-1)
    tokens.revoke("gone")
    with collector(data) as running:
        made = Fleet(running, tokens, shown, [])
        stop = threading.Event()
        writer = threading.Thread(target=_write, args=(made, stop))
        writer.start()
        yield made
        before = len(made.acknowledged)
        eventually(lambda: len(made.acknowledged) > before)  # it still gets through
        stop.set()
        writer.join(60)
        stored = made.sql("reader", "SELECT start_ns FROM spans WHERE run_id = 'honest' ORDER BY start_ns")
        assert stored == [10 * n + i for n in sorted(made.acknowledged) for i in range(10)]
        assert made.sql("reader", "SELECT count(*) FROM spans WHERE run_id <> 'honest'") == [0]


def _write(fleet: Fleet, stop: threading.Event) -> None:
    def batches() -> Iterator[Any]:
        sequence = 0
        while not stop.wait(0.02):
            sequence += 1
            yield batch(spans(10, "honest", 10 * sequence), sequence, agent="honest")

    with fleet.channel("honest") as channel:
        for ack in services.PUSH.client(channel)(batches()):
            fleet.acknowledged.append(ack.sequence)


def _push(channel: Any, agent: str = "evil") -> None:
    list(services.PUSH.client(channel)(iter([batch(spans(10, "evil"), 1, agent=agent)]), timeout=60))


def _attach(channel: Any, agent: str = "evil", host: str = "host", name: str = "name") -> None:
    list(services.ATTACH.client(channel)(iter([Hello(agent, host, name, "1")]), timeout=60))


def _turncoat(channel: Any) -> None:
    both = (Hello(agent, "host", "name", "1") for agent in ("evil", "honest"))
    list(services.ATTACH.client(channel)(both, timeout=60))


def _control(method: services.Method, request: Any) -> Callable[[Any], None]:
    return lambda channel: method.client(channel)(request, timeout=60)


_list = _control(services.LIST_AGENTS, Filter())
_delete = _control(services.DELETE_RUNS, RunIds(("honest",)))
_change = _control(services.CHANGE_RUN, RunChange("honest", name="mine"))
_join = _control(services.JOIN, JoinRequest("rfj_00000000_" + "A" * 43, "evil"))


def _unknown(channel: Any) -> None:
    channel.unary_unary("/roofleet.v1.Control/Shutdown")(b"", timeout=60)


def _raw(channel: Any, path: str) -> None:
    channel.unary_unary(path)(b"", timeout=60)


def _large(channel: Any) -> None:
    channel.unary_unary(services.CHANGE_RUN.path)(b"\x0a" * 2_000_000, timeout=60)


NO, MAY_NOT, BAD = "UNAUTHENTICATED", "PERMISSION_DENIED", "INVALID_ARGUMENT"
INTRUDERS: dict[str, tuple[str | None, Callable[[Any], None], str]] = {
    **{
        f"{who} {what}": (shown, call, NO)
        for who, shown in {
            "nobody": None,
            "a wrong token": f"rft_00000000_{'A' * 43}",
            "text that is no token": "password",
            "an expired token": "expired",
            "a revoked token": "revoked",
        }.items()
        for what, call in {"pushes": _push, "attaches": _attach, "lists": _list, "deletes": _delete}.items()
    },
    "an agent as another": ("agent", lambda c: _push(c, "honest"), MAY_NOT),
    "an agent attached as another": ("agent", lambda c: _attach(c, "honest"), MAY_NOT),
    "an operator as an agent": ("operator", lambda c: _push(c, "honest"), MAY_NOT),
    "an admin as an agent": ("admin", lambda c: _push(c, "other"), MAY_NOT),
    "an agent that attaches as itself and then as another": ("agent", _turncoat, MAY_NOT),
    "an agent that deletes": ("agent", _delete, MAY_NOT),
    "an agent that renames": ("agent", _change, MAY_NOT),
    "an agent that lists": ("agent", _list, MAY_NOT),
    "a reader that pushes": ("reader", _push, MAY_NOT),
    "a reader that attaches": ("reader", _attach, MAY_NOT),
    "a reader that deletes": ("reader", _delete, MAY_NOT),
    "a reader that renames": ("reader", _change, MAY_NOT),
    "an operator that attaches": ("operator", _attach, MAY_NOT),
    "a reader that calls what is not there": ("reader", _unknown, "UNIMPLEMENTED"),
    **{
        f"a caller as {who} of {method.name}": (who, lambda c, path=method.path: _raw(c, path), MAY_NOT)
        for who in ("agent", "reader")
        for method in (services.SUBMIT_JOB, services.CANCEL_JOB, services.LABEL_HOST, services.BACKUP)
    },
    "a code that is none": (None, _join, NO),
    "a change of 2 MB": ("operator", _large, "RESOURCE_EXHAUSTED"),
    **{
        f"{what} as {field}": ("agent", call, BAD)
        for what, text in {
            "a path": "../../etc/passwd",
            "NUL": "a\x00b",
            "10 kB": "a" * 10_000,
            "right-to-left text": "\u202egpj.exe",
        }.items()
        for field, call in {
            "agent id": lambda c, text=text: _push(c, text),
            "attached agent": lambda c, text=text: _attach(c, text),
            "host id": lambda c, text=text: _attach(c, "evil-2", host=text),
            "host name": lambda c, text=text: _attach(c, "evil-2", name=text),
        }.items()
    },
}


@pytest.mark.parametrize("intruder", INTRUDERS)
def test_an_intruder_is_refused(fleet: Fleet, intruder: str) -> None:
    """By the status that says why, before anything is stored or changed."""
    who, call, status = INTRUDERS[intruder]
    with fleet.channel(who) as channel, pytest.raises(grpc.RpcError) as refused:
        call(channel)
    assert refused.value.code().name == status, refused.value.details()


@pytest.mark.parametrize("who", ["expired", "revoked", "agent", f"rft_00000000_{'A' * 43}"])
def test_sql_is_for_readers(fleet: Fleet, who: str) -> None:
    """A token that opens nothing, or an agent's, reads no row."""
    with pytest.raises((NotLetIn, UserError), match=r"token|role agent may not"):
        fleet.sql(who, "SELECT run_id FROM runs")


def test_two_tokens_are_none(fleet: Fleet) -> None:
    """A call that shows two tokens is not searched for the better one."""
    metadata = [("authorization", f"Bearer {fleet.shown[who]}") for who in ("reader", "admin")]
    with grpc.insecure_channel(fleet.running.grpc) as channel, pytest.raises(grpc.RpcError) as refused:
        services.LIST_AGENTS.client(channel)(Filter(), timeout=60, metadata=metadata)
    assert refused.value.code().name == NO


def test_a_flood_of_streams_is_bounded(fleet: Fleet) -> None:
    """An agent that opens streams without end gets so many, is told so, and has room again when they end."""
    with fleet.channel("agent") as channel:
        held, quiet = [], threading.Event()

        def nothing() -> Iterator[Any]:
            yield Hello("flood", "host", "name", "1")
            quiet.wait(60)

        try:
            refused: list[grpc.RpcError] = []
            for _ in range(Callers.streams + 20):
                call = services.ATTACH.client(channel)(nothing())
                try:
                    next(call)
                    held.append(call)
                except grpc.RpcError as error:
                    refused.append(error)
            assert len(held) == Callers.streams
            assert {error.code().name for error in refused} == {"RESOURCE_EXHAUSTED"}
        finally:
            quiet.set()
            for call in held:
                call.cancel()

    def again() -> bool:
        with fleet.channel("agent") as channel:
            try:
                _attach(channel, "flood")
            except grpc.RpcError:
                return False
            return True

    eventually(again)


def test_a_flood_of_wrong_tokens_is_few_rows(fleet: Fleet) -> None:
    """Every call of a thousand is refused and counted, in a row for each second that it lasts."""
    flood, seen = (
        1000,
        "SELECT times FROM audit WHERE identity = 'an unknown token' AND what = 'ListHardware'",
    )
    with fleet.channel(f"rft_00000000_{'B' * 43}") as channel:
        ask = services.LIST_HARDWARE.client(channel)
        calls = [ask.future(Filter(), timeout=120) for _ in range(flood)]
        assert {call.code().name for call in calls} == {NO}
    eventually(lambda: sum(fleet.sql("reader", seen)) == flood)
    assert len(fleet.sql("reader", seen)) < flood / 10


def test_a_storm_of_resets_leaves_nothing(fleet: Fleet) -> None:
    """Streams that are opened and thrown away are limited by rate, and the caller is let in again later."""
    with fleet.channel("other agent") as channel:
        for _ in range(1000):
            services.ATTACH.client(channel)(iter(())).cancel()

        def let_in() -> bool:
            try:
                services.GET_COLLECTOR.client(channel)(Filter(), timeout=60)
            except grpc.RpcError:
                return False
            return True

        eventually(let_in)


@pytest.mark.parametrize("what", ["push", "attach"])
def test_a_stream_ends_when_its_token_is_revoked(fleet: Fleet, what: str) -> None:
    """An agent in the middle of a stream is put out within moments."""
    text = fleet.tokens.create(f"short {what}", Role.agent)
    quiet = threading.Event()

    def messages() -> Iterator[Any]:
        if what == "attach":
            yield Hello(f"short-{what}", "host", "name", "1")
        else:
            yield batch(spans(1, "honest", 0).slice(0, 0), 1, agent=f"short-{what}")
        quiet.wait(120)

    method = services.ATTACH if what == "attach" else services.PUSH
    with fleet.channel(text) as channel:
        call = method.client(channel)(messages())
        try:
            next(call)
            fleet.tokens.revoke(f"short {what}")
            with pytest.raises(grpc.RpcError, match="revoked") as ended:
                next(call)
        finally:
            quiet.set()
    assert ended.value.code().name == NO


def test_refusals_and_changes_are_in_the_audit(fleet: Fleet) -> None:
    """Who was refused what, and who changed what, is found in SQL, without any token."""
    with fleet.channel("operator") as channel:
        services.DELETE_RUNS.client(channel)(RunIds(("no such run",)), timeout=60)
    with fleet.channel("reader") as channel, pytest.raises(grpc.RpcError):
        _delete(channel)

    def has(text: str) -> Callable[[], bool]:
        return lambda: bool(fleet.sql("reader", f"SELECT 1 FROM audit WHERE {text}"))

    eventually(has("identity = 'operator' AND what = 'DeleteRuns' AND target = 'no such run' AND times = 1"))
    eventually(has("identity = 'reader' AND role = 'reader' AND what = 'DeleteRuns' AND outcome = 'refused'"))
    with pytest.raises(UserError):
        fleet.sql("reader", "DELETE FROM runs")
    eventually(has("identity = 'reader' AND what = 'SQL' AND outcome = 'refused'"))
    eventually(has("what = 'create token' AND target LIKE 'honest%'"))
    everything = "".join(fleet.sql("reader", "SELECT audit::VARCHAR FROM audit"))
    assert not [text for text in fleet.shown.values() if text in everything or text[-20:] in everything]
