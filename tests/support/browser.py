"""A real browser for the pages that the project makes: Chromium, by Selenium, without a screen."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # imported where it is used: conftest.py asks for this module everywhere
    from selenium import webdriver

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
# Debian's packages; .ci/run installs them.
MISSING = None if CHROMIUM and DRIVER else "needs Debian's chromium and chromium-driver"

# Nothing but the page is to be asked for: a test may count the requests.
QUIET = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"),
    *("--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--hide-scrollbars"),
)


@contextmanager
def open_browser(
    profile: Path, width: int = 1400, height: int = 1000, dark: bool = False
) -> "Iterator[webdriver.Chrome]":
    """Start Chromium with an empty profile in `profile`; it keeps logs of console and requests."""
    from selenium import webdriver
    from selenium.webdriver.chrome.options import Options
    from selenium.webdriver.chrome.service import Service

    options = Options()
    options.binary_location = str(CHROMIUM)
    for argument in (*QUIET, f"--user-data-dir={profile}", f"--window-size={width},{height}"):
        options.add_argument(argument)
    options.add_argument("about:blank")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(str(DRIVER)))
    try:
        resize(driver, width, height)
        if dark:
            prefer(driver, "dark")
        yield driver
    finally:
        driver.quit()


def resize(driver: "webdriver.Chrome", width: int, height: int) -> None:
    """Give the page itself a size in CSS pixels; windows have a least width, pages have none."""
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)


def prefer(driver: "webdriver.Chrome", scheme: str) -> None:
    """Have pages see that the user prefers `light` or `dark`."""
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})


def console_errors(driver: "webdriver.Chrome") -> list[str]:
    """Return what the page has complained of since the last call."""
    return [entry["message"] for entry in driver.get_log("browser") if entry["level"] == "SEVERE"]


def requests(driver: "webdriver.Chrome") -> list[str]:
    """Return the addresses that pages asked for since the last call, their own among them."""
    urls = []
    for entry in driver.get_log("performance"):
        message: dict[str, Any] = json.loads(entry["message"])["message"]
        if message["method"] == "Network.requestWillBeSent":
            urls.append(message["params"]["request"]["url"])
    return [url for url in urls if not url.startswith(("chrome", "data:"))]
