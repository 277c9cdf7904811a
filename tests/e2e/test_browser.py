"""The Prefect UI in a real browser: the graph, the artifact, and the approval form filled in and submitted."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from selenium.common.exceptions import TimeoutException, WebDriverException
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

from headway.rollout.load_generator import Load
from tests.e2e.conftest import ME, Headway, Repo
from tests.standins.browser import chromium

pytestmark = pytest.mark.e2e

# The native list lies under a drawn one, out of the reach of a click.
CHOOSE = "arguments[0].value = arguments[1]; arguments[0].dispatchEvent(new Event('change', {bubbles: true}))"
DIALOG = "[role=dialog], .p-modal"
APPROVED = """
app: {app}
checks: {{lint: "true", unit: "true"}}
run: exec python3 app.py
environments:
  production: {{target: process/production, approval: {{expires: 1h}}}}
"""

JUDGED = """
app: {app}
run: exec python3 app.py
environments:
  production:
    target: process/production
    strategy: {{canary: {{steps: [20%, 100%], analysis: {{window: 3s, false_rollback: 1%}}}}}}
"""


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Chrome]:
    with chromium(tmp_path / "profile") as started:
        yield started


def test_release_is_followed_and_approved_in_the_browser(headway: Headway, tmp_path: Path, browser: Chrome) -> None:
    repo = Repo(tmp_path / "app", "watched", APPROVED)
    told = headway.release(repo.path, code=3)
    with headway.control() as control:
        headway.until(lambda: control.flow_run(told["flow_run_id"]).type == "PAUSED")
    sign_in(headway, browser, f"{headway.ui_url}/runs/flow-run/{told['flow_run_id']}")
    headway.until(lambda: "Suspended" in text(browser))
    headway.until(lambda: browser.find_elements(By.CSS_SELECTOR, "canvas"))  # the graph is drawn, not written
    click(headway, browser, "Resume")
    headway.until(lambda: told["digest"] in text(browser))
    assert "What has passed" in text(browser)
    fill_in(headway, browser, reason="seen in the browser")
    headway.until(lambda: headway.ledger.releases.get(told["id"]).state == "succeeded")
    stages = {stage.name: stage.detail for stage in headway.ledger.stages.by_release(told["id"])}
    assert stages["production approval"] == f"approved by {ME}: seen in the browser"
    with headway.control() as control:  # the table of the whole release is the last thing that its run does
        headway.until(lambda: control.flow_run(told["flow_run_id"]).type == "COMPLETED")
    browser.get(f"{headway.ui_url}/artifacts/artifact/{artifact(headway, 'release-watched')}")
    headway.until(lambda: "production approval" in text(browser))
    assert f"{told['name']}: succeeded" in text(browser)


def test_verdict_plot_is_shown_in_the_browser(headway: Headway, tmp_path: Path, browser: Chrome) -> None:
    repo = Repo(tmp_path / "app", "drawn", JUDGED)
    headway.release(repo.path)
    bad = """    import random
    return (500 if random.random() < 0.5 and path != '/health' else 200), {}"""
    repo.behave(bad)
    with Load(headway.url("drawn", "production"), rate=100):
        assert headway.release(repo.path, code=1)["state"] == "rolled_back"
    drawing = headway.until(lambda: artifact(headway, "verdict-drawn-production"))
    sign_in(headway, browser, f"{headway.ui_url}/artifacts/artifact/{drawing}")
    headway.until(lambda: "false-alarm chance under 1 %" in text(browser))
    picture = headway.until(lambda: [one for one in images(browser) if one.get_attribute("naturalWidth") != "0"])[0]
    assert int(picture.get_attribute("naturalWidth") or 0) > 500


def sign_in(headway: Headway, browser: Chrome, page: str) -> None:
    """As a person who opens a link to this page, and has to sign in first."""
    browser.get(page)
    headway.until(lambda: "headway open" in text(browser))
    browser.get(json.loads(headway.run("open", "--json").stdout)["url"])
    browser.find_element(By.TAG_NAME, "button").click()
    headway.until(lambda: "Signed in as" in text(browser))
    browser.get(page)


def images(browser: Chrome) -> list[WebElement]:
    found = browser.find_elements(By.TAG_NAME, "img")
    return [one for one in found if (one.get_attribute("src") or "").startswith("data:image/svg+xml")]


def artifact(headway: Headway, key: str) -> str:
    asked = {"artifacts": {"key": {"any_": [key]}}}
    with headway.prefect as prefect:
        found = prefect.post("/artifacts/filter", json=asked).raise_for_status().json()
    return str(found[0]["id"]) if found else ""


def text(browser: Chrome) -> str:
    try:
        return browser.find_element(By.TAG_NAME, "body").text
    except WebDriverException:  # the page is being replaced: retry
        return ""


def click(headway: Headway, browser: Chrome, label: str) -> None:
    def button() -> WebElement | None:
        buttons = browser.find_elements(By.TAG_NAME, "button")
        return next((one for one in reversed(buttons) if one.text.strip() == label and one.is_enabled()), None)

    headway.until(button).click()


def fill_in(headway: Headway, browser: Chrome, *, reason: str) -> None:
    """Fill in the form. Repeat if the page re-renders it meanwhile and loses the input."""
    for _ in range(3):
        dialog = headway.until(lambda: browser.find_elements(By.CSS_SELECTOR, DIALOG))[-1]
        decision = dialog.find_element(By.CSS_SELECTOR, "select.p-native-select__control")
        browser.execute_script(CHOOSE, decision, "approve")
        (area,) = dialog.find_elements(By.TAG_NAME, "textarea")
        area.clear()
        area.send_keys(reason)
        click(headway, browser, "Submit")
        with suppress(TimeoutException):
            WebDriverWait(browser, 15).until_not(lambda _: browser.find_elements(By.CSS_SELECTOR, DIALOG))
            return
