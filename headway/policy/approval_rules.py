"""Who may approve a release, and what the decisions of several people come to. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from datetime import datetime

from pydantic import Field

from headway.domain.access import GROUP, Action, Authority
from headway.domain.approvals import Outcome, Verb
from headway.domain.base import Frozen
from headway.domain.refusal import Refusal
from headway.policy.access import may_by_role

__all__ = ["ApprovalRule", "Voter", "outcome", "person_of", "progress", "refusal", "same_person"]

AT = " at "  # `ann at github`: a push by this user of a git host


class ApprovalRule(Frozen):
    """Who may decide on a request, and how many have to approve."""

    app: str
    environment: str
    by: tuple[str, ...] = Field(default=(), description="users and `group:NAME`; empty: everybody with the role")
    count: int = Field(default=1, ge=1)
    authors: tuple[str, ...] = Field(default=(), description="who wrote, pushed or requested it and may not approve")
    frozen: bool = Field(default=False, description="whether it is to release in spite of a freeze")


class Voter(Frozen):
    """A decision, and whether the person may still make it."""

    person: str
    decision: Verb
    reason: str = ""
    valid: bool = True


def person_of(authority: Authority) -> str:
    """The user behind a principal: the owner of a token is one person with the user."""
    return authority.token.owner if authority.token else authority.principal.name


def refusal(rule: ApprovalRule, authority: Authority, decision: Verb, now: datetime) -> Refusal | None:
    """Why a principal may not decide so; None if it may.

    Without a grant for the app, whoever is signed in may, within `by`. A service may only override a freeze, with the
    reason that an admin gave its schedule.
    """
    who, person = authority.principal, person_of(authority)
    if who.kind == "service":
        override = rule.frozen and not rule.by
        return None if override else Refusal(f"{who} may not decide: it is a service", "a person has to decide")
    if refused := may_by_role(authority, Action.APPROVE, rule.app, rule.environment, now=now):
        return refused
    if rule.by and not any(_names(entry, authority) for entry in rule.by):
        return Refusal(f"{who} may not decide on {rule.environment}", f"these may: {', '.join(rule.by)}")
    if decision == "approved" and any(same_person(person, author) for author in rule.authors):
        hint = f"another person has to decide on {rule.environment}"
        return Refusal(f"{who} is the author of the change, pushed it or requested its release", hint)
    return None


def outcome(count: int, voters: Sequence[Voter]) -> Outcome:
    """What the decisions come to, in whatever order they were made.

    One valid rejection rejects. People with the same name before the @ count as one, see `same_person`.
    """
    valid = [one for one in voters if one.valid]
    rejected = [one for one in valid if one.decision == "rejected"]
    if rejected:
        return Outcome(state="rejected", decided_by=_people(rejected), reason=_reasons(rejected))
    state = "approved" if len({_alias(one.person) for one in valid}) >= count else "waiting"
    return Outcome(state=state, decided_by=_people(valid), reason=_reasons(valid))


def progress(count: int, approved_by: Collection[str]) -> str:
    """How many approvals there are and are missing, such as `1 of 2 approvals (ann)`; "" when one person decides."""
    if count == 1:
        return ""
    people = f" ({', '.join(approved_by)})" if approved_by else ""
    return f"{len({_alias(one) for one in approved_by})} of {count} approvals{people}"


def same_person(person: str, author: str) -> bool:
    """Whether a signed-in user may be the author of a change.

    An author is a user, `Name <mail>` of a commit, or `USER at HOST` of a push. Names are compared without case and
    without what follows the @, so that a user who signs in as ann@example.com is the `ann` of a git host.
    """
    name, mail = _parts(author) if "<" in author else ("", author.partition(AT)[0])
    return _alias(person) in {_alias(one) for one in (name, mail) if one.strip()}


def _parts(text: str) -> tuple[str, str]:
    """Name and mail of `Name <mail>`. A name may have any character: no mail syntax is read in it."""
    name, _, mail = text.rpartition("<")
    return name.strip(), mail.strip().removesuffix(">")


def _alias(name: str) -> str:
    return name.strip().casefold().partition("@")[0]


def _names(entry: str, authority: Authority) -> bool:
    """Whether an entry of `by` is this principal: a user, the mail in `Name <mail>`, or one of its groups."""
    if entry.startswith(GROUP):
        return entry.removeprefix(GROUP) in authority.groups
    named = _parts(entry)[1]
    return named.strip().casefold() in {person_of(authority).casefold(), str(authority.principal).casefold()}


def _people(voters: Iterable[Voter]) -> str:
    return ", ".join(sorted(one.person for one in voters))


def _reasons(voters: Sequence[Voter]) -> str:
    given = sorted((one.person, one.reason.strip()) for one in voters if one.reason.strip())
    return given[0][1] if len(voters) == 1 and given else "; ".join(f"{who}: {why}" for who, why in given)
