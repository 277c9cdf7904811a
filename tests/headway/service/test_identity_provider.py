"""Settings of the identity provider, and the user that its claims are about."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headway.domain.errors import UsageError
from headway.domain.principal import Principal
from headway.domain.refusal import Refusal
from headway.service.identity_provider import IdentityProvider
from headway.system.os_user import is_os_user, os_user

PROVIDER = IdentityProvider("https://login.example.com", "headway")
SETTINGS = {"HEADWAY_OIDC_ISSUER": "https://login.example.com/realms/acme", "HEADWAY_OIDC_CLIENT_ID": "headway"}


def read(monkeypatch: pytest.MonkeyPatch, **changes: str) -> IdentityProvider | None:
    for name, value in (SETTINGS | changes).items():
        monkeypatch.setenv(name, value)
    return IdentityProvider.of_environment()


def nobody(_name: str) -> bool:
    return False


def user(claims: dict[str, Any], claim: str = "email") -> Principal | Refusal:
    return IdentityProvider(PROVIDER.issuer, PROVIDER.client_id, claim).user(claims, nobody)


# --- settings --------------------------------------------------------------------------------------------------


def test_without_settings_there_is_no_provider() -> None:
    assert IdentityProvider.of_environment() is None


def test_settings_have_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    found = read(monkeypatch)
    assert found == IdentityProvider("https://login.example.com/realms/acme", "headway", "email", "groups")
    other = read(monkeypatch, HEADWAY_OIDC_NAME_CLAIM="upn", HEADWAY_OIDC_GROUPS_CLAIM="roles")
    assert other is not None
    assert (other.name_claim, other.groups_claim) == ("upn", "roles")


@pytest.mark.parametrize("name", SETTINGS)
def test_the_issuer_and_the_client_go_together(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    with pytest.raises(UsageError, match=f"{name} is not set") as error:
        read(monkeypatch, **{name: ""})
    assert "or neither" in error.value.hint


def test_a_claim_alone_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADWAY_OIDC_NAME_CLAIM", "upn")
    with pytest.raises(UsageError, match="HEADWAY_OIDC_ISSUER is not set"):
        IdentityProvider.of_environment()


@pytest.mark.parametrize(
    "issuer",
    [
        "http://login.example.com",
        "login.example.com",
        "https://",
        "https://login.example.com/?realm=acme",
        "https://login.example.com/#acme",
        "https://user:password@login.example.com",
        "ftp://127.0.0.1",
    ],
)
def test_the_issuer_is_an_address_with_tls(monkeypatch: pytest.MonkeyPatch, issuer: str) -> None:
    with pytest.raises(UsageError, match="HEADWAY_OIDC_ISSUER=") as error:
        read(monkeypatch, HEADWAY_OIDC_ISSUER=issuer)
    assert "openid-configuration" in error.value.hint


@pytest.mark.parametrize("name", ["HEADWAY_OIDC_NAME_CLAIM", "HEADWAY_OIDC_GROUPS_CLAIM"])
@pytest.mark.parametrize("value", ["", " ", "a\tb"])
def test_an_empty_claim_is_an_error(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    with pytest.raises(UsageError, match=name):
        read(monkeypatch, **{name: value})


def test_an_issuer_on_this_machine_needs_no_tls(monkeypatch: pytest.MonkeyPatch) -> None:
    assert read(monkeypatch, HEADWAY_OIDC_ISSUER="http://127.0.0.1:8080/realms/acme") is not None


# --- names -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("verified", [True, "true"])
def test_a_verified_address_is_the_name(verified: object) -> None:
    found = user({"email": "ann@example.com", "email_verified": verified, "groups": ["owners"]})
    assert found == Principal(kind="user", name="ann@example.com")


@pytest.mark.parametrize(
    "claims", [{}, {"email_verified": False}, {"email_verified": "false"}, {"email_verified": 1.5}]
)
def test_an_unverified_address_is_refused(claims: dict[str, Any]) -> None:
    found = user({"email": "ann@example.com"} | claims)
    assert isinstance(found, Refusal)
    assert "not verified" in found.what


def test_another_claim_needs_no_verification() -> None:
    found = user({"preferred_username": "ann@example.com", "email": "eve@example.com"}, "preferred_username")
    assert found == Principal(kind="user", name="ann@example.com")


@pytest.mark.parametrize(
    "name",
    [
        *(
            "root",
            "ann",
            "@example.com",
            "ann@",
            "group:owners",
            "token:ci",
            "service:worker",
            "group:owners@example.com",
        ),
        *(
            "ann @example.com",
            " ann@example.com",
            "ann@example.com\n",
            "ann\x1b[2J@example.com",
            "\u0430nn@example.com",
        ),
        *("a" * 250 + "@example.com", "", None, 7, ["ann@example.com"], {"ann@example.com": 1}),
    ],
)
def test_a_name_that_may_be_mistaken_is_refused(name: object) -> None:
    assert isinstance(user({"upn": name}, "upn"), Refusal)
    assert isinstance(user({"email": name, "email_verified": True}), Refusal)


@given(st.text() | st.emails(), st.sampled_from(["email", "upn"]))
def test_no_claim_makes_a_user_of_the_machine(name: str, claim: str) -> None:
    """Also where names of the operating system's users are like e-mail addresses, as those of a directory are."""
    provider = IdentityProvider(PROVIDER.issuer, PROVIDER.client_id, claim)
    local = {os_user().name, name}
    assert isinstance(provider.user({claim: name, "email_verified": True}, local.__contains__), Refusal)
    found = provider.user({claim: name, "email_verified": True}, is_os_user)
    if isinstance(found, Principal):
        assert found.name == name
        assert "@" in name
        assert str(found) != str(os_user())


# --- groups ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("claim", "groups"),
    [
        (["owners", "staff", "owners"], ("owners", "staff")),
        (["/acme/owners"], ("/acme/owners",)),
        ("owners", ("owners",)),
        ([], ()),
        (None, ()),
    ],
)
def test_groups_are_names(claim: object, groups: tuple[str, ...]) -> None:
    assert PROVIDER.groups({"groups": claim}) == groups


def test_without_the_claim_there_are_no_groups() -> None:
    assert PROVIDER.groups({}) == ()


@pytest.mark.parametrize("claim", [7, {"owners": 1}, ["owners", 7], [""], ["own\ners"], ["x"] * 1001, ["x" * 300]])
def test_other_groups_are_refused(claim: object) -> None:
    assert isinstance(PROVIDER.groups({"groups": claim}), Refusal)
