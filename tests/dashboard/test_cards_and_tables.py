"""Cards and tables: values with units, unknown as a dash, and the reason where there is one."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import unquote

import pytest
from tests.dashboard.data import FAILED_RUN, GPU_DEVICE, NO_POWER, Fleet

from roofleet_analysis import units
from roofleet_dashboard import queries
from roofleet_dashboard.figures.fleet import fleet_cards, missing_readings
from roofleet_dashboard.figures.runs import COLUMNS, column_definitions, grid_rows, run_figures
from roofleet_dashboard.figures.tables import layer_figures, point_figures


def shown(component: Any) -> str:
    """A component as the browser gets it."""
    return json.dumps(component.to_plotly_json(), default=lambda c: c.to_plotly_json(), ensure_ascii=False)


def test_a_missing_reading_says_why(fleet: Fleet) -> None:
    """Where a device gives no power, the card has a dash and the agent's reason."""
    page = shown(fleet_cards(queries.rows(fleet.source, "fleet"), []))
    assert f'"data-missing": "{NO_POWER}"' in page
    assert "412 W" in page


@pytest.mark.parametrize("text", [None, "", "nonsense", "[1]"])
def test_reasons_that_cannot_be_read_are_none(text: str | None) -> None:
    """A device that says nothing about its readings is no error."""
    assert missing_readings(text) == {}


def test_the_sparkline_is_on_a_scale_of_0_to_100_percent(fleet: Fleet) -> None:
    """Three quarters of full use are drawn at three quarters of the height, not at the top."""
    devices = queries.rows(fleet.source, "fleet")
    recent = [{"device_id": GPU_DEVICE, "age_s": age, "utilization": 0.75} for age in (60.0, 0.0)]
    page = unquote(shown(fleet_cards(devices, recent)))
    assert "points='240,25.0 300,25.0'" in page
    assert "now 75 %" in page


def test_a_host_without_devices_has_a_card(fleet: Fleet) -> None:
    """A host that has only said hello is shown."""
    row = queries.rows(fleet.source, "fleet")[0] | {"device_id": None, "hostname": "fresh"}
    assert "No device is known yet" in shown(fleet_cards([row], []))


def test_the_table_holds_numbers_in_the_units_of_its_heads(fleet: Fleet) -> None:
    """Cells are numbers, so that they sort and filter; the head names the unit."""
    rows = queries.rows(fleet.source, "runs")
    cells = {row["run_id"]: row for row in grid_rows(rows)}
    run = next(row for row in rows if row["run_id"] == fleet.gpt2_run)
    cell = cells[fleet.gpt2_run]
    assert cell["time_to_first_token_ns"] == pytest.approx(run["time_to_first_token_ns"] / 1e6, rel=1e-3)
    assert cell["peak_memory_bytes"] == pytest.approx(run["peak_memory_bytes"] / 2**30, rel=1e-3)
    sure = grid_rows([run | {"instrumentation_overhead": 1.0123}])[0]
    assert sure["instrumentation_overhead"] == pytest.approx(1.23)
    assert cells[fleet.bert_run]["time_to_first_token_ns"] is None
    assert "OutOfMemoryError" in cells[FAILED_RUN]["error"]


def test_every_column_explains_itself() -> None:
    """Each column has a head, a tooltip, and a filter of its kind."""
    for column, definition in zip(COLUMNS, column_definitions(), strict=True):
        assert definition["headerTooltip"]
        assert ("Number" in definition["filter"]) == (column.kind == "number")


def test_unknown_figures_are_dashes(fleet: Fleet) -> None:
    """What a run did not measure is a dash, never 0."""
    run = queries.rows(fleet.source, "run", fleet.bert_run)[0]
    figures = {figure.key: figure for figure in run_figures(run)}
    assert figures["time_to_first_token_ns"].text == units.UNKNOWN
    assert figures["energy_per_token_j"].text == units.UNKNOWN
    assert figures["tokens_per_s"].text.endswith("token/s")


def test_a_layer_shows_its_row_exactly(fleet: Fleet) -> None:
    """Beside each rounded figure stands the number that SQL gives."""
    row = queries.rows(fleet.source, "layer", fleet.gpt2_run, "decode", "lm_head")[0]
    figures = {figure.key: figure for figure in layer_figures(row)}
    assert figures["self_ns"].exact == units.exact_text(row["self_ns"], "ns")
    assert figures["flops"].exact == units.exact_text(row["matmul_flops"] + row["other_flops"], "FLOP")
    assert figures["bound"].text == (row["bound"] or units.UNKNOWN)
    assert "total_flops" not in figures  # a leaf holds nothing


def test_a_layer_that_did_nothing_is_all_dashes(fleet: Fleet) -> None:
    """A layer that a phase never calls has no zeros."""
    row = queries.rows(fleet.source, "layer", fleet.gpt2_run, "decode", "transformer.h")[0]
    figures = {figure.key: figure.text for figure in layer_figures(row)}
    assert figures["self_ns"] == figures["flops"] == figures["roofline_fraction"] == units.UNKNOWN


def test_a_point_of_the_roofline_has_units(fleet: Fleet) -> None:
    """Each figure of a point but its bound carries a unit."""
    row = queries.rows(fleet.source, "roofline_points", fleet.gpt2_run, "prefill", "role")[0]
    texts = {figure.key: figure.text for figure in point_figures(row)}
    assert all(" " in text for key, text in texts.items() if key != "bound"), texts
