"""The pages in a real browser: what they show is what SQL gives, and a link is a view."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from tests.dashboard.browser import DESKTOP, PHONE, Browser, program
from tests.dashboard.data import FAILED_RUN, GPU_RUN, NO_POWER, SWEEP, Fleet, StoreSource

from roofleet_analysis import units
from roofleet_dashboard.app import create_app, prepare_server
from roofleet_proto.records import RunChange

pytestmark = pytest.mark.browser


@pytest.fixture(scope="session")
def site(fleet: Fleet) -> Iterator[str]:
    """The dashboard of the fleet, served; its address."""
    server = prepare_server(create_app(fleet.source))
    thread = threading.Thread(target=server.run)
    thread.start()
    yield f"http://127.0.0.1:{server.port}"
    server.stop()
    thread.join(10)


@pytest.fixture(scope="session")
def chromium(site: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """One Chromium for the whole session."""
    options = webdriver.ChromeOptions()
    options.binary_location = program("chromium", "chromium-browser", "google-chrome")
    profile: Path = tmp_path_factory.mktemp("chromium")
    for argument in (
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        f"--user-data-dir={profile}",
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(program("chromedriver")))
    yield Browser(driver, site)
    driver.quit()


@pytest.fixture
def browser(chromium: Browser, source: StoreSource) -> Iterator[Browser]:
    """The browser; afterwards its log must hold no error, and nobody else may have been asked anything."""
    chromium.trouble()
    yield chromium
    assert chromium.trouble() == []
    chromium.note_hosts()
    assert chromium.hosts <= {urlsplit(chromium.address).netloc}


def test_the_fleet_shows_hosts_devices_and_readings(browser: Browser) -> None:
    """Each device shows its latest readings with units, and why one is missing."""
    browser.open("/")
    card = browser.find("[data-device='gpu-0']")
    assert browser.driver.title == "Roofleet"
    browser.until(lambda: "75 %" in card.text and "412 W" in card.text and "4 GiB of 80 GiB" in card.text)
    assert browser.find(f"[data-missing='{NO_POWER}']")


def test_the_fleet_keeps_itself_up_to_date(browser: Browser, fleet: Fleet) -> None:
    """A new reading appears without a reload."""
    browser.open("/")
    browser.find("[data-device='gpu-0']")
    newest = "SELECT * FROM readings WHERE device_id = 'gpu-0' ORDER BY read_at DESC LIMIT 1"
    (row,) = fleet.source.rows(newest)
    second = timedelta(seconds=1)
    fleet.write("readings", [row | {"read_at": row["read_at"] + second, "utilization": 0.123}])
    browser.until(lambda: "12.3 %" in browser.text("[data-device='gpu-0']"), "the new reading")
    fleet.write("readings", [row | {"read_at": row["read_at"] + 2 * second}])


def test_the_runs_table_lists_every_run(browser: Browser, fleet: Fleet) -> None:
    """Each run has a line, and the failed one says why."""
    browser.open("/runs")
    browser.find(f".ag-row[row-id='{fleet.gpt2_run}']")
    rows = browser.run(
        "return [...document.querySelectorAll('.ag-row[row-id]')].map(r => r.getAttribute('row-id'))"
    )
    assert {fleet.gpt2_run, fleet.bert_run, GPU_RUN, FAILED_RUN} <= set(rows)


def test_what_is_said_of_a_run_is_shown(browser: Browser, fleet: Fleet) -> None:
    """Its name, tags and note; columns for them are there as soon as a run has one."""
    browser.open("/runs")
    browser.find(f".ag-row[row-id='{GPU_RUN}']")
    assert not browser.run("return document.querySelector('.ag-header-cell[col-id=tags]')")
    fleet.store.change_run(
        RunChange(GPU_RUN, name="before the fan", note="The fan was off.", add_tags=("night",))
    ).result()
    browser.open(f"/runs?run={GPU_RUN}")
    said = browser.text(f"[data-run='{GPU_RUN}']")
    assert "before the fan · " in said
    assert "night" in said
    assert "The fan was off." in said
    assert browser.text(f".ag-row[row-id='{GPU_RUN}'] [col-id='tags']") == "night"
    fleet.store.change_run(RunChange(GPU_RUN, name="", note="", remove_tags=("night",))).result()


def test_a_page_is_found_by_its_name_too(browser: Browser) -> None:
    """The fleet lies at / and at /fleet."""
    browser.open("/fleet")
    browser.find("[data-device='gpu-0']")


def test_choosing_a_run_sums_it_up(browser: Browser, fleet: Fleet) -> None:
    """A click on a line shows the run's figures, as SQL gives them, and puts the run into the URL."""
    browser.open("/runs")
    browser.click(f".ag-row[row-id='{fleet.gpt2_run}'] [col-id='device_name']")
    browser.find(f"[data-run='{fleet.gpt2_run}']")
    (row,) = fleet.source.rows("SELECT * FROM run_summary WHERE run_id = ?", fleet.gpt2_run)
    assert browser.exact("time_per_output_token_ns") == units.exact_text(
        row["time_per_output_token_ns"], "ns"
    )
    # a run on a busy machine may not know its coverage: a dash, with nothing behind it
    assert (browser.exact("layer_time_coverage") or "–") == units.exact_text(row["layer_time_coverage"])
    assert f"run={fleet.gpt2_run}" in browser.driver.current_url


