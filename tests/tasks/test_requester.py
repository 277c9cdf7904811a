"""Who started a flow run, and what they may."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from prefect.context import FlowRunContext

from headway.domain.access import Action
from headway.domain.errors import UsageError
from headway.domain.principal import Principal, Role
from headway.ledger import Ledger
from headway.ledger.prefect_requests import CREATOR, creator_headers
from headway.system.os_user import os_user
from tasks.requester import requested_by, requester, require
from tests.standins.people import user


@pytest.fixture
def ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ledger]:
    monkeypatch.setenv("HEADWAY_HOME", str(tmp_path))
    with Ledger.open(f"sqlite:///{tmp_path / 'ledger.db'}") as opened:
        yield opened


def started_by(ledger: Ledger, monkeypatch: pytest.MonkeyPatch, who: Principal | None) -> None:
    """Run as a flow run that Prefect's server has created for this principal; None: for a service."""
    created_by = None
    if who:
        request = ledger.prefect_requests.record(who, "POST", "/api/deployments/x/create_flow_run", None)
        created_by = SimpleNamespace(id=uuid.UUID(creator_headers(request, who)[CREATOR[0]]))
    context = SimpleNamespace(flow_run=SimpleNamespace(created_by=created_by))
    monkeypatch.setattr(FlowRunContext, "get", lambda: context)


def test_the_parameter_of_a_run_names_nobody_when_a_person_started_it(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    started_by(ledger, monkeypatch, user("eve"))
    assert requested_by(ledger, "owner@acme") == "eve"
    started_by(ledger, monkeypatch, Principal(kind="token", name="ci"))
    assert requested_by(ledger, "owner@acme") == "token:ci"
    started_by(ledger, monkeypatch, None)
    assert (requested_by(ledger, "ann at github"), requester(ledger)) == ("ann at github", None)


@pytest.mark.parametrize("action", list(Action))
def test_who_starts_a_run_needs_the_role_for_what_it_does(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch, action: Action
) -> None:
    """As a developer may start every deployment in the Prefect UI, the one that deletes an app too."""
    started_by(ledger, monkeypatch, user("eve"))
    require(ledger, action, "shop")  # no role is granted yet
    ledger.grants.grant("eve", Role.DEVELOPER, "shop", by="owner")
    if Role.DEVELOPER.rank >= action.needs.rank:
        require(ledger, action, "shop", "production")
    else:
        with pytest.raises(UsageError, match=r"eve may not \w+ shop in production"):
            require(ledger, action, "shop", "production")
    ledger.grants.grant("bob", Role.ADMIN, "till", by="owner")
    with pytest.raises(UsageError, match=r"eve may not \w+ till"):
        require(ledger, action, "till")
    for who in (None, os_user()):  # a service; who owns Headway's home
        started_by(ledger, monkeypatch, who)
        require(ledger, action, "shop")
