"""Ids of runs: unlike one another, and in the order of time."""

from __future__ import annotations

import time
from uuid import UUID

import pytest

from roofleet_agent import run_ids
from roofleet_agent.run_ids import new_run_id


def test_ids_of_later_runs_are_greater(monkeypatch: pytest.MonkeyPatch) -> None:
    """By their first eight signs, in steps of an eighth of a second; what follows is chance."""
    ids = []
    for eighth in (1_800_000_000 * 8, 1_800_000_000 * 8 + 1, 1_800_003_600 * 8):
        monkeypatch.setattr(time, "time_ns", lambda eighth=eighth: eighth * 125_000_000)
        ids.append(sorted(run_ids.new_run_id() for _ in range(20)))
    assert [run_id[:8] for some in ids for run_id in some] == sorted(
        run_id[:8] for some in ids for run_id in some
    )
    assert [len({run_id[:8] for run_id in some}) for some in ids] == [1, 1, 1]
    assert ids[0][0][:8] < ids[1][0][:8] < ids[2][0][:8]
    assert len({run_id for some in ids for run_id in some}) == 60


def test_an_id_is_a_uuid() -> None:
    """Of version 8, which is for ids of one's own making."""
    found = UUID(new_run_id())
    assert (found.version, found.variant) == (8, "specified in RFC 4122")
