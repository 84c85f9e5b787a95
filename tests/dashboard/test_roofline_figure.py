"""The roofline chart: its points and lines are those of the tables."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.dashboard.data import CPU_BYTES_PER_S, CPU_FLOPS_PER_S, GPU_RUN, Fleet

from roofleet_analysis.catalogs.hardware import find_hardware, hardware
from roofleet_dashboard import queries
from roofleet_dashboard.figures.label_places import Dot, label_places
from roofleet_dashboard.figures.palette import DARK, LIGHT, OKABE_ITO, sequential, text_on
from roofleet_dashboard.figures.roofline import ABOVE_ROOF, Series, drawable, roofline_figure
from roofleet_dashboard.figures.roofs import DeviceRoofs, hardware_roofs, pairs, stored_roofs


@pytest.fixture
def points(fleet: Fleet) -> list[dict[str, Any]]:
    """The layers of a run, and the model."""
    return queries.rows(fleet.source, "roofline_points", fleet.gpt2_run, "prefill", "layer")


@pytest.fixture
def roofs(fleet: Fleet) -> DeviceRoofs:
    """The measured roofs of the CPU."""
    return stored_roofs("Test CPU", queries.rows(fleet.source, "roofs", fleet.gpt2_run), ["fp32"])


def test_every_point_lies_where_its_row_says(points: list[dict[str, Any]], roofs: DeviceRoofs) -> None:
    """Horizontal is arithmetic intensity, vertical achieved FLOP/s, and a click names the layer."""
    figure = roofline_figure([Series("gpt2", tuple(points), 0)], [roofs], LIGHT)
    drawn = {
        tuple(data[3:4]): (x, y)
        for trace in figure.data
        if trace.customdata is not None
        for data, x, y in zip(trace.customdata, trace.x, trace.y, strict=True)
    }
    expected = {
        (row["name"],): (row["arithmetic_intensity"], row["achieved_flops_per_s"])
        for row in points
        if drawable(row)
    }
    assert drawn == expected


def test_a_point_without_flops_is_not_at_zero(points: list[dict[str, Any]]) -> None:
    """An embedding moves bytes and computes nothing: it has no place on logarithmic axes."""
    embedding = next(row for row in points if row["name"] == "transformer.wte")
    assert not drawable(embedding)


def test_the_model_has_a_symbol_of_its_own(points: list[dict[str, Any]]) -> None:
    """The point of the whole model is a star, and belongs to the legend entry of its series."""
    figure = roofline_figure([Series("gpt2", tuple(points), 0)], [], LIGHT)
    layers, model = (trace for trace in figure.data if trace.customdata is not None)
    assert (layers.marker.symbol, model.marker.symbol) == ("circle", "star")
    assert layers.legendgroup == model.legendgroup
    assert (layers.showlegend, model.showlegend) == (True, False)


def test_the_roof_is_a_slope_and_a_flat_that_meet_at_the_ridge(roofs: DeviceRoofs) -> None:
    """Left of the ridge the roof is intensity times bandwidth, right of it the compute roof."""
    figure = roofline_figure([], [roofs], LIGHT)
    slope, flat, ridge = figure.data
    assert slope.y[0] / slope.x[0] == pytest.approx(CPU_BYTES_PER_S)
    assert set(flat.y) == {CPU_FLOPS_PER_S}
    assert ridge.x[0] == pytest.approx(CPU_FLOPS_PER_S / CPU_BYTES_PER_S)
    assert slope.y[-1] == pytest.approx(flat.y[0])
    assert (slope.line.dash, slope.showlegend, flat.showlegend) == ("solid", True, False)


def test_a_roof_says_where_it_comes_from(roofs: DeviceRoofs) -> None:
    """The hover of a line has its height with its unit, and how it was measured."""
    flat = roofline_figure([], [roofs], LIGHT).data[1]
    assert "196 GFLOP/s" in flat.hovertemplate
    assert "measured: torch.mm of 2048 x 2048 fp32 matrices" in flat.hovertemplate


def test_only_roofs_of_the_wanted_dtypes_are_drawn(fleet: Fleet) -> None:
    """A GPU has a compute roof for each of many dtypes; those that no run uses stay away."""
    rows = queries.rows(fleet.source, "roofs", GPU_RUN)
    device = stored_roofs("H100", rows, ["bf16"])
    assert len(device.dtypes()) > 3
    ((_, computes),) = pairs(device)
    assert [roof.name for roof in computes] == ["bf16"]


def test_catalogue_roofs_equal_those_the_collector_gives_a_device(fleet: Fleet) -> None:
    """Hardware added from the catalogue has the roofs that a device of that name has."""
    entry = find_hardware("h100-sxm")
    assert entry is not None
    stored = stored_roofs("H100", queries.rows(fleet.source, "roofs", GPU_RUN), [])
    key = lambda roof: (roof.kind, roof.name)  # noqa: E731
    assert sorted(hardware_roofs(entry, []).roofs, key=key) == sorted(stored.roofs, key=key)


@pytest.mark.parametrize("entry", hardware(), ids=lambda entry: entry.name)
def test_every_hardware_of_the_catalogue_can_be_drawn(entry) -> None:
    """Each entry gives a slope, and a flat for each of its dtypes, with its source."""
    device = hardware_roofs(entry, [roof.dtype for roof in entry.compute])
    figure = roofline_figure([], [device], DARK)
    assert len(figure.data) == 1 + 2 * len(device.dtypes())
    assert all(roof.source for roof in device.roofs)


def test_an_empty_chart_is_a_chart() -> None:
    """Without runs and roofs there are axes with units and nothing else."""
    figure = roofline_figure([], [], LIGHT)
    assert not figure.data
    assert "FLOP/byte" in figure.layout.xaxis.title.text


def test_a_larger_share_of_time_is_a_larger_point(points: list[dict[str, Any]]) -> None:
    """The longest layer has the largest point."""
    trace = roofline_figure([Series("gpt2", tuple(points), 0)], [], LIGHT).data[0]
    drawn = [row for row in points if row["level"] == "layer" and drawable(row)]
    shares = [row["share_of_phase"] for row in drawn]
    assert trace.marker.size[shares.index(max(shares))] == max(trace.marker.size)


@given(
    st.lists(
        st.builds(
            Dot,
            x=st.floats(0, 300),
            y=st.floats(0, 300),
            size=st.floats(5, 40),
            name=st.text("ab", max_size=9),
        ),
        max_size=12,
    )
)
def test_names_of_points_cover_nothing(dots: list[Dot]) -> None:
    """A name is left out rather than written over another name; one without a name gets no place."""
    places = label_places(dots, 300)
    assert len(places) == len(dots)
    assert all(place is None for dot, place in zip(dots, places, strict=True) if not dot.name)
    right = [d for d, p in zip(dots, places, strict=True) if p == "middle right"]
    for one in right:
        for other in right:
            same_line = one is not other and abs(one.y - other.y) < 6
            assert not (same_line and one.x + one.size / 2 < other.x < one.x + one.size / 2 + 6)


def test_text_is_legible_on_every_colour_of_the_scale() -> None:
    """Letters on the colours of the network have a contrast of at least 4.5 to 1."""
    for step in range(101):
        colour = sequential(step / 100)
        assert _contrast(colour, text_on(colour)) >= 4.5


def test_colours_of_series_differ() -> None:
    """No two series among the first six have the same colour."""
    assert len(set(OKABE_ITO)) == 6


def _contrast(one: str, other: str) -> float:
    high, low = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def _luminance(colour: str) -> float:
    channels = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else math.pow((c + 0.055) / 1.055, 2.4) for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


FAULT = "2.7 GFLOP/s above a roof of 1 GFLOP/s: its work or time is in doubt (fewer than 3 iterations)"


def test_a_point_above_its_roof_is_ringed_and_says_why(points: list[dict[str, Any]]) -> None:
    """One of the points is at fault: a ring of another shape and colour is around it, the legend says what
    rings are, the hover why, and a click names the point as before. Without a fault there is no ring."""
    series = Series("gpt2", tuple(points), 0)
    assert ABOVE_ROOF not in {trace.name for trace in roofline_figure([series], [], LIGHT).data}
    fault = {"fault": FAULT, "roofline_fraction": 2.7}
    faulty = [row | fault if row["level"] == "model" else row for row in points]
    ring = roofline_figure([Series("gpt2", tuple(faulty), 0)], [], LIGHT).data[-1]
    (model,) = (row for row in points if row["level"] == "model")
    assert (ring.name, ring.marker.symbol, ring.showlegend) == (ABOVE_ROOF, "circle-x-open", None)
    assert (ring.x, ring.y) == ((model["arithmetic_intensity"],), (model["achieved_flops_per_s"],))
    assert ring.customdata[0][3] == model["name"]
    assert "270 % (!)" in ring.hovertext[0]
    assert "above a roof of 1 GFLOP/s" in ring.hovertext[0].replace("<br>", " ")


def test_the_caches_have_a_slope_of_their_own_and_no_flats() -> None:
    """A dotted line above the memory's, up to the compute roof: what stays in a cache may lie between."""
    row = {"device_id": "d", "source_kind": "measured", "source": "here", "other_load": 0.0, "dtype": None}
    rows = [
        row | {"kind": "memory", "memory_level": "dram", "bytes_per_s": 1e10},
        row | {"kind": "memory", "memory_level": "cache", "bytes_per_s": 8e10},
        row | {"kind": "compute", "dtype": "fp32", "flops_per_s": 1e11, "source_kind": "seen"},
    ]
    slope, flat, _, cached = roofline_figure([], [stored_roofs("CPU", rows, ["fp32"])], LIGHT).data
    assert (slope.line.dash, flat.line.dash, cached.line.dash) == ("solid", "solid", "dot")
    assert cached.y[0] / cached.x[0] == pytest.approx(8e10)
    assert cached.y[-1] == pytest.approx(1e11)
    assert slope.name == flat.name == cached.name == "CPU · roofs (measured)"