def test_a_failed_run_says_why(browser: Browser) -> None:
    """The summary of a failed run begins with its error."""
    browser.open(f"/runs?run={FAILED_RUN}")
    assert "OutOfMemoryError" in browser.text(f"[data-run='{FAILED_RUN}']")


def test_ticked_runs_are_compared_on_the_roofline(browser: Browser, fleet: Fleet) -> None:
    """Ticks come back from the URL, and lead to a chart with all phases of the runs."""
    browser.open(f"/runs?ticked={fleet.gpt2_run},{GPU_RUN}")
    ticked = "return document.querySelectorAll('.ag-row-selected[row-id]').length"
    browser.until(lambda: browser.run(ticked) >= 2, "the ticks")
    browser.click("#runs-compare .rf-button")
    names = browser.until(lambda: _series(browser) if len(_series(browser)) == 4 else None, "four series")
    assert sum("H100" in name for name in names) == 2


def _traces(browser: Browser) -> list[dict[str, Any]]:
    script = """
        const plot = document.querySelector('#roofline-chart .js-plotly-plot');
        return plot && plot.data ? plot.data.map(t => ({
            name: t.name, legend: t.showlegend, visible: t.visible, data: t.customdata,
            x: [...(t.x._inputArray || t.x)], y: [...(t.y._inputArray || t.y)],
        })) : []
    """
    return browser.run(script) or []


def _series(browser: Browser) -> list[str]:
    return [t["name"] for t in _traces(browser) if t["data"] and t["legend"] is not False]


def test_the_roofline_shows_what_sql_gives(browser: Browser, fleet: Fleet) -> None:
    """Every layer's point stands in the chart with the intensity and rate of its row."""
    browser.open(f"/roofline?runs={fleet.gpt2_run}:decode&level=layer")
    browser.until(lambda: _series(browser), "the points")
    shown = {
        key[3]: (x, y)
        for trace in _traces(browser)
        if trace["data"]
        for key, x, y in zip(trace["data"], trace["x"], trace["y"], strict=True)
        if key[2] == "layer"
    }
    rows = fleet.source.rows(
        "SELECT name, arithmetic_intensity AS x, achieved_flops_per_s AS y FROM roofline_points "
        "WHERE run_id = ? AND phase = 'decode' AND level = 'layer' AND flops > 0",
        fleet.gpt2_run,
    )
    assert shown == {row["name"]: (pytest.approx(row["x"]), pytest.approx(row["y"])) for row in rows}


