"""Tokens of a data folder: who they say somebody is, until they expire or are revoked."""

from __future__ import annotations

import sqlite3
import stat
from pathlib import Path

import pytest

from roofleet_collector.errors import CallRefused, KeysUnreadable, UnknownCaller
from roofleet_collector.keys import tokens as tokens_module
from roofleet_collector.keys.identity import NOBODY, Role, check_id, may
from roofleet_collector.keys.tokens import Tokens
from roofleet_collector.limits import Callers
from roofleet_proto.errors import MalformedMessage


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        """The time it is set to."""
        return self.now


@pytest.fixture(autouse=True)
def _always_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """What others change is seen at once."""
    monkeypatch.setattr(tokens_module.Tokens._look, "__defaults__", (0.0,))


def test_without_tokens_nobody_is_asked(tmp_path: Path) -> None:
    """A folder without tokens lets everybody do everything, and gets no file by being looked at."""
    tokens = Tokens(tmp_path)
    assert not tokens.exist()
    assert tokens.identify(None) == tokens.identify("rft_anything") == NOBODY
    assert list(tmp_path.iterdir()) == []


def test_a_token_says_who_somebody_is(tmp_path: Path) -> None:
    """A token opens with its name and role; any other text, a similar one too, opens nothing."""
    tokens = Tokens(tmp_path)
    text = tokens.create("anna", Role.reader)
    found = tokens.identify(text)
    assert (found.name, found.role) == ("anna", Role.reader)
    for other in (
        None,
        "",
        text[:-1],
        text + "x",
        text.swapcase(),
        f"rft_{text[4:12]}_{'A' * 43}",
        "é",
        "\udc80",
    ):
        with pytest.raises(UnknownCaller):
            tokens.identify(other)


def test_what_is_kept_is_no_token(tmp_path: Path) -> None:
    """Neither a token nor a code can be read from the file, which is its owner's alone."""
    tokens = Tokens(tmp_path)
    secrets = [tokens.create("anna", Role.admin), tokens.join_code("lab1")]
    kept = tokens.path.read_bytes()
    assert not [secret for secret in secrets if secret.split("_", 2)[2].encode() in kept]
    assert stat.S_IMODE(tokens.path.stat().st_mode) == 0o600


def test_others_see_what_a_command_changes(tmp_path: Path) -> None:
    """A token that another process makes or revokes is seen; so is the first one of all."""
    collector, command = Tokens(tmp_path), Tokens(tmp_path)
    text = command.create("anna", Role.reader)
    with pytest.raises(UnknownCaller, match="no token was given"):
        collector.identify(None)
    assert collector.refusal(NOBODY) == "tokens are asked for now"
    anna = collector.identify(text)
    assert collector.refusal(anna) is None
    assert [token.name for token in command.revoke("anna")] == ["anna"]
    assert collector.refusal(anna) == "the token was revoked"
    with pytest.raises(UnknownCaller, match="revoked"):
        collector.identify(text)
    with pytest.raises(UnknownCaller):
        collector.identify(None)  # tokens that open nothing do not open the door


def test_a_token_expires(tmp_path: Path) -> None:
    """Before its time it opens, at its time it does not."""
    clock = Clock()
    tokens = Tokens(tmp_path, clock)
    text = tokens.create("anna", Role.reader, lifetime_s=60)
    anna = tokens.identify(text)
    clock.now += 59
    assert tokens.refusal(anna) is None
    clock.now += 1
    assert tokens.refusal(anna) == "the token has expired"
    with pytest.raises(UnknownCaller, match="expired"):
        tokens.identify(text)


def test_an_agents_id_is_its_own(tmp_path: Path) -> None:
    """An id belongs to the name that used it first, later tokens included; nobody else writes under it."""
    tokens = Tokens(tmp_path)
    first, again = (tokens.identify(tokens.create("lab1", Role.agent)) for _ in range(2))
    other = tokens.identify(tokens.create("lab2", Role.agent, agent_ids=["id-2"]))
    admin = tokens.identify(tokens.create("boss", Role.admin))
    tokens.must_own(first, "id-1")
    tokens.must_own(again, "id-1")
    for who, agent_id in ((other, "id-1"), (admin, "id-1"), (first, "id-2")):
        with pytest.raises(CallRefused, match="belongs to"):
            Tokens(tmp_path).must_own(who, agent_id)
    tokens.must_own(admin, "id-3")
    tokens.must_own(other, "id-3")  # what a person sent from first is no person's
    with pytest.raises(ValueError, match="belongs to"):
        tokens.create("lab3", Role.agent, agent_ids=["id-1"])
    for number in range(Callers.agents - 1):
        tokens.must_own(first, f"more-{number}")
    with pytest.raises(CallRefused, match="which is the most"):
        tokens.must_own(first, "one more")


