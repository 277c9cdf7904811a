"""Sign-in with a certified OpenID provider, through the door: a real provider, a real Envoy, a browser's requests."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from headway.domain.principal import Role
from headway.service.api.rate_limits import RateLimits
from headway.service.identity_provider import CLIENT_SECRET
from headway.system.os_user import home_owner, os_user
from tests.standins.browser import chromium
from tests.standins.door import Door, running_door
from tests.standins.identity_provider import CLIENT, Provider, follow, installed

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("oidc")]

CALLBACK = "/sign-in/oidc/callback"
MINUTE = 60
STEP = 60.0  # seconds for a page of a browser


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return installed(tmp_path_factory.mktemp("provider"))


@pytest.fixture(scope="module")
def door(program: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    with running_door(tmp_path_factory.mktemp("home")) as running:
        yield running


@pytest.fixture(scope="module")
def provider(door: Door, program: Path) -> Provider:
    made = Provider(program, door.url + CALLBACK)
    door.web.secrets[CLIENT_SECRET] = CLIENT["client_secret"]
    made.user("1", email="ann@example.com", email_verified=True, groups=["owners", "staff"])
    made.user("2", email="eve@example.com", email_verified=False, groups=["owners"])
    return made


@pytest.fixture(autouse=True)
def _settings(door: Door, provider: Provider) -> None:
    door.web.services = replace(door.web.services, identity_provider=provider.settings, rate_limits=RateLimits())


@pytest.fixture(scope="class")
def running(provider: Provider) -> Iterator[None]:
    with provider.running():
        yield


def begin(browser: httpx.Client, page: str = "/") -> str:
    """The address at the provider to which the browser is sent."""
    answer = browser.get("/sign-in/oidc", params={"next": page})
    assert answer.status_code == 303, answer.text
    return answer.headers["location"]


def come_back(door: Door, browser: httpx.Client, login: str = "1", page: str = "/") -> httpx.Response:
    """Sign in; returns the answer to the provider's redirect, which comes from another site."""
    url = follow(browser, begin(browser, page), login, door.url + CALLBACK)
    return browser.get(url, headers={"sec-fetch-site": "cross-site"})


def problem(answer: httpx.Response) -> str:
    """What the page says is wrong, and that nobody is signed in."""
    assert "headway-session" not in answer.headers.get("set-cookie", ""), answer.headers
    found = re.search(r'role="alert" class="error">([^<]*)', answer.text)
    assert found is not None, answer.text
    return found[1]


