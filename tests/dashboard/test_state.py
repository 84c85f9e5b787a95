"""The state of a page and the URL's query: the one comes back out of the other."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roofleet_agent.workload import phases_of as agent_phases_of
from roofleet_dashboard.state import (
    LEVELS,
    METRICS,
    PHASES,
    LayerAt,
    NetworkState,
    RooflineState,
    RunPhase,
    RunsState,
    SweepsState,
    phases_of,
)

ids = st.text(st.characters(codec="utf-8", exclude_characters=",:"), min_size=1, max_size=12)
paths = st.text(st.characters(codec="utf-8", exclude_characters=","), min_size=1, max_size=12)
run_phases = st.builds(RunPhase, ids, st.sampled_from(PHASES))
lists = st.lists(paths, unique=True, max_size=3).map(tuple)
filters = st.dictionaries(st.text(max_size=5), st.integers(), min_size=1).map(
    lambda model: json.dumps(model, sort_keys=True)
)


@given(
    st.builds(
        RunsState,
        run=st.none() | ids,
        ticked=st.lists(ids, unique=True, max_size=3).map(tuple),
        filters=st.none() | filters,
    )
)
def test_a_runs_view_survives_its_url(state: RunsState) -> None:
    """Every state of the Runs page comes back from the URL it makes."""
    assert RunsState.parse(state.search()) == state


@given(
    st.builds(
        RooflineState,
        runs=st.lists(run_phases, unique=True, max_size=3).map(tuple),
        level=st.sampled_from(LEVELS),
        hardware=lists,
        dtypes=lists,
        point=st.none() | st.builds(LayerAt, run_phases, st.sampled_from(LEVELS), st.text(max_size=9)),
    )
)
def test_a_roofline_view_survives_its_url(state: RooflineState) -> None:
    """Every state of the Roofline page comes back from the URL it makes."""
    assert RooflineState.parse(state.search()) == state


@given(
    st.builds(
        NetworkState,
        run=st.none() | ids,
        phase=st.none() | st.sampled_from(PHASES),
        metric=st.sampled_from(METRICS),
        opened=st.none() | lists,
        node=st.none() | st.text(max_size=9),
    )
)
def test_a_network_view_survives_its_url(state: NetworkState) -> None:
    """Every state of the Network page comes back from the URL it makes; open nothing is not open none."""
    assert NetworkState.parse(state.search()) == state


@given(
    st.builds(SweepsState, sweep=st.none() | ids, across=st.none() | ids, figure=st.none() | ids, only=lists)
)
def test_a_sweeps_view_survives_its_url(state: SweepsState) -> None:
    """Every state of the Sweeps page comes back from the URL it makes."""
    assert SweepsState.parse(state.search()) == state


@pytest.mark.parametrize("page", [RunsState, RooflineState, NetworkState, SweepsState])
@given(search=st.text(max_size=40))
def test_any_url_is_some_view(page: type, search: str) -> None:
    """A URL that was edited by hand never fails; what makes no sense in it is left out."""
    state = page.parse(
        f"?runs={search}&run={search}&open={search}&point={search}&only={search}&filter={search}"
    )
    assert page.parse(state.search()) == state


def test_a_url_is_readable() -> None:
    """A shared link names its runs and phases in plain letters."""
    state = RooflineState(
        runs=(RunPhase("a1", "prefill"), RunPhase("b2", "decode")), level="layer", hardware=("h100-sxm",)
    )
    assert state.search() == "?runs=a1:prefill,b2:decode&level=layer&hardware=h100-sxm"
    assert NetworkState(run="a1", opened=("transformer.h.0",)).search() == "?run=a1&open=transformer.h.0"
    assert RooflineState().search() == ""


@given(st.sampled_from(["generate", "encode"]), st.integers(0, 5))
def test_phases_are_those_of_the_agent(task: str, new_tokens: int) -> None:
    """The dashboard expects of a run the phases that the agent measures."""
    assert list(phases_of(task, new_tokens)) == agent_phases_of(task, new_tokens)
