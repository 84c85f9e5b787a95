"""A headless Chromium for the dashboard's tests: opens, waits, clicks, and tells what is drawn."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import pytest
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement

PHONE, DESKTOP = (390, 844), (1440, 900)
GRAPH = "document.getElementById('network-graph')._cyreg.cy"


class Browser:
    """One headless Chromium on one dashboard."""

    def __init__(self, driver: Any, address: str) -> None:
        self.driver = driver
        self.address = address
        self.hosts: set[str] = set()

    def open(self, path: str, size: tuple[int, int] = DESKTOP) -> None:
        """Opens a page afresh, as from a link, in a window of that size."""
        metrics = {"width": size[0], "height": size[1], "deviceScaleFactor": 1, "mobile": size == PHONE}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        self.driver.get("about:blank")
        self.driver.get(self.address + path)

    def run(self, script: str, *arguments: Any) -> Any:
        """The value of a script in the page."""
        return self.driver.execute_script(script, *arguments)

    def find(self, css: str) -> WebElement:
        """The first element, as soon as it is there."""
        return self.until(lambda: next(iter(self.driver.find_elements(By.CSS_SELECTOR, css)), None), css)

    def text(self, css: str) -> str:
        """What an element says, as soon as it says something."""
        return self.until(lambda: self.driver.find_element(By.CSS_SELECTOR, css).text, css)

    def until(self, condition: Callable[[], Any], what: str = "the condition", seconds: float = 90) -> Any:
        """Waits for a truthy value."""
        give_up = time.monotonic() + seconds
        while True:
            try:
                if value := condition():
                    return value
            except Exception as error:
                if time.monotonic() > give_up:
                    raise AssertionError(f"waited in vain for {what}") from error
            assert time.monotonic() < give_up, f"waited in vain for {what} at {self.driver.current_url}"
            time.sleep(0.05)

    def click(self, css: str) -> None:
        """Clicks an element, again if the page has just drawn it anew."""

        def once() -> bool:
            try:
                element = self.find(css)
                self.run("arguments[0].scrollIntoView({block: 'center'})", element)
                element.click()
            except StaleElementReferenceException:
                return False
            return True

        self.until(once, css)

    def click_at(self, x: float, y: float) -> None:
        """A click of the mouse at a place of the window."""
        at = {"x": x, "y": y, "button": "left", "clickCount": 1}
        for kind in ("mouseMoved", "mousePressed", "mouseReleased"):
            self.driver.execute_cdp_cmd("Input.dispatchMouseEvent", {"type": kind, **at})

    def nodes(self) -> dict[str, dict[str, Any]]:
        """The boxes of the network that are drawn, by id."""
        found = self.run(
            "const h = document.getElementById('network-graph');"
            "return h && h._cyreg ? h._cyreg.cy.nodes().map(n => n.data()) : []"
        )
        return {data["id"]: data for data in found}

    def click_node(self, name: str) -> None:
        """Clicks a box of the network where it is drawn."""
        self.until(lambda: name in self.nodes(), f"the box {name}")
        time.sleep(0.6)  # the view settles after the boxes have changed
        self.run("document.getElementById('network-graph').scrollIntoView({block: 'center'})")
        place = self.run(
            f"const cy = {GRAPH}; const n = cy.getElementById(arguments[0]); cy.center(n);"
            "const p = n.renderedPosition(), r = cy.container().getBoundingClientRect();"
            "return [r.left + p.x, r.top + p.y]",
            name,
        )
        self.click_at(*place)

    def choose(self, select: str, label: str) -> None:
        """Picks an option of a select by its label."""
        self.click(f"#{select}")
        option = self.until(
            lambda: next(
                e
                for e in self.driver.find_elements(By.CSS_SELECTOR, "[role=option]")
                if e.is_displayed() and e.text == label
            ),
            label,
        )
        option.click()

    def exact(self, figure: str, inside: str = "") -> str:
        """The exact value behind a figure of a table."""
        return self.find(f"{inside} [data-figure='{figure}']").get_attribute("data-exact") or ""

    def trouble(self) -> list[str]:
        """Errors in the browser's log since the last call."""
        return [entry["message"] for entry in self.driver.get_log("browser") if entry["level"] == "SEVERE"]

    def note_hosts(self) -> None:
        """Keeps in mind which hosts were asked since the last call."""
        for entry in self.driver.get_log("performance"):
            message = json.loads(entry["message"])["message"]
            if message["method"] == "Network.requestWillBeSent":
                address = urlsplit(message["params"]["request"]["url"])
                if address.scheme in ("http", "https", "ws", "wss"):
                    self.hosts.add(address.netloc)


def program(*names: str) -> str:
    found = next((path for name in names if (path := shutil.which(name))), None)
    if found is None:
        message = f"no {' or '.join(names)} on this machine"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    return found
