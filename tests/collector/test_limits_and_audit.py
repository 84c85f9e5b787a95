"""Limits for each caller, and what is written down of refusals and changes."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from roofleet_collector.errors import TooMuch, Unprotected
from roofleet_collector.keys.audit import MOST_KINDS, Audit
from roofleet_collector.keys.identity import Role
from roofleet_collector.keys.limits import CALLERS, Limits
from roofleet_collector.keys.opening import Protection, is_loopback
from roofleet_collector.keys.sql_door import SqlDoor
from roofleet_collector.keys.tls import Certificates
from roofleet_collector.keys.tokens import Tokens
from roofleet_collector.store import DuckDBStore


def test_a_caller_at_its_limit_slows_no_other() -> None:
    """Calls beyond the rate are refused until time has passed; another caller begins as before."""
    now = [0.0]
    limits = Limits(calls_per_s=10, burst=5, streams=2, clock=lambda: now[0])
    for _ in range(5):
        limits.begin("flood")
    with pytest.raises(TooMuch, match="10 calls a second"):
        limits.begin("flood")
    limits.begin("honest")
    now[0] += 0.11
    limits.begin("flood")


def test_streams_at_once_are_counted() -> None:
    """Two streams are open, a third is refused until one of them ends, however it ends."""
    limits = Limits(streams=2)
    with limits.opened("a"):
        with pytest.raises(RuntimeError), limits.opened("a"):
            raise RuntimeError
        with limits.opened("a"), limits.opened("b"):
            with pytest.raises(TooMuch, match="2 streams"):
                limits.open("a")
    limits.open("a")


def test_callers_who_went_away_are_forgotten() -> None:
    """However many addresses call, few are remembered; one with an open stream is not forgotten."""
    limits = Limits(streams=1)
    limits.open("stays")
    for number in range(CALLERS + 500):
        limits.begin(f"address {number}")
    assert len(limits._callers) <= CALLERS + 1
    with pytest.raises(TooMuch):
        limits.open("stays")


def rows(store: DuckDBStore) -> list[dict[str, object]]:
    """The audit as stored."""
    asked = "SELECT identity, what, outcome, reason, peer, times FROM audit ORDER BY ALL"
    return store.query(asked).read_all().to_pylist()


def test_the_same_refusal_is_one_row(store: DuckDBStore, tmp_path: Path) -> None:
    """A flood of one caller is one row with a count, whatever ports it comes from; another is one more."""
    audit = Audit(store, Tokens(tmp_path / "keys"))
    for port in range(1000):
        audit.refused("lab1", "agent", "Push", "id", "belongs to lab2", f"ipv4:10.0.0.7:{port}")
    audit.refused("lab1", "agent", "SQL", None, "may not ask", None)
    audit.flush()
    assert [(row["what"], row["times"], row["peer"]) for row in rows(store)] == [
        ("Push", 1000, "ipv4:10.0.0.7"),
        ("SQL", 1, None),
    ]


def test_refusals_of_many_kinds_are_bounded(store: DuckDBStore, tmp_path: Path) -> None:
    """Refusals that all differ take so many rows and one more, and none goes uncounted."""
    audit = Audit(store, Tokens(tmp_path / "keys"))
    for number in range(500):
        audit.refused(f"caller {number}", None, "Push", None, "not known", None)
    audit.flush()
    kept = rows(store)
    assert len(kept) == MOST_KINDS + 1
    assert sum(int(str(row["times"])) for row in kept) == 500


def test_what_callers_write_is_one_short_printable_line(store: DuckDBStore, tmp_path: Path) -> None:
    """Neither length, nor lines, nor signs that a terminal obeys reach the audit."""
    audit = Audit(store, Tokens(tmp_path / "keys"))
    audit.did("anna\x1b[2J", "operator", "DeleteRuns", "a\n\x00\u202e" * 5000, None)
    audit.did("b\ud800", "operator", "DeleteRuns", None, None)
    audit.flush()
    found = store.query("SELECT identity, target FROM audit").read_all().to_pylist()
    assert all(str(value).isprintable() and len(str(value)) < 400 for row in found for value in row.values())


def test_commands_on_tokens_are_in_the_audit(store: DuckDBStore, tmp_path: Path) -> None:
    """What was made and revoked by command is written once, with who did it."""
    tokens = Tokens(tmp_path / "keys")
    tokens.create("anna", Role.reader)
    tokens.revoke("anna")
    audit = Audit(store, tokens)
    audit.flush()
    audit.flush()
    assert [(row["what"], row["outcome"]) for row in rows(store)] == [
        ("create token", "allowed"),
        ("revoke token", "allowed"),
    ]


def test_a_query_ends_with_the_right_to_it(store: DuckDBStore, tmp_path: Path) -> None:
    """A revoked token ends what runs for it, also while the engine has nothing to show yet; others go on."""
    tokens = Tokens(tmp_path / "keys")
    texts = {name: tokens.create(name, Role.reader) for name in ("anna", "bert")}
    door = SqlDoor(tokens, Audit(store, tokens), Limits(streams=1))
    ended: list[str] = []
    asking = {name: door.admit(text, "ipv4:10.0.0.7") for name, text in texts.items()}
    for name, call in asking.items():
        call.goes_with(partial(ended.append, name))
    door.look()
    assert ended == []
    tokens.revoke("anna")
    door.look()
    assert ended == ["anna"]
    with pytest.raises(TooMuch):
        door.admit(texts["bert"], "ipv4:10.0.0.7")
    asking["bert"].end()
    door.admit(texts["bert"], "ipv4:10.0.0.7").end()


FILES = Certificates(Path("c"), Path("k"))
OPENINGS = {
    "loopback is open": (["127.0.0.1", "::1", "localhost"], Protection(), False, None),
    "beyond it needs TLS": (["127.0.0.1", "0.0.0.0"], Protection(), True, "--insecure-plaintext"),
    "TLS needs tokens": (["0.0.0.0"], Protection(FILES), False, "--insecure-no-tokens"),
    "TLS and tokens will do": (["0.0.0.0"], Protection(FILES), True, None),
    "plain text needs tokens": (["::"], Protection(insecure_plaintext=True), False, "--insecure-no-tokens"),
    "one may insist on both": (
        ["::"],
        Protection(insecure_plaintext=True, insecure_no_tokens=True),
        False,
        None,
    ),
}


@pytest.mark.parametrize("case", OPENINGS)
def test_doors_open_to_others_with_keys_only(case: str) -> None:
    """Beyond loopback a collector has TLS and tokens, or its operator insists by name."""
    hosts, protection, have_tokens, refused = OPENINGS[case]
    if refused is None:
        protection.check(hosts, have_tokens)
        return
    with pytest.raises(Unprotected, match=refused):
        protection.check(hosts, have_tokens)


def test_what_loopback_is() -> None:
    """Addresses of this machine alone are; what does not resolve is not."""
    assert all(map(is_loopback, ["127.0.0.1", "127.9.9.9", "::1", "localhost"]))
    assert not any(map(is_loopback, ["0.0.0.0", "::", "10.0.0.1", "no-such-host.invalid"]))
