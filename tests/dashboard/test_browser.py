"""The dashboard in a real browser: chromium, driven by chromedriver. Skipped where they are not installed."""

from __future__ import annotations

import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import psycopg
import pytest

from refold.dashboard.wording import event_path
from refold.engine.deployment.deploy import rebuild
from refold.postgres.connect import connect
from scripts.vendored import fetch
from tests.support.dashboard import ACTIONS, HOSTILE, Running, happened
from tests.support.live import SHOP
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

pytestmark = [pytest.mark.live("shop"), pytest.mark.slow]

KEY = '{"day": "2026-03-02", "action": "view"}'
PATHS = (
    "/",
    "/metrics/daily",
    "/incidents?span=24h",
    "/dead-letters",
    "/rejected",
    "/sinks",
    "/canaries",
    "/latency",
    "/pressure",
    "/lineage",
    "/lineage?detail=columns&around=daily&depth=all",
    "/toil",
    f"/metrics/daily/row?{urlencode({'key': KEY})}",
    "/events",
    event_path(HOSTILE),
    event_path("poison0"),
    "/sign-in",
    "/nothing",
)
AXE = {
    "name": "axe-core",
    "version": "4.14.1",
    "integrity": "sha512-FHfa+lmNjQZfJz1q8wKqIDwC6DExcHt/pkjNQb09a3NPjCKg2rhu5qb2S4r76ASyFNNtuFooJpZe37OgudVGtQ==",
}
WATCH = """
window.violations = []
document.addEventListener('securitypolicyviolation', event => window.violations.push(event.violatedDirective))
window.addEventListener('error', event => window.violations.push(event.message))
"""


@pytest.fixture(scope="session")
def chrome() -> Iterator[Chrome]:
    """A browser for all tests of the session."""
    pytest.importorskip("selenium", reason="needs selenium")
    binary = shutil.which("chromium") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    if binary is None or driver is None:
        pytest.skip("needs chromium and chromedriver")
    from selenium.webdriver import Chrome, ChromeOptions
    from selenium.webdriver.chrome.service import Service

    options = ChromeOptions()
    options.binary_location = binary
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        for flag in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
            options.add_argument(flag)
        options.add_argument(f"--user-data-dir={profile}")
        options.add_argument("--window-size=1440,900")
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        browser = Chrome(options, Service(driver, log_output=subprocess.DEVNULL))
        try:
            browser.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": WATCH})
            yield browser
        finally:
            browser.quit()


