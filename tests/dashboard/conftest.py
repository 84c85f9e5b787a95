"""Fixtures of the dashboard's tests: one small fleet for the whole session."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.dashboard.data import Fleet, StoreSource


@pytest.fixture(scope="session")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """Two hosts, a CPU and a GPU, and runs of a tiny GPT-2 and a tiny BERT."""
    made = Fleet(tmp_path_factory.mktemp("fleet"))
    yield made
    made.store.close()


@pytest.fixture
def source(fleet: Fleet) -> Iterator[StoreSource]:
    """The fleet's source, which answers again after the test."""
    yield fleet.source
    fleet.source.is_away = False
