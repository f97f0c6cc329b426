"""A real browser without a window, for what only a browser can tell."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

#: What the browser and its driver are called, on one system or another.
_BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
_DRIVER = "chromedriver"


@contextmanager
def page(path: Path) -> Iterator[Any]:
    """The file, opened with no network; the test is skipped where there is no browser."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    browser = next(filter(None, map(shutil.which, _BROWSERS)), None)
    driver = shutil.which(_DRIVER)
    if browser is None or driver is None:
        pytest.skip("no chromium with its chromedriver on the path")
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for argument in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--window-size=1280,1600",
        "--host-resolver-rules=MAP * ~NOTFOUND",
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    chrome = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    try:
        chrome.get(path.as_uri())
        yield chrome
    finally:
        chrome.quit()


def requests(chrome: Any) -> list[str]:
    """The addresses that the page has asked for."""
    import json

    messages = [json.loads(entry["message"])["message"] for entry in chrome.get_log("performance")]
    return [
        message["params"]["request"]["url"]
        for message in messages
        if message["method"] == "Network.requestWillBeSent"
    ]


def complaints(chrome: Any) -> list[str]:
    """What the page's scripts complained about."""
    return [entry["message"] for entry in chrome.get_log("browser") if entry["level"] == "SEVERE"]