@pytest.mark.usefixtures("running")
class TestRunningProvider:
    def test_a_person_signs_in_and_comes_back_to_the_page(self, door: Door) -> None:
        with door.client as browser:
            assert 'href="/sign-in/oidc?next=/prefect/runs"' in browser.get("/sign-in?next=/prefect/runs").text
            answer = come_back(door, browser, page="/prefect/runs")
            assert answer.status_code == 200, "a redirect of another site's navigation has no SameSite=Strict cookie"
            assert 'http-equiv="refresh" content="0; url=/prefect/runs"' in answer.text
            session = next(one for one in answer.headers.get_list("set-cookie") if one.startswith("headway-session="))
            assert {"HttpOnly", "SameSite=strict", "Path=/"} <= set(session.split("; ")), session
            assert "Signed in as <strong>ann@example.com</strong>" in browser.get("/").text

    def test_groups_of_the_claim_have_roles(self, door: Door) -> None:
        grants, by = door.web.ledger.grants, home_owner(door.home)
        with door.client as browser:
            come_back(door, browser)
            assert browser.get("/prefect/").status_code == 403
            page = browser.get("/").text
            assert f"You have no role yet. These can give you one: {by}." in page
            grants.grant("group:staff", Role.VIEWER, None, by=by)
            assert browser.get("/prefect/").status_code == 200
            assert "no role yet" not in browser.get("/").text
            grants.revoke("group:staff", None, by=by)

    def test_the_groups_of_the_last_sign_in_count_in_every_session(self, door: Door, provider: Provider) -> None:
        grants, by = door.web.ledger.grants, home_owner(door.home)
        grants.grant("group:leaving", Role.VIEWER, None, by=by)
        ann = {"email": "ann@example.com", "email_verified": True}
        provider.user("1", **ann, groups=["leaving"])
        with door.client as first, door.client as second:
            come_back(door, first)
            assert first.get("/prefect/").status_code == 200
            provider.user("1", **ann, groups=["owners", "staff"])
            come_back(door, second)
            assert first.get("/prefect/").status_code == 403
        grants.revoke("group:leaving", None, by=by)

    def test_a_removed_user_with_a_session_is_signed_out(self, door: Door) -> None:
        with door.client as browser:
            come_back(door, browser)
            door.web.ledger.grants.remove_user("ann@example.com", by="root")
            assert browser.get("/").status_code == 303
            assert browser.post("/prefect/api/flows/filter", json={}, headers={"origin": door.url}).status_code == 401

    def test_an_unverified_address_is_nobody(self, door: Door) -> None:
        with door.client as browser:
            answer = come_back(door, browser, "2")
        assert answer.status_code == 403
        assert "not verified" in problem(answer)

    def test_nobody_signs_in_as_the_owner_of_the_machine(self, door: Door, provider: Provider) -> None:
        owner = os_user().name
        provider.user("3", email=owner, email_verified=True, preferred_username=owner)
        for claim in ("email", "preferred_username"):
            settings = replace(provider.settings, name_claim=claim)
            door.web.services = replace(door.web.services, identity_provider=settings)
            with door.client as browser:
                answer = come_back(door, browser, "3")
                assert answer.status_code == 403
                assert "is not like an e-mail address" in problem(answer)
                assert browser.get("/").status_code == 303

    def test_an_address_that_another_person_gets_has_not_their_roles(self, door: Door, provider: Provider) -> None:
        with door.client as browser:
            come_back(door, browser)
        provider.user("4", email="ann@example.com", email_verified=True)
        with door.client as browser:
            answer = come_back(door, browser, "4")
            assert answer.status_code == 403
            assert "was the name of another user" in problem(answer)
            door.web.ledger.grants.remove_user("ann@example.com", by="root")
            assert come_back(door, browser, "4").status_code == 200
            assert "no role yet" in browser.get("/").text
        door.web.ledger.grants.remove_user("ann@example.com", by="root")

    def test_a_sign_in_is_used_once(self, door: Door) -> None:
        with door.client as browser:
            url = follow(browser, begin(browser), "1", door.url + CALLBACK)
            cookie = browser.cookies["headway-sign-in"]
            assert browser.get(url).status_code == 200
            assert "headway-sign-in" not in browser.cookies
            browser.cookies.set("headway-sign-in", cookie)
            again = browser.get(url)
        assert again.status_code == 403
        assert "did not begin this sign-in" in problem(again)

    def test_a_used_code_is_refused(self, door: Door) -> None:
        """The code of one sign-in, in another sign-in of the same browser."""
        with door.client as browser:
            first = follow(browser, begin(browser), "1", door.url + CALLBACK)
            assert browser.get(first).status_code == 200
            second = follow(browser, begin(browser), "1", door.url + CALLBACK)
            code, other = (parse_qs(urlsplit(url).query)["code"][0] for url in (first, second))
            answer = browser.get(second.replace(other, code))
        assert answer.status_code == 403
        assert "invalid_grant" in problem(answer)

    def test_another_browser_cannot_finish_a_sign_in(self, door: Door) -> None:
        """Login CSRF: a page leads a person to the callback of the attacker's own sign-in."""
        with door.client as attacker, door.client as victim:
            url = follow(attacker, begin(attacker), "1", door.url + CALLBACK)
            begin(victim)
            for browser in (victim, door.client):
                answer = browser.get(url)
                assert answer.status_code == 403
                assert "did not begin this sign-in" in problem(answer)

    def test_a_wrong_state_is_refused(self, door: Door) -> None:
        with door.client as browser:
            url = follow(browser, begin(browser), "1", door.url + CALLBACK)
            state = parse_qs(urlsplit(url).query)["state"][0]
            answer = browser.get(url.replace(state, "guess"))
        assert (answer.status_code, "did not begin" in problem(answer)) == (403, True)

    def test_a_wrong_nonce_is_refused(self, door: Door) -> None:
        with door.client as browser:
            url = re.sub("nonce=[^&]+", "nonce=another", begin(browser))
            answer = browser.get(follow(browser, url, "1", door.url + CALLBACK))
        assert (answer.status_code, "nonce" in problem(answer)) == (403, True)

    def test_a_wrong_issuer_in_the_answer_is_refused(self, door: Door) -> None:
        with door.client as browser:
            url = follow(browser, begin(browser), "1", door.url + CALLBACK)
            answer = browser.get(re.sub("iss=[^&]+", "iss=https%3A%2F%2Fevil.example", url))
        assert (answer.status_code, "another identity provider" in problem(answer)) == (403, True)

    def test_what_the_provider_refuses_is_on_the_page(self, door: Door) -> None:
        with door.client as browser:
            url = begin(browser) + "&prompt=none"
            answer = browser.get(follow(browser, url, "1", door.url + CALLBACK))
        assert (answer.status_code, "login_required" in problem(answer)) == (403, True)

    def test_a_wrong_client_secret_is_named(self, door: Door) -> None:
        door.web.secrets[CLIENT_SECRET] = "wrong"
        try:
            with door.client as browser:
                answer = come_back(door, browser)
        finally:
            door.web.secrets[CLIENT_SECRET] = CLIENT["client_secret"]
        assert (answer.status_code, "invalid_client" in problem(answer)) == (503, True)
        assert CLIENT_SECRET in answer.text

    def test_an_issuer_with_another_name_is_refused(self, door: Door, provider: Provider) -> None:
        settings = replace(provider.settings, issuer=provider.settings.issuer.replace("localhost", "127.0.0.1"))
        door.web.services = replace(door.web.services, identity_provider=settings)
        with door.client as browser:
            answer = browser.get("/sign-in/oidc")
        assert (answer.status_code, "it calls itself" in problem(answer)) == (503, True)

    def test_pages_of_other_hosts_lead_nowhere(self, door: Door) -> None:
        with door.client as browser:
            answer = come_back(door, browser, page="//evil.example/")
        assert 'url=/"' in answer.text

    def test_sign_ins_of_an_address_are_limited(self, door: Door) -> None:
        with door.client as browser:
            answers = [browser.get(CALLBACK).status_code for _ in range(61)]
        assert answers == [403] * 60 + [429]


