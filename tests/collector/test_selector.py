"""Selectors: what is written picks what is meant, and what is no selector says why."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roofleet_collector.jobs.selector import Place, Selector, SelectorError, Term, parse
from roofleet_proto.records import DeviceOffer

H100 = Place(
    DeviceOffer("d-1", "gpu", "NVIDIA H100 80GB HBM3", "cuda", 1, 80 * 2**30), "box", "h-1", {"site": "lab1"}
)
CPU = Place(DeviceOffer("d-2", "cpu", 'AMD "EPYC", 64 cores', "cpu", 0), "box", "h-1")

_values = st.text(st.characters(codec="utf-8", exclude_categories=("Cs",)), max_size=12)
_labels = st.from_regex(r"label:[a-z0-9_./-]{1,8}", fullmatch=True)
_terms = st.one_of(
    st.builds(
        Term,
        st.sampled_from(["kind", "name", "host", "device", "backend"]) | _labels,
        st.sampled_from(["=", "!=", "~"]),
        _values,
    ),
    st.builds(
        Term,
        st.just("memory"),
        st.sampled_from(["=", "!=", ">=", "<=", ">", "<"]),
        st.sampled_from(["40GiB", "1.5 TB", "17", "80 gb"]),
    ),
)
_selectors = st.builds(
    Selector, st.lists(_terms, min_size=1, max_size=4).map(tuple), st.booleans()
) | st.just(Selector((), True))


@given(_selectors)
def test_a_selector_that_is_written_and_read_is_the_same(selector: Selector) -> None:
    """parse(str(x)) == x, whatever its values hold: commas, quotes, spaces."""
    assert parse(str(selector)) == selector


@given(st.text(max_size=60) | st.text('abkindmeory=><!~,"' + " 19GiB:", max_size=40))
def test_any_text_is_a_selector_or_says_what_is_wrong(text: str) -> None:
    """Nothing but SelectorError is raised, and what is read is read alike again."""
    with contextlib.suppress(SelectorError):
        selector = parse(text)
        assert parse(str(selector)) == selector


@pytest.mark.parametrize(
    ("text", "h100", "cpu"),
    [
        ("all", True, True),
        ("kind=cuda", True, False),
        ("kind=gpu", True, False),
        ("kind!=gpu", False, True),
        ("backend=cuda:1", True, False),
        ("memory>=40GiB", True, False),
        ("memory<40GiB", False, False),  # of the CPU it is not known
        ("memory>80GiB", False, False),
        ("memory=80GiB", True, False),
        ("label:site=lab1", True, False),
        ("label:site!=lab1", False, True),
        ("host=box, name~h100", True, False),
        ("host=h-1", True, True),
        ("device=d-2", False, True),
        ('name="AMD ""EPYC"", 64 cores"', False, True),
        ("all,kind=cpu", False, True),
    ],
)
def test_a_selector_picks_the_devices_that_fit(text: str, h100: bool, cpu: bool) -> None:
    """By kind, name, memory, label, host and id; what is not known fits no comparison."""
    selector = parse(text)
    assert (selector.fits(H100), selector.fits(CPU)) == (h100, cpu)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "empty"),
        ("kind", "no condition"),
        ("kind=", "lacks its value"),
        ("colour=red", "not picked by 'colour'"),
        ("memory>=lots", "no size"),
        ("memory~40GiB", "compared with"),
        ("kind>=gpu", "kind is text"),
        ('name="a"b', "write a comma"),
        ("kind=gpu,", "no condition"),
        ("label:=x", "no condition"),
        ("x" * 5000, "the most is 4,096"),
    ],
)
def test_what_is_no_selector_says_why(text: str, says: str) -> None:
    """The message names the part and what is expected."""
    with pytest.raises(SelectorError, match=says):
        parse(text)
