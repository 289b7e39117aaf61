"""A page in headless Chromium, without a network: what it shows, requests and says."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import Any

from selenium import webdriver
from selenium.webdriver.chrome.service import Service

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
OPTIONS = (
    "--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--disable-background-networking",
    "--disable-component-update", "--no-first-run", "--host-resolver-rules=MAP * ~NOTFOUND",
)  # fmt: skip
PATIENCE = 120
"""seconds that a page may take on a machine with much else to do"""


class Chromium:
    """One browser; `open` shows a page and waits until its charts are drawn."""

    def __init__(self) -> None:
        options = webdriver.ChromeOptions()
        assert BROWSER is not None
        options.binary_location = BROWSER
        for option in OPTIONS:
            options.add_argument(option)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        self.driver = webdriver.Chrome(service=Service(DRIVER), options=options)

    def open(self, page: Path, width: int = 1400, dark: bool = False, media: str = "") -> None:
        """Show a page at a width in pixels, light or dark, on a screen or as printed."""
        self.messages(), self.requests()
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": media, "features": [scheme]})
        self.driver.get(page.as_uri())
        charts = self.run("return document.querySelectorAll('figure').length")
        self.wait(f"return document.querySelectorAll('figure[data-drawn=yes]').length === {charts}")

    def run(self, script: str, *arguments: Any) -> Any:
        """What a script returns."""
        return self.driver.execute_script(script, *arguments)

    def wait(self, script: str) -> None:
        """Until a script returns something true."""
        end = time.monotonic() + PATIENCE
        while not self.run(script):
            assert time.monotonic() < end, (script, self.messages())
            time.sleep(0.05)

    def messages(self) -> list[str]:
        """What the console has shown since it was last asked, warnings too."""
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def requests(self) -> list[str]:
        """The addresses that were asked for since then."""
        events = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        return [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]

    def close(self) -> None:
        self.driver.quit()
