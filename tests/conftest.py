"""What holds for every test: no network, no time limits of hypothesis, no process left behind."""

from __future__ import annotations

import gc
import os
from pathlib import Path

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


SLOW = (
    "agent/test_profiling.py",
    "agent/test_variants.py",
    "cli/test_fitting.py",
    "cli/test_one_folder_for_many.py",
    "cli/test_python_api.py",
    "cli/test_sweep.py",
    "cli/test_variants_and_quality.py",
    "contracts/test_alike_blocks.py",
    "contracts/test_families.py",
    "contracts/test_harms_nothing.py",
    "contracts/test_leaves_nothing.py",
    "contracts/test_needed_work.py",
    "end_to_end/",
)
"""Files and folders whose tests run models or processes for many seconds together."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks what is slow as a whole, and puts files with slow tests first: the last one should be short."""
    here = Path(__file__).parent
    for item in items:
        if str(item.path.relative_to(here)).startswith(SLOW):
            item.add_marker("slow")
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(autouse=True, scope="module")
def old_objects_are_not_looked_through() -> None:
    """Takes what is there before a file's first test out of the garbage collector's sight.

    Torch and transformers are a million objects. The collector goes through all of them whenever a run that
    ends calls it, and now and then by itself.
    """
    gc.collect()
    gc.freeze()


def pytest_report_header() -> str:
    """Which of the two versions of DuckDB the tests run with."""
    return f"duckdb: {duckdb.__version__}"