def test_a_legend_entry_hides_its_points(browser: Browser, fleet: Fleet) -> None:
    """A click on an entry of the legend takes its points off the chart."""
    browser.open(f"/roofline?runs={fleet.gpt2_run}:decode")
    (name,) = browser.until(lambda: _series(browser), "the points")
    entry = browser.until(
        lambda: next(
            e
            for e in browser.driver.find_elements(By.CSS_SELECTOR, "#roofline-chart .legend .traces")
            if e.text == name
        ),
        "the legend",
    )
    toggle = entry.find_element(By.CSS_SELECTOR, ".legendtoggle")
    browser.run("arguments[0].scrollIntoView({block: 'center'})", toggle)
    box = browser.run(
        "const r = arguments[0].getBoundingClientRect(); return [r.x + 12, r.y + r.height / 2]", toggle
    )
    browser.click_at(*box)
    browser.until(
        lambda: {t["visible"] for t in _traces(browser) if t["name"] == name} == {"legendonly"},
        "the points to hide",
    )


def test_changing_the_level_changes_chart_and_url(browser: Browser, fleet: Fleet) -> None:
    """A control changes the view and the URL, and the browser's back button undoes it."""
    browser.open(f"/roofline?runs={fleet.gpt2_run}:prefill")
    browser.until(lambda: _series(browser), "the points")
    few = len(_traces(browser)[-2]["x"])
    labels = browser.driver.find_elements(By.CSS_SELECTOR, "#roofline-level label")
    next(label for label in labels if label.text == "Layer").click()
    browser.until(lambda: "level=layer" in browser.driver.current_url, "the URL")
    browser.until(lambda: len(_traces(browser)[-2]["x"]) > few, "more points")
    browser.driver.back()
    browser.until(lambda: "level=layer" not in browser.driver.current_url, "the URL")
    browser.until(lambda: len(_traces(browser)[-2]["x"]) == few, "fewer points")


def test_a_shared_link_restores_a_point_and_added_hardware(browser: Browser, fleet: Fleet) -> None:
    """The URL alone brings back the layer's details and the datasheet roofs."""
    browser.open(
        f"/roofline?runs={fleet.gpt2_run}:decode&level=layer&hardware=a100-80gb-sxm"
        f"&point={fleet.gpt2_run}:decode:layer:lm_head"
    )
    panel = f"[data-point='{fleet.gpt2_run}:decode:layer:lm_head']"
    (row,) = fleet.source.rows(
        "SELECT self_ns FROM layer_summary WHERE run_id = ? AND phase = 'decode' AND path = 'lm_head'",
        fleet.gpt2_run,
    )
    assert browser.exact("self_ns", panel) == units.exact_text(row["self_ns"], "ns")
    browser.until(lambda: any("A100" in (t["name"] or "") for t in _traces(browser)), "the roofs")


def _layer(fleet: Fleet, path: str, phase: str = "decode") -> dict[str, Any]:
    (row,) = fleet.source.rows(
        "SELECT * FROM layer_summary WHERE run_id = ? AND phase = ? AND path = ?", fleet.gpt2_run, phase, path
    )
    return row


def test_a_click_on_a_box_shows_its_numbers(browser: Browser, fleet: Fleet) -> None:
    """The details of a chosen layer are those of its row, and the URL names it."""
    browser.open(f"/network?run={fleet.gpt2_run}&phase=decode")
    browser.click_node("lm_head")
    browser.find("[data-layer='lm_head']")
    row = _layer(fleet, "lm_head")
    assert browser.exact("self_ns") == units.exact_text(row["self_ns"], "ns")
    assert browser.exact("flops") == units.exact_text(row["matmul_flops"] + row["other_flops"], "FLOP")
    assert browser.exact("peak_memory_bytes") == units.exact_text(row["peak_memory_bytes"], "B")
    assert "node=lm_head" in browser.driver.current_url


