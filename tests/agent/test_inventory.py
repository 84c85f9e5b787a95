"""Who a host is."""

from __future__ import annotations

import pytest

from roofleet_agent import inventory


def test_a_container_is_the_host_that_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """With ROOFLEET_HOST all containers that follow one another there are one host, whatever their own name
    and id are; without it a machine is what its id and its name say."""
    told = []
    for number in range(2):
        monkeypatch.setattr(inventory, "_machine_id", lambda number=number: f"id-{number}")
        monkeypatch.setenv("ROOFLEET_HOST", "node-7")
        named = inventory.host_row("agent")
        monkeypatch.delenv("ROOFLEET_HOST")
        told.append((named["host_id"], named["hostname"], inventory.host_id()))
    (first, name, own), (second, _, other) = told
    assert first == second
    assert name == "node-7"
    assert len({first, own, other}) == 3