def test_claims_may_be_in_the_id_token(door: Door, provider: Provider) -> None:
    with provider.running(claimsInIdToken=True), door.client as browser:
        assert come_back(door, browser).status_code == 200


def test_a_public_client_has_no_secret(door: Door, provider: Provider) -> None:
    secret = door.web.secrets.pop(CLIENT_SECRET)
    public = {"client_id": "headway", "token_endpoint_auth_method": "none"}
    try:
        with provider.running(client=public), door.client as browser:
            assert come_back(door, browser).status_code == 200
    finally:
        door.web.secrets[CLIENT_SECRET] = secret


def test_new_keys_of_the_provider_are_used_at_once(door: Door, provider: Provider) -> None:
    for _ in range(2):  # each start makes new keys
        with provider.running(), door.client as browser:
            assert come_back(door, browser).status_code == 200


def test_a_signature_of_other_keys_is_refused(door: Door, provider: Provider) -> None:
    with provider.running(foreignKeys=True), door.client as browser:
        answer = come_back(door, browser)
    assert (answer.status_code, "bad_signature" in problem(answer)) == (403, True)


@pytest.mark.parametrize(
    ("skew", "wanted"), [(4 * MINUTE, 200), (-4 * MINUTE, 200), (6 * MINUTE, 403), (-6 * MINUTE, 403)]
)
def test_clocks_may_differ_by_five_minutes(door: Door, provider: Provider, skew: int, wanted: int) -> None:
    """A token of a clock that is ahead is from the future; that of one behind has expired when it is short."""
    with provider.running(skew=skew, idToken=30), door.client as browser:
        answer = come_back(door, browser)
    assert answer.status_code == wanted, answer.text
    if wanted == 403:
        assert "ID token is not valid" in problem(answer)
        assert "compare the clocks" in answer.text


def test_without_the_provider_sessions_and_webhooks_go_on(door: Door, provider: Provider) -> None:
    door.web.register("shop", "https://github.com/acme/shop", "github", "secret")
    with door.client as browser, door.client as newcomer:
        with provider.running():
            come_back(door, browser)
            url = follow(newcomer, begin(newcomer), "1", door.url + CALLBACK)
        assert "Signed in as <strong>ann@example.com" in browser.get("/").text
        for answer in (newcomer.get("/sign-in/oidc"), newcomer.get(url)):
            assert answer.status_code == 503
            assert f"the identity provider {provider.settings.issuer} cannot be used" in problem(answer)
            assert "whoever is signed in stays signed in" in answer.text
        assert newcomer.get("/sign-in").status_code == 200
        assert "signature" in newcomer.post("/hooks/github", json={}).json()["error"]


@pytest.mark.browser
def test_a_browser_is_signed_in_after_the_redirects_of_another_site(
    door: Door, provider: Provider, tmp_path: Path
) -> None:
    """A browser decides which cookies it sends with them."""
    with provider.running(), chromium(tmp_path) as browser:
        wait = WebDriverWait(browser, STEP)
        browser.get(f"{door.url}/sign-in?next=/%3Fsigned-in")
        browser.find_element(By.LINK_TEXT, f"Sign in with {urlsplit(provider.settings.issuer).netloc}").click()
        wait.until(lambda page: page.find_elements(By.NAME, "login"))[0].send_keys("1")
        browser.find_element(By.NAME, "password").send_keys("any")
        browser.find_element(By.CSS_SELECTOR, "button").click()
        wait.until(lambda page: page.find_elements(By.CSS_SELECTOR, "[name=prompt][value=consent]"))
        browser.find_element(By.CSS_SELECTOR, "button").click()
        wait.until(lambda page: page.current_url == f"{door.url}/?signed-in")
        assert "Signed in as ann@example.com" in browser.find_element(By.TAG_NAME, "body").text


def test_without_settings_there_is_no_such_sign_in(door: Door) -> None:
    door.web.services = replace(door.web.services, identity_provider=None)
    with door.client as browser:
        assert "/sign-in/oidc" not in browser.get("/sign-in").text
        assert browser.get("/sign-in/oidc").status_code == 404
        assert browser.get(CALLBACK).status_code == 404