def test_a_folded_box_opens_and_folds_again(browser: Browser, fleet: Fleet) -> None:
    """The blocks are one box until it is chosen; the head of the frame folds them again."""
    browser.open(f"/network?run={fleet.gpt2_run}&phase=decode")
    browser.click_node("transformer.h")
    browser.until(lambda: "transformer.h.1" in browser.nodes(), "the blocks")
    assert "open=transformer.h" in browser.driver.current_url
    browser.click_node("transformer.h#head")
    browser.until(lambda: "transformer.h" in browser.nodes(), "the folded box")
    assert "transformer.h.1" not in browser.nodes()
    browser.click_node("transformer.h")  # the same box can be opened again
    browser.until(lambda: "transformer.h.1" in browser.nodes(), "the blocks")


def test_a_block_shows_the_layers_inside_it(browser: Browser, fleet: Fleet) -> None:
    """An opened block has its layers with their own values."""
    browser.open(f"/network?run={fleet.gpt2_run}&phase=decode&open=transformer.h")
    browser.click_node("transformer.h.0")
    nodes = browser.until(lambda: "transformer.h.0.mlp" in browser.nodes() and browser.nodes(), "the layers")
    assert nodes["transformer.h.0.mlp"]["value"] == _layer(fleet, "transformer.h.0.mlp")["p50_ns"]


def test_another_metric_shows_other_values(browser: Browser, fleet: Fleet) -> None:
    """Colours, texts and the legend follow the metric, which is part of the URL."""
    browser.open(f"/network?run={fleet.gpt2_run}&phase=prefill")
    browser.until(lambda: "lm_head" in browser.nodes(), "the network")
    browser.choose("network-metric", "Work")
    browser.until(lambda: "metric=flops" in browser.driver.current_url, "the URL")
    row = _layer(fleet, "lm_head", "prefill")
    flops = row["total_matmul_flops"] + row["total_other_flops"]
    browser.until(lambda: browser.nodes()["lm_head"]["value"] == flops, "the values")
    assert units.flops_text(flops) in browser.nodes()["lm_head"]["label"]
    assert "FLOP" in browser.text("#network-legend")


def test_a_shared_link_restores_the_network(browser: Browser, fleet: Fleet) -> None:
    """The URL alone brings back run, phase, metric, what is open, and the chosen layer."""
    path = "transformer.h.1.attn"
    browser.open(
        f"/network?run={fleet.gpt2_run}&phase=prefill&metric=memory&open=transformer.h.1&node={path}"
    )
    nodes = browser.until(lambda: path in browser.nodes() and browser.nodes(), "the network")
    assert nodes[path]["value"] == _layer(fleet, path, "prefill")["peak_memory_bytes"]
    assert browser.find("#network-metric").get_attribute("value") == "Peak memory"
    assert browser.find("#network-phase").get_attribute("value") == "prefill"
    assert browser.find(f"[data-layer='{path}']")


def test_a_link_to_a_run_that_is_not_there_says_so(browser: Browser) -> None:
    """It does not show the numbers of another run instead, and the link stays as it was."""
    browser.open("/network?run=no-such-run")
    browser.until(lambda: "no-such-run" in browser.text("main"), "the notice")
    time.sleep(1)  # long enough for the page to change its mind
    assert "no-such-run" in browser.text("main")
    assert browser.nodes() == {}
    assert "run=no-such-run" in browser.driver.current_url


@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_nothing_lies_over_the_roofline_chart(browser: Browser, fleet: Fleet, size: tuple[int, int]) -> None:
    """The chart takes as much of the page as it draws, so that the text under it is under it."""
    browser.open(f"/roofline?runs={fleet.gpt2_run}:decode&level=role", size)
    browser.find("#roofline-chart .main-svg")
    browser.until(
        lambda: browser.run(
            "return document.querySelector('#roofline-chart').getBoundingClientRect().height >="
            " document.querySelector('#roofline-chart .main-svg').getBoundingClientRect().height - 1"
        ),
        "the chart's height",
    )


