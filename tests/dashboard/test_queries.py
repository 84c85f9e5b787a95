"""The named queries: all SQL of the dashboard, run against the real store."""

from __future__ import annotations

import re
from pathlib import Path

import pyarrow as pa
import pytest
from tests.collector.test_figures import poisoned
from tests.dashboard.data import SWEEP, Fleet
from tests.support import laid

import roofleet_dashboard
from roofleet_collector.store import DuckDBStore
from roofleet_dashboard import queries

ROOT = Path(roofleet_dashboard.__file__).parent


def parameters(fleet: Fleet) -> dict[str, tuple[object, ...]]:
    """What each query is asked with; a query without an entry takes nothing."""
    run = fleet.gpt2_run
    return {
        "run": (run,),
        "run_choice": (run,),
        "phases": (run,),
        "bottlenecks": (run, 3),
        "roofline_points": (run, "decode", "layer"),
        "roofs": (run,),
        "layer": (run, "decode", "lm_head"),
        "sweep_runs": (SWEEP,),
        "network_layers": (run, "decode"),
        "network_edges": (run, "decode"),
        "network_order": (run, "decode"),
    }


@pytest.mark.parametrize("name", queries.names())
def test_every_query_gives_rows(fleet: Fleet, name: str) -> None:
    """Each named query is accepted by the store and finds rows in a fleet with runs."""
    assert queries.rows(fleet.source, name, *parameters(fleet).get(name, ()))


@pytest.mark.parametrize("name", queries.names())
def test_every_query_gives_the_same_columns_without_rows(fleet: Fleet, tmp_path: Path, name: str) -> None:
    """An empty store is no special case: the columns are there, with the same types."""
    given = parameters(fleet).get(name, ())
    full = fleet.source.query(queries.sql(name), given)
    empty = DuckDBStore(laid(tmp_path))
    try:
        bare = empty.query(queries.sql(name), list(given)).read_all()
    finally:
        empty.close()
    assert bare.num_rows == 0
    assert [(f.name, _kind(f.type)) for f in bare.schema] == [(f.name, _kind(f.type)) for f in full.schema]


def _kind(type: pa.DataType) -> str:
    return "number" if pa.types.is_integer(type) or pa.types.is_floating(type) else str(type)


@pytest.mark.parametrize("name", queries.names())
def test_every_query_names_its_columns(name: str) -> None:
    """No query asks for `*`: a renamed column fails here and not when somebody clicks."""
    assert not re.search(r"SELECT\s+(\w+\.)?\*", queries.sql(name), re.IGNORECASE)


def test_sql_lives_only_in_the_queries() -> None:
    """No Python file of the dashboard contains SQL."""
    for file in ROOT.rglob("*.py"):
        assert not re.search(r"\bSELECT\b.+\bFROM\b", file.read_text(), re.DOTALL), file.name


def test_an_unknown_query_is_named(fleet: Fleet) -> None:
    """Asking for a query that does not exist says which do."""
    with pytest.raises(KeyError, match="no query 'nonsense'"):
        queries.rows(fleet.source, "nonsense")


def test_points_of_a_level_come_with_the_model(fleet: Fleet) -> None:
    """The roofline query gives the level asked for and the whole model, and no other level."""
    rows = queries.rows(fleet.source, "roofline_points", fleet.gpt2_run, "prefill", "role")
    assert {row["level"] for row in rows} == {"role", "model"}
    assert sum(row["level"] == "model" for row in rows) == 1


def test_every_query_answers_whatever_is_stored(tmp_path: Path) -> None:
    """Rows that no agent sends any more, but that were stored before, are left out or NULL."""
    store = DuckDBStore(laid(tmp_path))
    try:
        poisoned(store)
        for run_id in ("a step of 0 ns", "a run of a far year", "a workload beyond counting"):
            given: dict[str, list[object]] = {
                "run": [run_id], "run_choice": [run_id], "phases": [run_id], "bottlenecks": [run_id, 3],
                "roofline_points": [run_id, "decode", "layer"], "roofs": [run_id],
                "layer": [run_id, "decode", "b"], "sweep_runs": ["{}"], "network_layers": [run_id, "decode"],
                "network_edges": [run_id, "decode"], "network_order": [run_id, "decode"],
            }  # fmt: skip
            for name in queries.names():
                store.query(queries.sql(name), given.get(name, [])).read_all().to_pylist()
        sweeps = store.query(queries.sql("sweeps")).read_all().to_pylist()
        assert [row["axes"] for row in sweeps] == ['{"batch_size": [1]}']
    finally:
        store.close()
