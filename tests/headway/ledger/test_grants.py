"""Roles, groups and tokens in the ledger, on SQLite and PostgreSQL."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa

from headway.domain.access import Action, Scope
from headway.domain.errors import NotFound, UsageError
from headway.domain.principal import Principal, Role
from headway.ledger import Ledger
from headway.ledger import schema as t
from headway.policy.access import may, role_of

NOW = datetime(2026, 5, 4, 12, tzinfo=UTC)
ANN = Principal(kind="user", name="ann")
OWNER = "root"


def role(ledger: Ledger, principal: Principal, app: str | None = "shop") -> Role | None:
    return role_of(ledger.grants.authority(principal, OWNER), app)


def test_a_role_replaces_the_one_before_and_ends_when_it_is_revoked(ledger: Ledger) -> None:
    ledger.grants.grant("ann", Role.APPROVER, "shop", by="root")
    ledger.grants.grant("ann", Role.DEVELOPER, "shop", by="root")
    assert role(ledger, ANN) is Role.DEVELOPER
    ledger.grants.revoke("ann", "shop", by="root")
    assert role(ledger, ANN) is None
    with pytest.raises(NotFound, match="ann has no role for shop"):
        ledger.grants.revoke("ann", "shop", by="root")
    with ledger._engine.connect() as db:
        kept = db.execute(sa.select(t.grants.c.role, t.grants.c.revoked_by).order_by(t.grants.c.granted_at)).all()
    assert [tuple(row) for row in kept] == [("approver", "root"), ("developer", "root")]


def test_groups_are_of_the_sign_in_local_or_of_the_last_sign_in(ledger: Ledger) -> None:
    ledger.grants.grant("group:owners", Role.APPROVER, None, by="root")
    assert role(ledger, ANN) is None
    assert role(ledger, ANN.model_copy(update={"groups": ("owners",)})) is Role.APPROVER
    ledger.grants.record_claims("ann", ["owners", "staff", "owners"])
    assert role(ledger, ANN) is Role.APPROVER
    ledger.grants.record_claims("ann", ["staff"])
    assert role(ledger, ANN) is None
    ledger.grants.add_member("owners", "ann", by="root")
    ledger.grants.add_member("owners", "ann", by="root")
    ledger.grants.record_claims("ann", [])
    assert role(ledger, ANN) is Role.APPROVER
    ledger.grants.remove_member("owners", "ann", by="root")
    assert role(ledger, ANN) is None
    with pytest.raises(NotFound):
        ledger.grants.remove_member("owners", "ann", by="root")


def test_the_last_admin_stays(ledger: Ledger) -> None:
    grants = ledger.grants
    grants.grant("bob", Role.ADMIN, "shop", by="root")
    grants.revoke("bob", "shop", by="root")  # of one app: no admin of all apps
    grants.grant("group:admins", Role.ADMIN, None, by="root")
    grants.grant("ann", Role.ADMIN, None, by="root")
    with pytest.raises(UsageError, match="nobody would be admin of all apps: ann is the last"):
        grants.revoke("ann", None, by="root")  # nobody is known to be in the group
    with pytest.raises(UsageError, match="ann is the last"):
        grants.grant("ann", Role.APPROVER, None, by="root")
    with pytest.raises(UsageError, match="ann is the last"):
        grants.remove_user("ann", by="root")
    assert role(ledger, ANN) is Role.ADMIN
    grants.add_member("admins", "bob", by="root")
    grants.revoke("ann", None, by="root")
    with pytest.raises(UsageError, match="bob is the last"):
        grants.remove_member("admins", "bob", by="root")
    with pytest.raises(UsageError, match="bob is the last"):
        grants.revoke("group:admins", None, by="root")


def test_a_removed_user_has_no_role_no_group_and_no_token(ledger: Ledger) -> None:
    ledger.grants.grant("ann", Role.DEVELOPER, None, by="root")
    ledger.grants.add_member("owners", "ann", by="root")
    ledger.grants.record_claims("ann", ["staff"])
    _, secret = ledger.tokens.create("ci", owner=ANN, scope=Scope(actions=(Action.RELEASE,)), expires_at=None)
    ledger.grants.remove_user("ann", by="root")
    assert not ledger.grants.all()
    assert not ledger.grants.members()
    assert ledger.tokens.authenticate(secret, datetime.now(UTC)) is None
    with pytest.raises(NotFound):
        ledger.grants.remove_user("ann", by="root")


def test_a_token_of_a_user_without_a_role_may_nothing(ledger: Ledger) -> None:
    ledger.grants.grant("group:staff", Role.DEVELOPER, None, by="root")
    ledger.grants.record_claims("ann", ["staff"])
    _, secret = ledger.tokens.create("ci", owner=ANN, scope=Scope(actions=(Action.RELEASE,)), expires_at=None)
    ci = ledger.tokens.authenticate(secret, NOW)
    assert ci is not None
    assert str(ci) == "token:ci"
    assert may(ledger.grants.authority(ci, OWNER), Action.RELEASE, "shop", now=NOW) is None
    ledger.grants.record_claims("ann", [])
    assert may(ledger.grants.authority(ci, OWNER), Action.RELEASE, "shop", now=NOW) is not None


def test_only_the_hash_of_a_secret_is_stored(ledger: Ledger) -> None:
    token, secret = ledger.tokens.create("ci", owner=ANN, scope=Scope(actions=(Action.READ,)), expires_at=None)
    assert len(secret) > 50
    assert secret not in token.model_dump_json()
    with ledger._engine.connect() as db:
        stored = db.execute(sa.select(t.tokens)).mappings().one()
    assert not any(secret in str(value) for value in stored.values())
    for wrong in ("", secret[:-1], secret + "x", secret.upper(), stored["digest"]):
        assert ledger.tokens.authenticate(wrong, NOW) is None


def test_a_token_ends_when_it_expires_or_is_revoked(ledger: Ledger) -> None:
    scope = Scope(actions=(Action.READ,))
    _, short = ledger.tokens.create("short", owner=ANN, scope=scope, expires_at=NOW)
    assert ledger.tokens.authenticate(short, NOW + timedelta(minutes=4)) is not None  # the clocks of hosts differ
    assert ledger.tokens.authenticate(short, NOW + timedelta(minutes=5)) is None
    _, long = ledger.tokens.create("long", owner=ANN, scope=scope, expires_at=None)
    assert ledger.tokens.authenticate(long, NOW) is not None
    first = ledger.tokens.revoke("long", by="bob")
    assert ledger.tokens.revoke("long", by="eve") == first
    assert first.revoked_by == "bob"
    assert ledger.tokens.authenticate(long, NOW) is None
    with pytest.raises(NotFound):
        ledger.tokens.revoke("other", by="bob")


def test_the_last_use_is_written_once_a_minute(ledger: Ledger) -> None:
    _, secret = ledger.tokens.create("ci", owner=ANN, scope=Scope(actions=(Action.READ,)), expires_at=None)
    assert ledger.tokens.get("ci").last_used_at is None
    for seconds, written in ((0, 0), (59, 0), (61, 61)):
        ledger.tokens.authenticate(secret, NOW + timedelta(seconds=seconds))
        assert ledger.tokens.get("ci").last_used_at == NOW + timedelta(seconds=written)


def test_a_name_of_a_token_is_used_once(ledger: Ledger) -> None:
    scope = Scope(actions=(Action.READ,))
    ledger.tokens.create("ci", owner=ANN, scope=scope, expires_at=None)
    ledger.tokens.revoke("ci", by="ann")
    with pytest.raises(UsageError, match="a token ci was created before"):
        ledger.tokens.create("ci", owner=ANN, scope=scope, expires_at=None)
    with pytest.raises(UsageError, match="token:ci cannot own a token"):
        ledger.tokens.create("other", owner=Principal(kind="token", name="ci"), scope=scope, expires_at=None)
