"""What holds for every test: no network, no time limits of hypothesis, no process left behind."""

from __future__ import annotations

import os

# Before torch is imported. Several workers that each take every core for a tiny matrix wait for one another.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["HF_HUB_OFFLINE"] = "1"

import duckdb
import hypothesis
import pytest
from tests.processes import leaves_no_process, leaves_no_process_in_the_end

__all__ = ["leaves_no_process", "leaves_no_process_in_the_end"]

# How long an example takes says something about the machine and nothing about what is tested.
hypothesis.settings.register_profile("roofleet", deadline=None)
hypothesis.settings.load_profile("roofleet")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests go first: the last one that a worker takes should be short."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


def pytest_report_header() -> str:
    """Which of the two versions of DuckDB the tests run with."""
    return f"duckdb: {duckdb.__version__}"
