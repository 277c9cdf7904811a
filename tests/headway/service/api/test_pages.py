"""Pages of the web service: what they show to whom, and what their buttons do."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from headway.domain.principal import Principal, Role
from headway.ledger import ApprovalRecord, ReleaseRecord
from headway.service.api.authentication import Site
from headway.system.os_user import os_user
from tests.headway.cli.test_status import live, started
from tests.standins.webhook_receiver import FakeControl, Receiver, receiver

RUN = "0b6b5f4a-3e1c-4d2a-9f7e-2f1f0a9c5d11"
EVIDENCE: dict[str, Any] = {"commits": ["a <b>bold</b> commit"], "stages": ["unit: passed"], "not_ready": []}


class Control(FakeControl):
    """Remembers which runs were resumed, cancelled and started."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[str, Any]] = []

    def wake(self, flow_run_id: str) -> None:
        self.calls.append(("wake", flow_run_id))

    def cancel(self, flow_run_id: str) -> None:
        self.calls.append(("cancel", flow_run_id))

    def start(self, deployment: str, parameters: dict[str, Any], **_: Any) -> str:
        self.calls.append((deployment, parameters))
        return RUN


class Pages:
    """The service with pages, and browsers of people."""

    def __init__(self, web: Receiver) -> None:
        self.web, self.control = web, Control()
        host = web.url.removeprefix("http://")
        web.services = replace(web.services, site=Site(web.url, frozenset({host})), control=self.control)

    def browser(self, person: Principal | None = None) -> httpx.Client:
        client = httpx.Client(base_url=self.web.url, headers={"origin": self.web.url}, trust_env=False, timeout=30)
        client.cookies.set("headway-session", self.web.ledger.sessions.begin(person or os_user()))
        return client

    def waiting(self, **rule: Any) -> tuple[ReleaseRecord, ApprovalRecord]:
        """A release that waits for an approval of production."""
        release = started(self.web.ledger, "Faster <script>alert(1)</script> quotes")
        release = self.web.ledger.releases.update(release.id, flow_run_id=RUN)
        self.web.ledger.releases.set_waiting(release.id)
        wanted: dict[str, Any] = {"evidence": EVIDENCE, "by": [], "not_author": False} | rule
        end = datetime.now(UTC) + timedelta(hours=1)
        asked = self.web.ledger.approvals.request(release.id, "production", "r1", expires_at=end, **wanted)
        return release, asked


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Pages]:
    monkeypatch.setenv("HEADWAY_HOME", str(tmp_path))
    with receiver(tmp_path) as web:
        yield Pages(web)


def form(browser: httpx.Client, path: str) -> dict[str, str]:
    """The hidden fields of the last form of a page."""
    text = browser.get(path).text
    fields = re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)"', text)
    return dict(fields)


def user(name: str) -> Principal:
    return Principal(kind="user", name=name)


@pytest.mark.parametrize("path", ["/", "/apps/shop", "/releases/shop%231"])
def test_nobody_is_sent_to_the_sign_in_page(site: Pages, path: str) -> None:
    started(site.web.ledger, "first")
    answer = httpx.get(site.web.url + path, trust_env=False)
    assert (answer.status_code, answer.headers["location"]) == (303, "/sign-in")


def test_start_page_shows_what_is_live_and_what_waits(site: Pages) -> None:
    release, _ = site.waiting()
    revision = live(site.web.ledger, release, "staging")
    with site.browser() as browser:
        text = browser.get("/").text
    for words in (revision, "shop#1", "Ann Developer", "http://127.0.0.1:8100", "not reached yet"):
        assert words in text
    assert "waits for an approval of production" in text


def test_start_page_without_releases_says_how_to_begin(site: Pages) -> None:
    with site.browser() as browser:
        assert "headway init" in browser.get("/").text


def test_problems_of_the_service_are_on_the_start_page(site: Pages) -> None:
    site.web.services.checks["dispatch"] = "the ledger does not answer"
    with site.browser() as browser:
        assert "the ledger does not answer" in browser.get("/").text


def test_what_others_wrote_is_text(site: Pages) -> None:
    release, _ = site.waiting()
    site.web.ledger.releases.update(release.id, reason="<img src=x onerror=alert(1)>")
    live(site.web.ledger, release, "staging")
    with site.browser() as browser:
        for path in ("/", "/apps/shop", f"/releases/{release.id}"):
            answer = browser.get(path)
            assert "&lt;script&gt;alert(1)" in answer.text, path
            assert "<script>alert" not in answer.text
            assert "<img src=x" not in answer.text
            assert "script-src 'self'" in answer.headers["content-security-policy"]


def test_an_address_that_is_no_web_page_is_no_link(site: Pages) -> None:
    release = started(site.web.ledger, "first")
    live(site.web.ledger, release, "staging")
    (rollout,) = site.web.ledger.rollouts.by_release(release.id)
    site.web.ledger.rollouts.set_url(rollout.id, "javascript:alert(1)")
    with site.browser() as browser:
        text = browser.get("/").text
    assert "javascript:alert(1)" in text
    assert 'href="javascript:' not in text


def test_a_person_sees_the_apps_of_their_roles(site: Pages) -> None:
    release = started(site.web.ledger, "first")
    site.web.ledger.grants.grant("vera", Role.VIEWER, "shop", by="root")
    with site.browser(user("vera")) as browser:
        assert "shop#1" in browser.get("/apps/shop").text
    with site.browser(user("stranger")) as browser:
        assert "shop" not in browser.get("/").text
        for path in ("/apps/shop", f"/releases/{release.id}"):
            answer = browser.get(path)
            assert answer.status_code == 403
            assert "needs the role viewer" in answer.text


