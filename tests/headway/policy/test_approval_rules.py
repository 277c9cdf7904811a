"""Who may approve, and what several decisions come to."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headway.domain.access import Action, Authority, Grant, Scope, Token
from headway.domain.approvals import Verb
from headway.domain.principal import Principal, Role
from headway.policy.approval_rules import ApprovalRule, Voter, outcome, progress, refusal, same_person
from tests.standins.people import OWNER, user

NOW = datetime(2030, 1, 1, tzinfo=UTC)
NAMES = ("ann", "bob", "cleo", "dan@example.com", "eve@example.com")


def authority(principal: Principal, *grants: tuple[str, Role, str | None], token: Token | None = None) -> Authority:
    given_ = tuple(
        Grant(subject=subject, role=role, app=app, granted_at=NOW, granted_by=OWNER) for subject, role, app in grants
    )
    return Authority(principal=principal, groups=principal.groups, token=token, grants=given_, owner=OWNER)


def rule(
    *by: str, authors: tuple[str, ...] = (), count: int = 1, environment: str = "production", frozen: bool = False
) -> ApprovalRule:
    return ApprovalRule(app="shop", environment=environment, by=by, authors=authors, count=count, frozen=frozen)


def token(owner: str, *actions: Action, expires: timedelta = timedelta(days=1)) -> Token:
    return Token(
        name="ci", owner=owner, scope=Scope(actions=actions, apps=("shop",)), created_at=NOW, expires_at=NOW + expires
    )


def may(asked: ApprovalRule, who: Authority, verb: Verb = "approved") -> bool:
    return refusal(asked, who, verb, NOW) is None


# --- who may ---------------------------------------------------------------------------------------------------------


def test_without_names_and_roles_whoever_is_signed_in_may() -> None:
    assert may(rule(), authority(user("ann")))


@pytest.mark.parametrize(
    ("by", "who"),
    [
        ("bob", user("bob")),
        ("bob@example.com", user("bob@example.com")),
        ("Bob@Example.com", user("bob@example.com")),
        ("Bob Builder <bob@example.com>", user("bob@example.com")),
        ("group:release-owners", user("bob", "staff", "release-owners")),
    ],
)
def test_a_listed_user_or_member_of_a_listed_group_may(by: str, who: Principal) -> None:
    assert may(rule("somebody", by), authority(who))


@pytest.mark.parametrize(
    ("by", "who"),
    [
        ("bob@example.com", user("bob")),
        ("bob@example.com", user("bob@evil.example")),
        ("Bob <bob@example.com>", user("Bob")),
        ("release-owners", user("eve", "release-owners")),
        ("group:release-owners", user("release-owners")),
        ("group:release-owners", user("eve", "release-owners-of-another")),
        ("token:bob", user("bob")),
    ],
)
def test_who_only_resembles_a_listed_name_may_not(by: str, who: Principal) -> None:
    refused = refusal(rule(by), authority(who), "approved", NOW)
    assert refused is not None
    assert f"{who} may not decide on production" in refused.what
    assert by in refused.hint


@pytest.mark.parametrize(
    ("role", "app", "allowed"),
    [
        (Role.APPROVER, "shop", True),
        (Role.ADMIN, None, True),
        (Role.DEVELOPER, "shop", False),
        (Role.APPROVER, "till", False),
    ],
)
def test_once_a_role_is_granted_for_the_app_an_approver_needs_it(role: Role, app: str | None, allowed: bool) -> None:
    others = ("cleo", Role.VIEWER, "shop")
    assert may(rule(), authority(user("bob"), others, ("bob", role, app))) == allowed
    assert may(rule("bob"), authority(user("bob"), others, ("bob", role, app))) == allowed
    assert may(rule(), authority(user("bob", "owners"), others, ("group:owners", role, app))) == allowed


def test_the_role_alone_does_not_suffice_where_approvers_are_listed() -> None:
    assert not may(rule("ann"), authority(user("bob"), ("bob", Role.APPROVER, "shop")))


def test_a_service_does_not_approve() -> None:
    service = authority(Principal(kind="service", name="nightly"))
    assert not may(rule(), service)
    assert not may(rule("service:nightly"), service)
    assert not may(rule("ann", frozen=True), service)
    assert may(rule(frozen=True), service)  # with the reason that an admin gave its schedule


def test_a_token_approves_within_its_scope_as_its_owner() -> None:
    machine = Principal(kind="token", name="ci")
    grants = (("bob", Role.APPROVER, "shop"),)
    assert may(rule(), authority(machine, *grants, token=token("bob", Action.APPROVE)))
    assert may(rule("bob"), authority(machine, *grants, token=token("bob", Action.APPROVE)))
    for useless in (None, token("bob", Action.RELEASE), token("cleo", Action.APPROVE)):
        assert not may(rule(), authority(machine, *grants, token=useless))
    assert not may(rule(), authority(machine, token=token("bob", Action.APPROVE)))  # nobody has a role
    author = rule(authors=("Bob <bob@example.com>",))
    assert not may(author, authority(machine, *grants, token=token("bob", Action.APPROVE)))


# --- never the author ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("person", "author"),
    [
        ("ann", "ann"),
        ("Ann", "ann"),
        ("ann@example.com", "ann"),
        ("ann", "Ann Developer <ann@example.com>"),
        ("ann@example.com", "ann at github"),
        ("ann", "ann at git.example.com"),
        ("ann@example.com", 'Developer, "Ann" <ann@example.com>'),
        ("ann@example.com", "A <b@c> <ann@example.com>"),
    ],
)
def test_the_author_pusher_or_requester_may_not_approve_but_may_reject(person: str, author: str) -> None:
    who = authority(user(person), (person, Role.ADMIN, None))
    refused = refusal(rule(authors=("cleo", author)), who, "approved", NOW)
    assert refused is not None
    assert f"{person} is the author of the change" in refused.what
    assert may(rule(authors=("cleo", author)), who, "rejected")


@pytest.mark.parametrize(
    ("person", "author"), [("bob", "ann"), ("bob", "Ann <ann@bob.example>"), ("an", "ann"), ("at", "ann at github")]
)
def test_another_person_is_not_the_author(person: str, author: str) -> None:
    assert not same_person(person, author)


# --- how many --------------------------------------------------------------------------------------------------------

voters = st.lists(
    st.builds(
        Voter, person=st.sampled_from(NAMES), decision=st.sampled_from(("approved", "rejected")), valid=st.booleans()
    ),
    max_size=6,
)


@given(st.integers(1, 4), voters)
def test_n_different_people_who_still_may_approve_it(count: int, cast: list[Voter]) -> None:
    valid = [one for one in cast if one.valid]
    state = outcome(count, cast).state
    if any(one.decision == "rejected" for one in valid):
        assert state == "rejected"
    else:
        assert (state == "approved") == (len({one.person for one in valid}) >= count)


@given(st.integers(1, 3), voters.filter(lambda cast: len(cast) <= 4))
def test_the_order_of_decisions_does_not_matter(count: int, cast: list[Voter]) -> None:
    assert len({outcome(count, order) for order in permutations(cast)}) == 1


@given(st.integers(1, 4), voters)
def test_a_decision_of_somebody_who_may_not_any_more_changes_nothing(count: int, cast: list[Voter]) -> None:
    assert outcome(count, cast) == outcome(count, [one for one in cast if one.valid])


@given(st.integers(2, 4), st.integers(1, 5))
def test_one_person_counts_once_under_every_name(count: int, times: int) -> None:
    names = ("bob", "BOB", "bob@example.com", "Bob@example.org", "bob ")
    cast = [Voter(person=name, decision="approved") for name in names[:times]]
    assert outcome(count, cast).state == "waiting"


def test_the_record_names_everybody_and_every_reason() -> None:
    cast = [
        Voter(person="cleo", decision="approved", reason="tried it"),
        Voter(person="bob", decision="approved", reason="read it"),
        Voter(person="dan", decision="approved", reason="gone", valid=False),
    ]
    done = outcome(2, cast)
    assert (done.state, done.decided_by, done.reason) == ("approved", "bob, cleo", "bob: read it; cleo: tried it")
    assert outcome(1, cast[:1]).reason == "tried it"


def test_progress_says_who_has_approved_and_how_many_are_needed() -> None:
    assert progress(1, []) == ""
    assert progress(2, []) == "0 of 2 approvals"
    assert progress(3, ["ann", "bob"]) == "2 of 3 approvals (ann, bob)"
