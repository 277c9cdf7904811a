"""Who may do what: properties of the decision."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from headway.domain.access import SKEW, Action, Authority, Grant, Scope, Token
from headway.domain.principal import Principal, Role
from headway.policy.access import may, role_of

NOW = datetime(2026, 5, 4, 12, tzinfo=UTC)
APPS = (None, "shop", "blog")
ENVIRONMENTS = (None, "staging", "production")
OWNER = "root"

roles = st.sampled_from(Role)
actions = st.sampled_from(Action)
apps = st.sampled_from(APPS)
environments = st.sampled_from(ENVIRONMENTS)
subjects = st.sampled_from(["ann", "bob", "group:owners", "group:staff"])
grants = st.builds(Grant, subject=subjects, role=roles, app=apps, granted_at=st.just(NOW), granted_by=st.just("root"))
many = st.lists(grants, max_size=6).map(tuple)
scopes = st.builds(
    Scope,
    actions=st.lists(actions, min_size=1, unique=True).map(tuple),
    apps=st.lists(st.sampled_from(APPS[1:]), unique=True).map(tuple),
    environments=st.lists(st.sampled_from(ENVIRONMENTS[1:]), unique=True).map(tuple),
)
groups = st.lists(st.sampled_from(["owners", "staff"]), unique=True).map(tuple)


def grant(subject: str, role: Role, app: str | None = None) -> Grant:
    return Grant(subject=subject, role=role, app=app, granted_at=NOW, granted_by="root")


def user(name: str, given: tuple[Grant, ...] = (), groups: tuple[str, ...] = ()) -> Authority:
    return Authority(principal=Principal(kind="user", name=name), groups=groups, grants=given, owner=OWNER)


def token(scope: Scope, of: Authority, **values: object) -> Authority:
    made = Token.model_validate(
        {"name": "ci", "owner": of.principal.name, "scope": scope, "created_at": NOW, "expires_at": None} | values
    )
    return of.model_copy(update={"principal": Principal(kind="token", name="ci"), "token": made})


@given(lower=roles, higher=roles, action=actions, app=apps, environment=environments)
def test_a_higher_role_may_do_what_a_lower_one_may(
    lower: Role, higher: Role, action: Action, app: str | None, environment: str | None
) -> None:
    lower, higher = sorted((lower, higher), key=lambda one: one.rank)
    if may(user("ann", (grant("ann", lower),)), action, app, environment, now=NOW) is None:
        assert may(user("ann", (grant("ann", higher),)), action, app, environment, now=NOW) is None


@given(before=many, more=grants, groups=groups, action=actions, app=apps)
def test_another_role_takes_nothing_away(
    before: tuple[Grant, ...], more: Grant, groups: tuple[str, ...], action: Action, app: str | None
) -> None:
    if may(user("ann", before, groups), action, app, now=NOW) is None:
        assert may(user("ann", (*before, more), groups), action, app, now=NOW) is None


@given(given=many, groups=groups, scope=scopes, action=actions, app=apps, environment=environments)
def test_a_token_may_nothing_that_its_owner_may_not(
    given: tuple[Grant, ...],
    groups: tuple[str, ...],
    scope: Scope,
    action: Action,
    app: str | None,
    environment: str | None,
) -> None:
    owner = user("ann", given, groups)
    if may(token(scope, owner), action, app, environment, now=NOW) is None:
        assert may(owner, action, app, environment, now=NOW) is None
        assert action in scope.actions
        assert not scope.apps or app in scope.apps
        assert action is Action.READ or not scope.environments or environment in scope.environments


@given(scope=scopes, action=actions, app=apps, environment=environments, late=st.integers(0, 10**6))
def test_a_token_that_ended_may_nothing(
    scope: Scope, action: Action, app: str | None, environment: str | None, late: int
) -> None:
    """Not even one of the owner of Headway's home directory."""
    owner, now = user(OWNER), NOW + SKEW + timedelta(seconds=late)
    expired = token(scope, owner, expires_at=NOW)
    revoked = token(scope, owner, revoked_at=NOW, revoked_by="ann")
    unknown = user(OWNER).model_copy(update={"principal": Principal(kind="token", name="ci")})
    for one in (expired, revoked, unknown):
        assert may(one, action, app, environment, now=now) is not None


def test_the_clocks_of_hosts_may_differ_by_five_minutes() -> None:
    one = token(Scope(actions=(Action.READ,)), user(OWNER), expires_at=NOW)
    assert may(one, Action.READ, "shop", now=NOW + timedelta(minutes=4, seconds=59)) is None
    refusal = may(one, Action.READ, "shop", now=NOW + timedelta(minutes=5))
    assert str(refusal) == "token:ci may not read shop: it expired at 2026-05-04 12:00 UTC"


@given(given=many, action=actions, app=apps, environment=environments)
def test_the_owner_of_the_home_directory_may_everything(
    given: tuple[Grant, ...], action: Action, app: str | None, environment: str | None
) -> None:
    assert may(user(OWNER, given), action, app, environment, now=NOW) is None


@given(given=many, action=actions, app=apps)
def test_a_stranger_may_nothing(given: tuple[Grant, ...], action: Action, app: str | None) -> None:
    assert may(user("eve", given), action, app, now=NOW) is not None


@given(given=many, app=apps)
def test_a_service_never_approves(given: tuple[Grant, ...], app: str | None) -> None:
    worker = user("x", given).model_copy(update={"principal": Principal(kind="service", name="worker")})
    assert may(worker, Action.RELEASE, app, now=NOW) is None
    for action in (Action.APPROVE, Action.PROMOTE, Action.ADMIN):
        assert may(worker, action, app, now=NOW) is not None


def test_a_role_for_one_app_is_none_for_others_and_none_for_all() -> None:
    ann = user("ann", (grant("ann", Role.ADMIN, "shop"), grant("ann", Role.VIEWER)))
    assert role_of(ann, "shop") is Role.ADMIN
    assert role_of(ann, "blog") is Role.VIEWER
    assert role_of(ann, None) is Role.VIEWER


def test_a_refusal_says_what_is_missing_and_who_could() -> None:
    given = (
        grant("ann", Role.DEVELOPER, "shop"),
        grant("group:owners", Role.APPROVER),
        grant("bob", Role.ADMIN, "blog"),
    )
    refusal = may(user("ann", given), Action.APPROVE, "shop", "production", now=NOW)
    assert refusal is not None
    assert refusal.what == "ann may not approve shop in production: that needs the role approver, not developer"
    assert refusal.hint == "these may: root, group:owners"
    refusal = may(
        token(Scope(actions=(Action.READ,), apps=("shop",)), user("ann", given)), Action.RELEASE, "shop", now=NOW
    )
    assert str(refusal) == "token:ci may not release shop: its scope is to read of shop"
    refusal = may(token(Scope(actions=(Action.APPROVE,)), user("ann", given)), Action.APPROVE, "shop", now=NOW)
    assert str(refusal) == ("ann, who owns token:ci, may not approve shop: that needs the role approver, not developer")


@pytest.mark.parametrize("name", ["group:owners", "token:ci", "Service:web", " ann", "ann\nbob"])
def test_a_user_cannot_have_a_name_that_reads_as_another_principal(name: str) -> None:
    with pytest.raises(ValidationError):
        Principal(kind="user", name=name)
