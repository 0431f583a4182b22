"""A page in headless Chromium: what ran, what was asked for, what overflows."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

WIDTH = 375
"""Width of a small telephone, in pixels."""

TRAP = """
window.__ran = [];
for (const name of ["alert", "confirm", "prompt", "open"])
  window[name] = (...a) => { window.__ran.push(name + "(" + a.join() + ")"); };
addEventListener("error", e => window.__ran.push("error: " + e.message));
addEventListener("unhandledrejection", e => window.__ran.push("rejected: " + e.reason));
"""
TOUCH = """
for (const e of document.querySelectorAll("*")) {
  for (const kind of ["focus", "error", "toggle"]) e.dispatchEvent(new Event(kind));
  const at = {bubbles: true, cancelable: true, clientX: 9, clientY: 9};
  e.dispatchEvent(new MouseEvent("mouseover", at));
  if (!e.closest("a[href^='http'], button, summary, input, select"))
    e.dispatchEvent(new MouseEvent("click", at));
  if (e.tagName === "DETAILS") e.open = true;
}
"""


def available() -> bool:
    """Whether Chromium, its driver and selenium are installed."""
    try:
        import selenium  # noqa: F401
    except ImportError:
        return False
    return None not in map(shutil.which, ("chromium", "chromedriver"))


@contextmanager
def chromium(width: int = WIDTH) -> Iterator:
    """A browser whose pages carry the trap."""
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu"):
        options.add_argument(argument)
    logs = {"browser": "ALL", "performance": "ALL"}
    options.set_capability("goog:loggingPrefs", logs)
    driver = webdriver.Chrome(options, webdriver.ChromeService(shutil.which("chromedriver")))
    try:
        driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": TRAP})
        size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": False}
        driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        yield driver
    finally:
        driver.quit()


def complaints(driver, address: str) -> list[str]:
    """What is wrong with a page after it was shown and every element was touched."""
    driver.get_log("browser"), driver.get_log("performance")
    driver.get(address)
    driver.execute_script(TOUCH)
    wide = driver.execute_script("return document.documentElement.scrollWidth")
    found = [f"ran {words}" for words in driver.execute_script("return window.__ran")]
    found += [f"console: {entry['message'][:200]}" for entry in driver.get_log("browser")]
    found += [f"asked for {asked}" for asked in _requests(driver, address)]
    return found + ([f"{wide} pixels wide, more than {WIDTH}"] if wide > WIDTH else [])


def _requests(driver, address: str) -> list[str]:
    """Addresses that the page asked for, besides itself and what it holds."""
    messages = (json.loads(e["message"])["message"] for e in driver.get_log("performance"))
    asked = (
        m["params"]["request"]["url"]
        for m in messages
        if m["method"] == "Network.requestWillBeSent"
    )
    own = (address.partition("#")[0], "data:", "blob:", "about:")
    return [a[:200] for a in asked if not a.startswith(own)]


def page(path: Path) -> str:
    """The address of a file."""
    return path.resolve().as_uri()
