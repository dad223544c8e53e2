"""Headless Chromium on a page, as a person uses it. Every wait is for something that the page shows."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

__all__ = ["Browser", "browser"]

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
DRIVER = shutil.which("chromedriver")
SECONDS = 100
_OPTIONS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
)


class Browser:
    """A browser with one window."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver

    def find(self, selector: str) -> Any:
        """The element, once it is there and shown."""
        return self.wait(lambda: next((one for one in self.all(selector) if one.is_displayed()), None), selector)

    def all(self, selector: str) -> list[Any]:
        found: list[Any] = self.driver.find_elements("css selector", selector)
        return found

    def wait(self, condition: Callable[[], Any], what: str) -> Any:
        """What the condition gives, once it holds."""
        from selenium.common.exceptions import NoSuchElementException, StaleElementReferenceException, TimeoutException
        from selenium.webdriver.support.ui import WebDriverWait

        passing = (NoSuchElementException, StaleElementReferenceException)
        waiting = WebDriverWait(self.driver, SECONDS, poll_frequency=0.05, ignored_exceptions=passing)
        try:
            return waiting.until(lambda _: condition())
        except TimeoutException:
            raise AssertionError(f"{what} does not come; the page shows:\n{self.text('body')}") from None

    def text(self, selector: str) -> str:
        found = self.all(selector)
        return str(found[0].text) if found else ""

    def says(self, selector: str, text: str) -> None:
        """Wait until something is shown there."""
        self.wait(lambda: text in self.text(selector), f"{text!r} in {selector}")

    def press(self, selector: str) -> None:
        self.find(selector).click()

    def type(self, selector: str, text: str) -> None:
        field = self.find(selector)
        field.clear()
        field.send_keys(text)

    def state(self, node: str, state: str) -> None:
        """Wait until a node of the picture has a state."""
        self.find(f'#picture [data-node="{node}"][data-state="{state}"]')

    def run(self, script: str) -> Any:
        return self.driver.execute_script(script)

    def screenshot(self, path: Path) -> None:
        self.driver.save_screenshot(str(path))

    @property
    def requests(self) -> list[str]:
        """The addresses of all requests since this was asked last."""
        told = (json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance"))
        sent = ("Network.requestWillBeSent", "Network.webSocketCreated")
        return [_url(one["params"]) for one in told if one["method"] in sent]

    def open(self, url: str) -> None:
        """Opens a page. What the console has said so far is of another one, whose server may have gone."""
        self.driver.get("about:blank")
        self.driver.get_log("browser")
        self.driver.get(url)

    @property
    def errors(self) -> list[str]:
        """What the console says of errors, such as a script that the page's policy has refused."""
        return [entry["message"] for entry in self.driver.get_log("browser") if entry["level"] == "SEVERE"]


def _url(params: dict[str, Any]) -> str:
    return str(params["request"]["url"] if "request" in params else params["url"])


@contextmanager
def browser(folder: Path, *options: str, size: str = "1400,1000") -> Iterator[Browser]:
    """A browser with a profile of its own. The test is skipped where there is none."""
    pytest.importorskip("selenium", reason="there is no selenium: pip install selenium")
    if CHROMIUM is None or DRIVER is None:
        pytest.skip("there is no chromium with its driver: apt-get install chromium chromium-driver")
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    given = webdriver.ChromeOptions()
    given.binary_location = CHROMIUM
    for option in (*_OPTIONS, f"--window-size={size}", f"--user-data-dir={folder}", *options):
        given.add_argument(option)
    given.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=given, service=Service(DRIVER))
    try:
        yield Browser(driver)
    finally:
        driver.quit()