@pytest.fixture(scope="session")
def axe(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The text of axe-core, from npm."""
    if shutil.which("npm") is None:
        pytest.skip("needs npm")
    archive = fetch(AXE, tmp_path_factory.mktemp("axe"))
    with tarfile.open(archive) as opened:
        member = opened.extractfile("package/axe.min.js")
        assert member is not None
        return member.read().decode()


@pytest.fixture
def at(chrome: Chrome, database_url: str) -> Iterator[Running]:
    """A dashboard at which the browser is signed in."""
    happened(database_url)
    with Running(database_url) as running:
        chrome.delete_all_cookies()
        sign_in(chrome, running)
        yield running
        chrome.get("about:blank")


def sign_in(chrome: Chrome, running: Running) -> None:
    chrome.get(f"{running.address}/sign-in")
    chrome.find_element("id", "token").send_keys(ACTIONS)
    chrome.find_element("css selector", ".fields .btn").click()
    wait_until(lambda: "Sign out" in chrome.page_source)


def theme(chrome: Chrome, name: str) -> None:
    chrome.execute_script("localStorage.setItem('refold-theme', arguments[0])", name)


def complaints(chrome: Chrome) -> list[str]:
    """What a page has complained about: the policy's violations, errors of scripts."""
    found = chrome.execute_script("return window.violations")
    logged = [one["message"] for one in chrome.get_log("browser") if one["level"] == "SEVERE"]  # type: ignore[no-untyped-call]
    return [*found, *(one for one in logged if "status of 404" not in one)]


def test_pages_fit_obey_their_policy_and_run_nothing_of_events(chrome: Chrome, at: Running) -> None:
    for width in (1440, 360):
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        chrome.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        for path in PATHS:
            chrome.get(at.address + path)
            seen = chrome.execute_script(
                "return [document.documentElement.scrollWidth, document.documentElement.clientWidth, document.title]"
            )
            assert seen[0] <= seen[1], (path, width)
            assert "owned" not in seen[2]
            assert complaints(chrome) == [], path
    chrome.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    chrome.get(at.address + "/metrics/daily")
    wait_until(lambda: chrome.find_elements("css selector", ".chart canvas"))
    assert complaints(chrome) == []


@pytest.mark.node
@pytest.mark.parametrize("name", ["light", "dark"])
def test_axe_finds_nothing(chrome: Chrome, at: Running, axe: str, name: str) -> None:
    theme(chrome, name)
    for path in PATHS:
        chrome.get(at.address + path)
        chrome.execute_cdp_cmd("Runtime.evaluate", {"expression": axe})
        found = chrome.execute_async_script("axe.run().then(found => arguments[0](found.violations))")
        assert [(one["id"], [node["html"][:200] for node in one["nodes"]]) for one in found] == [], path


def test_refreshes_keep_what_is_typed_and_stop_when_hidden(chrome: Chrome, at: Running) -> None:
    chrome.get(at.address + "/")
    chrome.find_element("tag name", "body").send_keys("/")
    field = chrome.switch_to.active_element
    assert field.get_attribute("id") == "find"
    field.send_keys("dai")
    chrome.execute_script(
        "window.swaps = 0; document.body.addEventListener('htmx:after:swap', () => window.swaps++);"
        "document.querySelector('.hero h1').textContent = 'old'"
    )
    wait_until(lambda: chrome.execute_script("return window.swaps") >= 2)
    assert chrome.find_element("css selector", ".hero h1").text != "old"
    assert chrome.switch_to.active_element.get_attribute("id") == "find"
    assert chrome.find_element("id", "find").get_property("value") == "dai"
    assert complaints(chrome) == []
    chrome.execute_script(
        "Object.defineProperty(document, 'hidden', {value: true}); window.ticks = 0;"
        "document.body.addEventListener('refold:tick', () => window.ticks++); window.began = Date.now()"
    )
    wait_until(lambda: chrome.execute_script("return Date.now() - window.began") > 4500)
    assert chrome.execute_script("return window.ticks") == 0


def test_navigation_fits_and_its_menu_opens(chrome: Chrome, at: Running) -> None:
    for width in (1440, 1100, 360):
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        chrome.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        chrome.get(at.address + "/toil")
        inner, outer = chrome.execute_script(
            "const all = document.querySelector('.places'); return [all.scrollWidth, all.clientWidth]"
        )
        assert inner <= outer or width == 360, width
        chrome.find_element("css selector", ".more summary").click()
        entry = chrome.find_element("css selector", ".more a[href='/pressure']")
        right = chrome.execute_script("return arguments[0].getBoundingClientRect().right", entry)
        assert entry.is_displayed() and right <= width
        entry.click()
        wait_until(lambda: chrome.current_url.endswith("/pressure"))
    chrome.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_the_graph_lights_a_path_and_keeps_the_focus(chrome: Chrome, at: Running) -> None:
    from selenium.webdriver.common.keys import Keys

    chrome.get(at.address + "/lineage?detail=columns")
    wait_until(lambda: chrome.find_elements("css selector", ".graph svg .node"))
    head = chrome.find_element("css selector", '.graph a.head[aria-label^="members daily "]')
    assert "0 s behind" in str(head.get_attribute("aria-label"))
    chrome.execute_script("arguments[0].focus()", head)
    dim = chrome.execute_script(
        "return [...document.querySelectorAll('.graph .node.dim .name')].map(one => one.textContent)"
    )
    assert "totals" in dim and "events" not in dim and "daily" not in dim
    chrome.execute_script("window.swaps = 0; document.body.addEventListener('htmx:after:swap', () => window.swaps++)")
    wait_until(lambda: chrome.execute_script("return window.swaps") >= 2)
    assert chrome.execute_script("return document.activeElement === arguments[0]", head)
    column = chrome.find_element("css selector", '.graph a.column[aria-label="daily, column users"]')
    chrome.execute_script("arguments[0].focus()", column)
    assert len(chrome.find_elements("css selector", ".graph .edge.on:not(.indirect)")) == 1
    assert chrome.find_elements("css selector", ".graph .edge.indirect")
    chrome.switch_to.active_element.send_keys(Keys.ENTER)
    wait_until(lambda: "column=" in chrome.current_url)
    wait_until(lambda: chrome.find_elements("css selector", ".graph .column.on"))
    chrome.execute_script("document.querySelector('.graph a.head[aria-label^=\"members daily \"]').focus()")
    chrome.switch_to.active_element.send_keys(Keys.ENTER)
    wait_until(lambda: "around=daily" in chrome.current_url)
    assert complaints(chrome) == []


def test_charts_end_within_their_cards(chrome: Chrome, at: Running) -> None:
    for width in (1440, 360):
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        chrome.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        chrome.get(at.address + "/metrics/daily")
        wait_until(lambda: chrome.execute_script("return document.querySelector('.uplot canvas') !== null"))
        ends = chrome.execute_script(
            "return [...document.querySelectorAll('.uplot')].map(plot => ["
            "plot.getBoundingClientRect().right, plot.closest('.card').getBoundingClientRect().right])"
        )
        assert ends and all(plot < card for plot, card in ends), (width, ends)


def test_an_explanation_is_not_asked_for_again(chrome: Chrome, at: Running) -> None:
    chrome.get(f"{at.address}/metrics/daily/row?{urlencode({'key': KEY})}")
    chrome.execute_script(
        "window.ticks = 0; window.began = Date.now();"
        "document.body.addEventListener('refold:tick', () => window.ticks++)"
    )
    wait_until(lambda: chrome.execute_script("return Date.now() - window.began") > 4500)
    assert chrome.execute_script("return window.ticks") == 0


def test_by_keyboard_alone(chrome: Chrome, at: Running) -> None:
    from selenium.webdriver.common.keys import Keys

    chrome.get(at.address + "/")
    body = chrome.find_element("tag name", "body")
    body.send_keys(Keys.TAB)
    assert chrome.switch_to.active_element.get_attribute("class") == "skip"
    chrome.find_element("tag name", "body").send_keys("g", "d")
    wait_until(lambda: chrome.current_url.endswith("/dead-letters"))
    for _ in range(60):
        chrome.switch_to.active_element.send_keys(Keys.TAB)
        if "Retry all 3" in chrome.switch_to.active_element.text:
            break
    chrome.switch_to.active_element.send_keys(Keys.ENTER)
    wait_until(lambda: "failed again" in chrome.page_source)
    chrome.find_element("tag name", "body").send_keys("/")
    chrome.switch_to.active_element.send_keys("daily", Keys.ENTER)
    wait_until(lambda: chrome.current_url.endswith("/metrics/daily"))


def test_without_scripts(chrome: Chrome, at: Running, admin: psycopg.Connection[Any]) -> None:
    chrome.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        for path in PATHS:
            chrome.get(at.address + path)
            assert chrome.find_element("tag name", "h1").text
        chrome.get(at.address + "/metrics/daily")
        assert chrome.find_elements("css selector", ".chart svg.lines path")
        chrome.get(at.address + "/dead-letters")
        chrome.find_element("css selector", "main summary").click()
        chrome.find_element("css selector", "details[open] input[name=reason]").send_keys("a test")
        chrome.find_element("css selector", "details[open] .btn.bad").click()
        wait_until(lambda: "dropped" in chrome.page_source)
    finally:
        chrome.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
    assert admin.execute("SELECT count(*) FROM refold.actions WHERE outcome LIKE '%dropped'").fetchone() == (1,)
    assert HOSTILE not in chrome.title


CONTRAST = """
const light = color => {
  const parts = color.match(/[\\d.]+/g).slice(0, 3).map(part => part / 255)
  const [r, g, b] = parts.map(part => part <= 0.03928 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4)
  return 0.2126 * r + 0.7152 * g + 0.0722 * b
}
return [...document.querySelectorAll('.timeline a')].filter(bar => bar.querySelector('.tick')).map(bar => {
  // What is painted last, and what lies beside it.
  const [under, over] = [...bar.children].slice(-2).map(one => getComputedStyle(one))
  const [one, other] = [light(over.stroke), light(under.stroke === 'none' ? under.fill : under.stroke)]
  return (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05)
})
"""


@pytest.mark.parametrize("name", ["light", "dark"])
def test_where_an_incident_was_found_is_seen(
    chrome: Chrome, at: Running, admin: psycopg.Connection[Any], name: str
) -> None:
    admin.execute(
        "UPDATE refold.incidents SET started_at = started_at - interval '6 hours',"
        " detected_at = detected_at - interval '3 hours'"
    )
    theme(chrome, name)
    chrome.get(at.address + "/incidents?span=24h")
    found = chrome.execute_script(CONTRAST)
    assert found and min(found) > 7


def test_the_builds_of_a_metric_fit(chrome: Chrome, at: Running, admin: psycopg.Connection[Any]) -> None:
    """With the longest words and times that they usually have."""
    with connect(at.url, "refold_worker", autocommit=True) as conn:
        rebuild(conn, SHOP, ["grade_paths"], lambda progress: None)
    admin.execute(
        "UPDATE refold.builds SET created_at = '2025-11-28 10:26+00', promoted_at = '2026-11-28 10:26+00',"
        " retired_at = CASE WHEN retired_at IS NOT NULL THEN '2026-11-28 10:26+00'::timestamptz END"
    )
    size = {"width": 1280, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    chrome.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    chrome.get(at.address + "/metrics/grade_paths")
    wide, seen, text = chrome.execute_script(
        "const box = document.querySelector('[aria-label=\"Builds, a table\"]');"
        "return [box.scrollWidth, box.clientWidth, box.innerText]"
    )
    chrome.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    assert "kept for rollback" in text and wide <= seen
