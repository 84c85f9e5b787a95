"""What jobs may do on a host is the agent's decision: each rule, and the word of the one that refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from roofleet_agent.errors import JobRefused, RulesUnusable
from roofleet_agent.jobs.rules import Rules, read_rules
from roofleet_proto.codec import MalformedMessage
from roofleet_proto.jobs import JobRequest, origin_of, parse_request

COMMIT = "607a30d783dfa663caf39e06633721c8d4cfcd7e"


def rules(folder: Path, text: str) -> Rules:
    """The rules of a file with this text."""
    file = folder / "agent.toml"
    file.write_text(text)
    return read_rules(file)


def refusal(rules: Rules, model: str, **more: Any) -> str:
    """Why a request is refused."""
    with pytest.raises(JobRefused) as caught:
        rules.check(JobRequest(model, **more))
    return str(caught.value)


def test_without_a_file_the_catalogue_is_allowed_and_nothing_else(tmp_path: Path) -> None:
    """No folder, no hub, no code; an hour at most."""
    usual = read_rules(tmp_path / "agent.toml")
    allowed = usual.check(JobRequest("gpt2"))
    assert (allowed.folder, allowed.revisions, allowed.time_s, allowed.memory_bytes) == (
        None,
        {},
        3600.0,
        None,
    )
    assert "local.roots" in refusal(usual, str(tmp_path))
    assert "hub.access" in refusal(usual, "openai-community/gpt2")
    assert "hub.access" in refusal(usual, "gpt2", weights="pretrained")
    assert "hub.access" in refusal(usual, "gpt2", prompt="hello")
    assert "never run code" in refusal(usual, "package.module:factory")
    assert "never run code" in refusal(usual, f"{tmp_path}/nets.py:net")
    assert "limits.time_s" in refusal(usual, "gpt2", max_time_s=3601.0)


def test_a_file_says_what_is_allowed(tmp_path: Path) -> None:
    """Patterns of models, commits of the hub, memory and time."""
    said = rules(
        tmp_path,
        f"""
        [models]
        allowed = ["bert-*", "gpt2"]
        [hub]
        access = true
        [hub.models]
        "openai-community/gpt2" = "{COMMIT}"
        [limits]
        memory = "2GiB"
        time_s = 60
        [labels]
        site = "lab1"
        """,
    )
    assert said.check(JobRequest("bert-base-uncased")).memory_bytes == 2 * 2**30
    assert said.check(JobRequest("gpt2", weights="pretrained")).revisions == {"openai-community/gpt2": COMMIT}
    assert said.check(JobRequest("openai-community/gpt2", max_time_s=5.0)).time_s == 5.0
    assert said.labels == {"site": "lab1"}
    assert "models.allowed" in refusal(said, "t5-small")
    assert "hub.models" in refusal(said, "someone/gpt2")
    assert "limits.memory" in refusal(said, "gpt2", max_memory_bytes=3 * 2**30)


def test_no_link_and_no_dots_lead_out_of_the_roots(tmp_path: Path) -> None:
    """Real paths count: of the folder, and of everything in it."""
    root, outside = tmp_path / "models", tmp_path / "outside"
    (root / "good").mkdir(parents=True)
    (root / "good" / "config.json").write_text("{}")
    (root / "bad").mkdir()
    outside.mkdir()
    (outside / "secret").write_text("s")
    (root / "bad" / "config.json").symlink_to(outside / "secret")
    (root / "link").symlink_to(outside)
    (root / "inside").symlink_to(root / "good")
    said = rules(tmp_path, f'[local]\nroots = ["{root}"]')
    assert said.check(JobRequest(str(root / "good"))).folder == str(root / "good")
    assert said.check(JobRequest(str(root / "inside"))).folder == str(root / "good")
    assert "leads out" in refusal(said, str(root / "bad"))
    for way in (
        outside,
        root / "link",
        root / ".." / "outside",
        f"{root}-beside",
        root / "good/../../outside",
    ):
        assert "local.roots" in refusal(said, str(way))
    assert "no folder" in refusal(said, str(root / "absent"))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[models", "cannot be read"),
        ("[modles]\nallowed = []", "may have the sections"),
        ("[hub]\nacess = true", "may have access, models"),
        ("[hub]\naccess = 1", "true or false"),
        ('[hub.models]\n"a/b" = "main"', "40 hexadecimal"),
        ('[local]\nroots = ["models"]', "whole paths"),
        ('[limits]\nmemory = "lots"', "a size"),
        ("[limits]\ntime_s = -1", "seconds"),
        ("[labels]\nsite = 1", "texts"),
        ('models = "gpt2"', "may have the sections"),
    ],
)
def test_a_file_that_says_what_is_not_known_is_not_guessed_at(tmp_path: Path, text: str, says: str) -> None:
    """The agent does not start, and says which line is meant."""
    with pytest.raises(RulesUnusable, match=says):
        rules(tmp_path, text)


def test_where_a_model_is_from_is_told_by_its_name() -> None:
    """A name alone is the catalogue's, whatever lies in the agent's folder."""
    names = ("gpt2", "a/b", "/srv/m", "./m", "~/m", "m:f", "a/b.py:f", "b.py")
    assert [origin_of(name) for name in names] == [
        "catalog", "hub", "folder", "folder", "folder", "module", "module", "module",
    ]  # fmt: skip


def test_a_request_is_the_same_after_it_travelled() -> None:
    """parse(text(x)) == x."""
    request = JobRequest("gpt2", batch_size=4, tags=("a",), settings={"n_layer": 2, "a": 1}, max_time_s=2.5)
    assert parse_request(request.text()) == request


@pytest.mark.parametrize(
    "text",
    [
        "", "[]", "{}", '{"model": 1}', '{"model": ""}', '{"model": "a\\n"}', '{"model": "a", "new": 1}',
        '{"model": "a", "batch_size": 0}', '{"model": "a", "batch_size": true}',
        '{"model": "a", "dtype": "x"}',
        '{"model": "a", "settings": {"a": "b"}}', '{"model": "a", "tags": "b"}',
        '{"model": "a", "budget_s": NaN}',
        '{"model": "a", "max_time_s": -1}', '{"model": "a", "weights": "own"}', "[" * 100_000,
        '{"model": "' + "a" * 2**21 + '"}',
    ],
)  # fmt: skip
def test_a_request_of_wrong_values_is_refused_in_words(text: str) -> None:
    """Wrong types, unknown names, texts without end: MalformedMessage."""
    with pytest.raises(MalformedMessage):
        parse_request(text)