def test_a_layer_of_the_roofline_leads_to_its_box(browser: Browser, fleet: Fleet) -> None:
    """From a point's details one comes to the same layer in the network, opened as far as needed."""
    path = "transformer.h.1.mlp.c_fc"
    browser.open(
        f"/roofline?runs={fleet.gpt2_run}:decode&level=layer&point={fleet.gpt2_run}:decode:layer:{path}"
    )
    browser.click("#roofline-details a")
    browser.until(lambda: path in browser.nodes(), "the box")
    assert browser.find(f"[data-layer='{path}']")


def test_a_collector_that_is_away_is_waited_for(browser: Browser, source: StoreSource) -> None:
    """While the collector is away each page says so; when it is back the page draws itself."""
    source.is_away = True
    for path in ("/", "/runs", "/roofline", "/sweeps", "/network"):
        browser.open(path)
        assert "does not answer; retrying" in browser.text(".rf-away")
        assert "refuses the connection" in browser.text(".rf-away")
    source.is_away = False
    browser.until(lambda: browser.nodes(), "the network")
    browser.until(lambda: not browser.driver.find_elements(By.CSS_SELECTOR, ".rf-away"), "the notice to go")


def _fits(browser: Browser, width: int) -> bool:
    """Whether the page is no wider than the screen, as it is once its charts know their place."""
    return bool(browser.run("return document.documentElement.scrollWidth") <= width)


@pytest.mark.parametrize("size", [PHONE, (820, 1180)], ids=["phone", "tablet"])
def test_nothing_scrolls_sideways(browser: Browser, fleet: Fleet, size: tuple[int, int]) -> None:
    """On a phone and a tablet every page is as wide as the screen, its details included."""
    for path, there in (
        ("/", "[data-device]"),
        (f"/runs?run={fleet.gpt2_run}", "[data-run]"),
        (f"/roofline?runs={fleet.gpt2_run}:decode&point={fleet.gpt2_run}:decode:role:mlp", "[data-point]"),
        (f"/network?run={fleet.gpt2_run}&node=lm_head", "[data-layer]"),
        ("/sweeps", "#sweeps-table table"),
    ):
        browser.open(path, size)
        browser.find(there)
        browser.until(partial(_fits, browser, size[0]), f"{path} to be as wide as the screen")


def test_the_menu_of_a_phone_leads_to_the_pages(browser: Browser) -> None:
    """On a phone the pages are behind the burger, which closes when one is chosen."""
    browser.open("/", PHONE)
    browser.click("#shell-burger")
    link = browser.until(
        lambda: next(
            e
            for e in browser.driver.find_elements(By.CSS_SELECTOR, ".mantine-AppShell-navbar a[href='/runs']")
            if e.is_displayed()
        ),
        "the menu",
    )
    time.sleep(0.4)  # it slides in
    link.click()
    browser.until(lambda: browser.driver.current_url.endswith("/runs"), "the page")
    assert browser.text("h1") == "Runs"


def test_an_unknown_address_leads_back(browser: Browser) -> None:
    """An address without a page says so and links to the first page."""
    browser.open("/nowhere")
    assert browser.text("h1") == "There is no such page"


def test_dark_and_light_reach_the_chart(browser: Browser, fleet: Fleet) -> None:
    """The toggle changes the page and the letters of the chart with it."""
    browser.open(f"/roofline?runs={fleet.gpt2_run}:decode")
    letters = "return document.querySelector('#roofline-chart .js-plotly-plot').layout.font.color"
    before = browser.until(lambda: browser.run(letters), "the chart")
    browser.click("#shell-toggle")
    browser.until(lambda: browser.run(letters) != before, "the other letters")
    browser.click("#shell-toggle")
    browser.until(lambda: browser.run(letters) == before, "the first letters")


