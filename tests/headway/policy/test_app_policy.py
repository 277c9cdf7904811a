"""The policy of an app: headway.yaml can only tighten it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headway.config import Approval, Environment, Settings
from headway.config.app_policy import AppPolicy, EnvironmentPolicy
from headway.policy.app_policy import (
    Floor,
    RegisteredName,
    allowed_ref,
    effective,
    floors_of,
    repository_refusal,
    secret_refusal,
    stricter,
    target_refusal,
)

PEOPLE = ("ann", "bob", "cid", "group:owners", "group:staff")
FREEZES = ("Fri 16:00 - Mon 08:00 Europe/Berlin", "holidays DE-BW Europe/Berlin")


@st.composite
def approvals(draw: st.DrawFn) -> Approval:
    by = draw(st.lists(st.sampled_from(PEOPLE), unique=True, max_size=3).map(tuple))
    most = 4 if not by or any(one.startswith("group:") for one in by) else len(by)
    return Approval(
        by=by,
        count=draw(st.integers(1, most)),
        expires=draw(st.sampled_from([60.0, 3600.0, 86400.0])),
        not_author=draw(st.booleans()),
    )


people = st.lists(st.sampled_from(PEOPLE), unique=True, max_size=2).map(tuple)
freezes = st.lists(st.sampled_from(FREEZES), unique=True).map(tuple)
readiness = st.lists(st.sampled_from(["runbook", "rollback"]), unique=True).map(tuple)
receipts = st.none() | st.just("receipt")
rules = {
    "approval": st.none() | approvals(),
    "freeze": freezes,
    "freeze_override": people,
    "readiness": readiness,
    "require": receipts,
}
environments = st.builds(Environment, target=st.just("process/live"), **rules)
policies = st.builds(EnvironmentPolicy, **rules)


def is_as_strict(one: Approval | None, floor: Approval) -> bool:
    return (
        one is not None
        and (not floor.by or (bool(one.by) and set(one.by) <= set(floor.by)))
        and one.count >= floor.count
        and one.expires <= floor.expires
        and one.not_author >= floor.not_author
    )


@given(floor=approvals(), own=st.none() | approvals())
def test_an_approval_is_never_looser_than_the_policy(floor: Approval, own: Approval | None) -> None:
    merged = stricter(floor, own)
    assert is_as_strict(merged, floor)
    assert Approval.model_validate(merged.model_dump()) == merged  # somebody can give it


@given(floor=approvals(), own=approvals())
def test_an_approval_that_is_as_strict_is_used_as_it_is(floor: Approval, own: Approval) -> None:
    if is_as_strict(own, floor):
        assert stricter(floor, own) == own


@given(own=environments, policy=policies, before=environments)
def test_the_rules_of_an_environment_are_never_looser_than_the_policy(
    own: Environment, policy: EnvironmentPolicy, before: Environment
) -> None:
    floors = [Floor.of("shop#1", before), Floor.of("the policy", policy)]
    merged, notes = effective("production", own, floors)
    if policy.approval:
        assert is_as_strict(merged.approval, policy.approval)
    assert (merged.approval is None) <= (own.approval is None and before.approval is None)
    for one in (policy, own, before):
        assert set(merged.freeze) >= set(one.freeze)
        assert set(merged.readiness) >= set(one.readiness)
        assert one.require in (None, merged.require)
    may_override = policy.freeze_override or (policy.approval.by if policy.approval else ())
    if may_override:
        assert merged.freeze_override
        assert set(merged.freeze_override) <= set(may_override)
    assert bool(notes) == (merged != own)
    assert effective("production", merged, floors[-1:]) == (merged, [])
    kept = merged.model_copy(update={key: getattr(own, key) for key in ("approval", "freeze", "readiness", "require")})
    assert kept.model_copy(update={"freeze_override": own.freeze_override}) == own  # nothing else has changed


@given(own=environments)
def test_without_a_policy_nothing_changes(own: Environment) -> None:
    assert effective("production", own, []) == (own, [])


def test_what_is_used_instead_is_said() -> None:
    own = Environment(target="process/live")
    floor = Floor.of("the policy of shop for production", EnvironmentPolicy(approval=Approval(by=("ann",))))
    merged, notes = effective("production", own, [floor])
    assert merged.approval == Approval(by=("ann",))
    assert notes[0] == (
        "production/approval: headway.yaml asks for less than the policy of shop for production, which is used"
    )


def test_another_name_for_an_environment_takes_no_rule_away() -> None:
    strict = EnvironmentPolicy(approval=Approval(by=("ann",)), targets=("docker/prod",))
    policy = AppPolicy(environments={"production": strict, "staging": EnvironmentPolicy()})
    sources = [one.source for one in floors_of("shop", "prod", "docker/prod", policy, [])]
    assert sources == ["the policy of shop for production"]
    without_targets = AppPolicy(environments={"production": strict.model_copy(update={"targets": ()})})
    assert floors_of("shop", "prod", "docker/prod", without_targets, []) == []
    assert len(floors_of("shop", "prod", "docker/prod", without_targets, ["production"])) == 1


def settings(app: str = "blog", **more: object) -> Settings:
    document = {"app": app, "run": "true", "environments": {"production": {"target": "process/live"}}} | more
    return Settings.model_validate(document)


def naming(secret: str, app: str = "blog") -> Settings:
    live = {"target": "process/live", "env": {"URL": {"secret": secret}}}
    return settings(app, environments={"production": live})


REGISTERED = [
    RegisteredName(app="shop", secret="shop-webhook"),
    RegisteredName(app="shop-api", secret="hooks/of-the-api"),
    RegisteredName(app="blog", secret="blog-webhook"),
    RegisteredName(app="two--hyphens", secret="two--hyphens-webhook"),
]


@pytest.mark.parametrize(
    "secret",
    [
        "shop-prod/database-url",
        "shop/prod-database-url",  # the same environment variable
        "SHOP-prod/database-url",
        "shop_prod.database-url",
        "./shop-prod",  # the same file
        "blog-webhook/.",
        "two--hyphens-prod/key",
        "shop-api-production/key",
        "hooks/of-the-api",
        "blog-webhook",
        "headway-api-token",
        "Headway/api-token",
    ],
)
def test_a_secret_of_another_app_or_of_headway_is_refused(secret: str) -> None:
    refusal = secret_refusal(naming(secret), "blog", None, REGISTERED)
    assert refusal is not None
    assert refusal.what.startswith(f"!secret {secret}: it is a secret of ")


@pytest.mark.parametrize("secret", ["blog-prod/database-url", "shared/sentry", "shopping/list", "blogs"])
def test_other_secrets_are_allowed_without_a_policy(secret: str) -> None:
    assert secret_refusal(naming(secret), "blog", None, REGISTERED) is None


def test_an_app_whose_name_begins_with_that_of_another_has_its_own_secrets() -> None:
    assert secret_refusal(naming("shop-api-prod/key", "shop-api"), "shop-api", None, REGISTERED) is None
    assert secret_refusal(naming("shop-api-prod/key", "shop"), "shop", None, REGISTERED) is not None
    assert secret_refusal(naming("two--hyphens-prod/key", "two--hyphens"), "two--hyphens", None, REGISTERED) is None
    # The name of an environment cannot make a secret one of the app's own.
    disguised = settings("shop", env={"KEY": {"secret": True}}, environments={"api-prod": {"target": "process/live"}})
    assert secret_refusal(disguised, "shop", None, REGISTERED) is not None


def test_a_secret_is_found_wherever_headway_yaml_names_it() -> None:
    built = settings(
        build={"image": "ghcr.io/acme/blog", "secrets": {"npm": {"secret": "shop-build/npm"}}}, environments={}
    )
    assert secret_refusal(built, "blog", None, REGISTERED) is not None
    by_default = settings("blog", env={"DATABASE_URL": {"secret": True}})
    assert secret_refusal(by_default, "blog", None, REGISTERED) is None


def test_the_policy_names_the_secrets_that_are_allowed() -> None:
    policy = AppPolicy(secrets=("blog-*", "shop-shared/*"))
    assert secret_refusal(naming("shop-shared/sentry"), "blog", policy, REGISTERED) is None
    refusal = secret_refusal(naming("shared/sentry"), "blog", policy, REGISTERED)
    assert str(refusal) == "!secret shared/sentry: the policy of blog allows blog-*, shop-shared/*"
    everything = AppPolicy(secrets=("*",))
    assert secret_refusal(naming("shop-prod/url"), "blog", everything, REGISTERED) is None
    assert secret_refusal(naming("blog-webhook"), "blog", everything, REGISTERED) is not None
    assert secret_refusal(naming("headway-api-token"), "blog", everything, REGISTERED) is not None


def test_targets_are_those_of_the_policy() -> None:
    policy = AppPolicy(targets=("docker/*",))
    refusal = target_refusal(settings(), ["production"], policy, "blog")
    assert str(refusal) == "environments/production/target: the policy of blog does not allow process/live"
    own = AppPolicy(environments={"production": EnvironmentPolicy(targets=("process/prod",))})
    assert target_refusal(settings(), ["production"], own, "blog") is not None
    assert target_refusal(settings(), [], policy, "blog") is None
    assert target_refusal(settings(), ["production"], None, "blog") is None


def test_branches_and_tags_are_those_of_the_policy() -> None:
    allowed = allowed_ref(AppPolicy(branches=("main", "release/*"), tags=()))
    assert [ref for ref in ("refs/heads/main", "refs/heads/release/1", "refs/heads/mine") if allowed(ref)] == [
        "refs/heads/main",
        "refs/heads/release/1",
    ]
    assert not allowed("refs/tags/v1")
    assert not allowed("HEAD")
    assert allowed_ref(None)("HEAD")


def test_an_app_is_released_from_its_repository() -> None:
    assert repository_refusal("shop", "git@github.com:acme/shop.git", "https://github.com/acme/shop") is None
    assert repository_refusal("shop", "/home/eve/shop", None) is None
    refusal = repository_refusal("shop", "/home/eve/shop", "https://github.com/acme/shop")
    assert refusal is not None
    assert "is of the app shop, which is released from https://github.com/acme/shop" in refusal.what
