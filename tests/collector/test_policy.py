"""How long is kept what, as it is said in a file and by `--keep`."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from roofleet_collector.errors import PolicyUnusable
from roofleet_collector.policy import Policy, age_text, parsed_age, read_policy


def policy(folder: Path, text: str, *said: str) -> Policy:
    """The policy of a file with that text."""
    (folder / "collector.toml").write_text(text)
    return read_policy(folder / "collector.toml", said)


def test_without_a_word_only_readings_grow_coarser(tmp_path: Path) -> None:
    """Nothing that was measured of a model goes unless somebody asks for it."""
    usual = read_policy(tmp_path / "collector.toml")
    assert usual == Policy()
    assert (usual.readings, usual.readings_minutes) == (timedelta(days=7), timedelta(days=90))
    assert {usual.readings_hours, usual.spans, usual.runs, usual.jobs, usual.audit, usual.losses} == {None}


def test_what_is_said_at_the_start_stands_above_the_file(tmp_path: Path) -> None:
    """And what neither says is as usual."""
    found = policy(tmp_path, '[keep]\nspans = "8w"\nruns = "365d"\n', "runs=forever", "readings=36h")
    assert found == Policy(readings=timedelta(hours=36), spans=timedelta(weeks=8))


@pytest.mark.parametrize("text", ["90m", "36h", "7d", "forever"])
def test_an_age_is_the_same_after_it_was_written(text: str) -> None:
    """text(parsed(x)) == x."""
    assert age_text(parsed_age(text)) == text


@pytest.mark.parametrize(
    ("text", "said", "says"),
    [
        ("[keep", "", "cannot be read"),
        ('[kept]\nreadings = "7d"', "", "section keep"),
        ('keep = "7d"', "", "section keep"),
        ('[keep]\nreading = "7d"', "", "may have readings, readings_minutes"),
        ("[keep]\nspans = 7", "", "an age such as"),
        ('[keep]\nspans = "0d"', "", "an age such as"),
        ('[keep]\nspans = "7y"', "", "an age such as"),
        ('[keep]\nreadings = "1h"', "", "the least is 2h"),
        ("", "spans", "write readings=7d"),
        ("", "span=7d", "may have readings"),
        ("", "spans=-7d", "an age such as"),
    ],
)
def test_what_is_not_known_is_not_guessed_at(tmp_path: Path, text: str, said: str, says: str) -> None:
    """The collector does not start, and says what is meant."""
    with pytest.raises(PolicyUnusable, match=says):
        policy(tmp_path, text, *([said] if said else []))


def test_a_file_that_is_named_must_be_there(tmp_path: Path) -> None:
    """Without it a collector would keep or delete by another policy than the one that is meant."""
    with pytest.raises(PolicyUnusable, match="there is no"):
        read_policy(tmp_path / "mine.toml", must_be=True)