@pytest.mark.parametrize("path", ["/apps/nothing", "/releases/nothing", "/releases/shop%239"])
def test_what_does_not_exist_is_said(site: Pages, path: str) -> None:
    with site.browser() as browser:
        answer = browser.get(path)
    assert answer.status_code == 404
    assert "there is no release" in answer.text


@pytest.mark.parametrize(("button", "state"), [("approve", "approved"), ("reject", "rejected")])
def test_a_decision_is_recorded_with_the_person_and_resumes_the_release(site: Pages, button: str, state: str) -> None:
    release, asked = site.waiting()
    site.web.ledger.grants.grant("bob", Role.APPROVER, None, by="root")
    page = f"/releases/{release.id}"
    with site.browser(user("bob")) as browser:
        fields = form(browser, page) | {"decision": button, "reason": "read it", "by": "owner", "principal": "owner"}
        answer = browser.post(f"{page}/decision", data=fields)
    assert (answer.status_code, answer.headers["location"]) == (303, page)
    done = site.web.ledger.approvals.get(asked.id)
    assert (done.state, done.decided_by, done.reason, done.via) == (state, "bob", "read it", "page")
    assert site.control.calls == [("wake", RUN)]


def test_the_author_cannot_approve(site: Pages) -> None:
    release, asked = site.waiting(not_author=True)
    site.web.ledger.grants.grant("ann@example.com", Role.APPROVER, None, by="root")
    page = f"/releases/{release.id}"
    with site.browser(user("ann@example.com")) as browser:
        answer = browser.post(f"{page}/decision", data=form(browser, page) | {"decision": "approve"})
    assert answer.status_code == 409
    assert "author" in answer.text
    assert site.web.ledger.approvals.get(asked.id).state == "waiting"
    assert site.control.calls == []


def test_a_developer_cannot_approve(site: Pages) -> None:
    release, asked = site.waiting()
    site.web.ledger.grants.grant("dev", Role.DEVELOPER, "shop", by="root")
    page = f"/releases/{release.id}"
    with site.browser(user("dev")) as browser:
        answer = browser.post(f"{page}/decision", data=form(browser, page) | {"decision": "approve"})
    assert "needs the role approver" in answer.text
    assert site.web.ledger.approvals.get(asked.id).state == "waiting"


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"csrf_token": "guess"}, 403),
        ({"csrf_token": ""}, 403),
        ({"approval": "an older request"}, 409),
        ({"decision": ""}, 400),
        ({"decision": "maybe"}, 400),
    ],
)
def test_a_form_of_another_session_or_request_decides_nothing(site: Pages, change: dict[str, str], status: int) -> None:
    release, asked = site.waiting()
    page = f"/releases/{release.id}"
    with site.browser() as browser:
        fields = form(browser, page) | {"decision": "approve"} | change
        assert browser.post(f"{page}/decision", data=fields).status_code == status
        fields = form(browser, page) | {"decision": "approve"}
        headers = {"origin": "http://evil.example"}
        assert browser.post(f"{page}/decision", data=fields, headers=headers).status_code == 403
    assert site.web.ledger.approvals.get(asked.id).state == "waiting"


def test_a_release_is_cancelled_once(site: Pages) -> None:
    release, _ = site.waiting()
    page = f"/releases/{release.id}"
    with site.browser() as browser:
        fields = form(browser, page) | {"reason": "wrong branch"}
        assert browser.post(f"{page}/cancel", data=fields).status_code == 303
        site.web.ledger.releases.finish(release.id, "cancelled", "")
        assert browser.post(f"{page}/cancel", data=fields).status_code == 409
    assert site.control.calls == [("cancel", RUN)]


def test_viewers_have_no_buttons_and_no_rights(site: Pages) -> None:
    release, _ = site.waiting()
    live(site.web.ledger, release, "production")
    live(site.web.ledger, started(site.web.ledger, "second", "b" * 40), "production")
    site.web.ledger.grants.grant("vera", Role.VIEWER, None, by="root")
    with site.browser(user("vera")) as browser:
        fields = form(browser, "/")
        assert "Cancel this release" not in browser.get(f"/releases/{release.id}").text
        assert "Roll production back" not in browser.get("/apps/shop").text
        for path in (f"/releases/{release.id}/cancel", "/apps/shop/production/rollback"):
            assert browser.post(path, data=fields).status_code == 403, path
    assert site.control.calls == []


def test_an_environment_is_rolled_back_from_what_the_person_saw(site: Pages) -> None:
    live(site.web.ledger, started(site.web.ledger, "first"), "production")
    revision = live(site.web.ledger, started(site.web.ledger, "second", "b" * 40), "production")
    with site.browser() as browser:
        assert "Roll production back" in browser.get("/apps/shop").text
        fields = form(browser, "/apps/shop")
        assert fields["live"] == revision
        stale = browser.post("/apps/shop/production/rollback", data=fields | {"live": "another", "reason": "x"})
        assert stale.status_code == 409
        done = browser.post("/apps/shop/production/rollback", data=fields | {"reason": "slow"})
        assert done.status_code == 303
    ((deployment, parameters),) = site.control.calls
    assert deployment == "rollback/roll-back-environment"
    assert parameters["by"] == os_user().name
    assert (parameters["app"], parameters["environment"], parameters["reason"]) == ("shop", "production", "slow")


def test_assets_are_ours_alone(site: Pages) -> None:
    for name in ("headway.css", "headway.js"):
        assert httpx.get(f"{site.web.url}/assets/{name}", trust_env=False).status_code == 200
    for name in ("base.html", "..%2fapp.py", "nothing.js"):
        assert httpx.get(f"{site.web.url}/assets/{name}", trust_env=False).status_code in (404, 422)