def test_a_token_made_elsewhere_is_taken_once(tmp_path: Path) -> None:
    """What a cluster's own secrets hold opens the doors; the same again, as at each start, changes nothing.
    Text that is none is refused, and so is another secret under its public part."""
    tokens = Tokens(tmp_path)
    text = "rft_0a1b2c3d_" + "x" * 43
    assert tokens.take(text, "nodes", Role.agent)
    assert not tokens.take(text, "nodes", Role.agent)
    assert Tokens(tmp_path).identify(text).name == "nodes"
    assert [token.token_id for token in tokens.listed()] == ["0a1b2c3d"]
    for other, said in ((text[:-1] + "y", "another token"), ("password", "is no token")):
        with pytest.raises(ValueError, match=said):
            tokens.take(other, "nodes", Role.agent)
    tokens.revoke("nodes")
    assert not tokens.take(text, "nodes", Role.agent)  # it stays revoked
    with pytest.raises(UnknownCaller):
        tokens.identify(text)


def test_a_name_has_one_role(tmp_path: Path) -> None:
    """A second token of a name replaces the first; it cannot be of another role before that is revoked."""
    tokens = Tokens(tmp_path)
    tokens.create("anna", Role.reader)
    with pytest.raises(ValueError, match="has the role reader"):
        tokens.create("anna", Role.admin)
    tokens.revoke("anna")
    assert tokens.identify(tokens.create("anna", Role.admin)).role is Role.admin


def test_a_code_is_used_once(tmp_path: Path) -> None:
    """A code gives the token of one agent; used, too old or invented it gives nothing."""
    clock = Clock()
    tokens = Tokens(tmp_path, clock)
    code, late = tokens.join_code("lab1"), tokens.join_code("lab2", valid_s=10)
    token, name = tokens.join(code, "id-1")
    joined = tokens.identify(token)
    assert (name, joined.name, joined.role) == ("lab1", "lab1", Role.agent)
    tokens.must_own(joined, "id-1")
    clock.now += 11
    for wrong, why in ((code, "used"), (late, "expired"), (code[:-1], "not known"), ("", "not known")):
        with pytest.raises(UnknownCaller, match=why):
            tokens.join(wrong, "id-2")
    with pytest.raises(UnknownCaller):
        tokens.identify(code)


def test_a_file_that_cannot_be_read_opens_nothing(tmp_path: Path) -> None:
    """Where the file is damaged, or of a newer version, a collector does not start; one that runs goes on
    with what it knew."""
    tokens = Tokens(tmp_path)
    text = tokens.create("anna", Role.reader)
    with sqlite3.connect(tokens.path) as db:
        db.execute("PRAGMA user_version = 99")
    with pytest.raises(KeysUnreadable, match="newer Roofleet"):
        Tokens(tmp_path)
    tokens.path.write_bytes(b"no database" * 1000)
    with pytest.raises(KeysUnreadable):
        Tokens(tmp_path)
    assert tokens.identify(text).name == "anna"


def test_changes_wait_for_the_audit(tmp_path: Path) -> None:
    """What commands do is kept until a collector has written it down."""
    tokens = Tokens(tmp_path)
    tokens.create("anna", Role.reader)
    tokens.revoke("anna")
    changes = Tokens(tmp_path).changes()
    assert [change.what for change in changes] == ["create token", "revoke token"]
    tokens.forget_changes(changes[0].change_id)
    assert [change.what for change in Tokens(tmp_path).changes()] == ["revoke token"]


PUSH, ATTACH, DELETE = (
    "/roofleet.v1.Ingest/Push",
    "/roofleet.v1.Fleet/Attach",
    "/roofleet.v1.Control/DeleteRuns",
)
RIGHTS = {
    "SQL": {"reader", "operator", "admin"},
    PUSH: {"agent", "operator", "admin"},
    ATTACH: {"agent", "admin"},
    DELETE: {"operator", "admin"},
    "/roofleet.v1.Control/SubmitJob": {"operator", "admin"},
    "/roofleet.v1.Control/ListAgents": {"reader", "operator", "admin"},
    "/roofleet.v1.Control/GetCollector": {"agent", "reader", "operator", "admin"},
    "/roofleet.v1.Control/SomethingNew": {"operator", "admin"},
    "/roofleet.v1.Keys/SomethingNew": {"admin"},
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo": {"operator", "admin"},
}


@pytest.mark.parametrize("what", RIGHTS)
def test_a_role_may_what_it_is_for(what: str) -> None:
    """Agents write, readers read, operators also change; what is new is for operators until it is said."""
    assert {role.value for role in Role if may(role, what)} == RIGHTS[what]


@pytest.mark.parametrize(
    "text",
    ["", "a" * 201, "a\x00b", "../etc", "a/b", "a\\b", "a\nb", "\u202eexe", "שלום", "a\u200bb", "\ud800"],
)
def test_what_can_be_no_id(text: str) -> None:
    """Ids are one short line of text that leads nowhere and reads from left to right."""
    with pytest.raises(MalformedMessage):
        check_id(text, "agent_id")


@pytest.mark.parametrize("text", ["a", "5f0c-11", "lab 1", "gpu-7.example.org", "Rechner für Anna"])
def test_what_can_be_an_id(text: str) -> None:
    """Names that people give to machines are ids."""
    assert check_id(text, "hostname") == text
