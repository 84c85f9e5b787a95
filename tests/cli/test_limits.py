"""The limits that an operator gives: their defaults, their checks, and that they hold."""

from __future__ import annotations

import inspect
from contextlib import closing
from pathlib import Path

import pytest
from tests.support import collector, roofleet

import roofleet as api
from roofleet.commands.limits import bounds_of, spool_of
from roofleet.errors import UserError
from roofleet_agent.service import LIMITS
from roofleet_collector.limits import USUAL, Engine
from roofleet_collector.store import DuckDBStore


def test_the_defaults_that_help_tells_are_those_of_the_code() -> None:
    """Without a wish a collector and an agent have the limits that they have without a command line, and the
    help says each."""
    assert bounds_of() == USUAL
    assert spool_of() == LIMITS
    told = " ".join(roofleet("collector", "--help", data=Path(), COLUMNS="200").stdout.split())
    for name, parameter in inspect.signature(bounds_of).parameters.items():
        assert f"--{name.replace('_', '-')} " in told
        if parameter.default is not None:
            assert f"[default: {parameter.default}]" in told


@pytest.mark.parametrize(
    ("command", "option", "value", "said"),
    [
        ("collector", "--query-time", "soon", "no number of 0.01 or more"),
        ("collector", "--query-time", "0", "no number of 0.01 or more"),
        ("collector", "--query-plan", "none", "no number of 0.01 or more"),
        ("collector", "--query-rows", "-1", "no whole number of 1 or more"),
        ("collector", "--query-bytes", "4 G", "is no size"),
        ("collector", "--engine-memory", "1MiB", "64MiB or more"),
        ("collector", "--waiting", "8MiB", "more than --waiting"),
        ("collector", "--streams-each", "nan", "no whole number"),
        ("agent", "--spool-size", "0", "is no size"),
        ("agent", "--spool-days", "inf", "no number of 0.01 or more"),
    ],
)
def test_a_limit_that_is_none_is_refused(
    tmp_path: Path, command: str, option: str, value: str, said: str
) -> None:
    """With the option, the value and what would be one; nothing is started."""
    done = roofleet(command, option, value, data=tmp_path)
    assert done.returncode == 2
    assert said in done.stderr
    assert option.split("-")[2] in done.stderr
    assert not list(tmp_path.iterdir())


def test_a_collector_keeps_the_limits_that_it_is_given(tmp_path: Path) -> None:
    """A query that gives more rows than allowed ends with how many are; `none` is without a limit."""
    limits = ("--query-rows", "10", "--query-bytes", "none")
    assert bounds_of(query_time="NONE", queries_each="none").queries.timeout_s is None
    with collector(tmp_path, *limits) as running, api.connect(running.sql) as asked:
        assert asked.sql("SELECT unnest(range(10)) AS a").num_rows == 10
        with pytest.raises(UserError, match="larger than 10 rows"):
            asked.sql("SELECT unnest(range(11)) AS a")


def test_the_engine_takes_what_it_is_given(tmp_path: Path) -> None:
    """Its memory and its temporary files are set before the lock on its settings falls."""
    engine = Engine(memory_bytes=300 * 2**20, temporary_bytes=70 * 2**20)
    with closing(DuckDBStore(tmp_path, engine=engine)) as store:
        settings = store.query(
            "SELECT current_setting('memory_limit') AS memory, "
            "current_setting('max_temp_directory_size') AS disk"
        )
        assert settings.read_all().to_pylist() == [{"memory": "300.0 MiB", "disk": "70.0 MiB"}]