def test_a_filter_is_part_of_the_link(browser: Browser, fleet: Fleet) -> None:
    """A filter of the table comes back from the URL: only the runs that pass it are listed."""
    wanted = {"model_name": {"filterType": "text", "type": "equals", "filter": "tiny-bert"}}
    browser.open(f"/runs?filter={quote(json.dumps(wanted))}")
    listed = "return [...document.querySelectorAll('.ag-row[row-id]')].map(r => r.getAttribute('row-id'))"
    browser.until(lambda: set(browser.run(listed)) == {fleet.bert_run}, "the filtered table")


def _sweep(browser: Browser) -> dict[str, list[float]]:
    """The lines of the chart of a sweep by name, their values from the bottom up."""
    script = """
        const plot = document.querySelector('#sweeps-chart .js-plotly-plot');
        return plot && plot.data ? plot.data.map(t => [t.name, [...(t.y._inputArray || t.y)]]) : []
    """
    return dict(browser.run(script) or [])


def test_a_sweep_is_drawn_and_told(browser: Browser, fleet: Fleet) -> None:
    """A line for each dtype with the times of the runs, a row of the table for each point, and of the point
    that failed the reason."""
    browser.open("/sweeps")
    lines = browser.until(lambda: _sweep(browser), "the chart")
    given = fleet.source.rows(
        "SELECT dtype, time_to_first_token_ns AS y FROM run_summary WHERE sweep_id = ? AND status = 'done' "
        "ORDER BY batch_size",
        SWEEP,
    )
    for dtype in ("fp32", "bf16"):
        assert lines[dtype] == [row["y"] for row in given if row["dtype"] == dtype]
    assert len(browser.driver.find_elements(By.CSS_SELECTOR, "#sweeps-table tbody tr")) == 5
    assert "bf16, batch 16: failed, the device ran out of memory" in browser.text("#sweeps-table")


def test_what_is_chosen_of_a_sweep_is_part_of_the_link(browser: Browser) -> None:
    """Another figure along another axis: the chart follows, and the URL shows the same again."""
    browser.open("/sweeps")
    browser.until(lambda: set(_sweep(browser)) == {"fp32", "bf16"}, "the chart")
    browser.choose("sweeps-figure", "Peak memory")
    browser.choose("sweeps-across", "Dtype")
    batches = {"batch 1", "batch 4", "batch 16"}
    browser.until(lambda: set(_sweep(browser)) == batches, "the bars")
    address = browser.driver.current_url
    assert "figure=peak_bytes" in address
    assert "across=dtype" in address
    browser.open("/" + address.partition(browser.address + "/")[2])
    browser.until(lambda: set(_sweep(browser)) == batches, "the same bars")


def test_a_point_of_a_sweep_leads_to_its_run(browser: Browser) -> None:
    """Each line of the table links to the summary of its run."""
    browser.open("/sweeps")
    browser.click("#sweeps-table tbody tr:nth-child(2) a")
    assert browser.find(f"[data-run='{SWEEP}-fp32-4']")


def test_a_user_logs_in_and_out(browser: Browser, fleet: Fleet) -> None:
    """The login leads to the page that was asked for, and leaving leads back to it."""

    class Entry:
        def is_asked(self) -> bool:
            return True

        def enter(self, token: str) -> StoreSource:
            return fleet.source

    server = prepare_server(create_app(fleet.source, entry=Entry()))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        asked = Browser(browser.driver, f"http://127.0.0.1:{server.port}")
        asked.open("/sweeps")
        asked.find("#token").send_keys("a token")
        asked.click("button[type=submit]")
        asked.until(lambda: urlsplit(asked.driver.current_url).path == "/sweeps")
        asked.find("#shell-page h1")
        asked.click(".rf-leave")
        asked.find("#token")
        asked.note_hosts()
    finally:
        server.stop()
        thread.join(10)
    assert len(asked.hosts) == 1
