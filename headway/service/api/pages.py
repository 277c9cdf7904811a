"""Pages: what is live where, and what waits for whom; an app; a release, with the buttons to decide on it."""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Literal

from fastapi import APIRouter, Request
from fastapi.responses import RedirectResponse, Response

from headway.domain import deployments
from headway.domain.access import Action
from headway.domain.approvals import Decision
from headway.domain.errors import HeadwayError, NotFound, UsageError
from headway.domain.principal import Principal, Role
from headway.ledger import ReleaseRecord
from headway.policy.access import able, has_role, may
from headway.policy.approvals import approvals_so_far, decide
from headway.service.api.authentication import Caller, caller
from headway.service.api.html import page, refusal_page
from headway.service.api.responses import RequestRefused, read_form
from headway.service.api.services import Services, ServicesDependency
from headway.service.door.envoy import PREFECT
from headway.service.overview import app_overview
from headway.service.pending import pending_decision
from headway.service.prefect.start_as import start_as
from headway.system.os_user import home_owner
from headway.system.paths import home

__all__ = ["router"]

RECENT = 50  # releases on the page of an app

router = APIRouter(include_in_schema=False)


@router.get("/")
async def start_page(request: Request, services: ServicesDependency) -> Response:
    """Apps and their environments."""
    return await _page(request, services, _home)


@router.get("/apps/{app}")
async def app_page(request: Request, services: ServicesDependency, app: str) -> Response:
    """An app: environments, and its releases."""
    return await _page(request, services, lambda services, found: _app(services, found, app))


@router.get("/releases/{release}")
async def release_page(request: Request, services: ServicesDependency, release: str) -> Response:
    """A release: stages, evidence, decisions, rollouts."""
    return await _page(request, services, lambda services, found: _release(services, found, release))


@router.post("/releases/{release}/decision")
async def decide_on_release(request: Request, services: ServicesDependency, release: str) -> Response:
    """Approve or reject, as the person who is signed in."""

    def action(found: Caller, form: dict[str, str]) -> str:
        verb: Literal["approved", "rejected"] = "approved" if form.get("decision") == "approve" else "rejected"
        if form.get("decision") not in ("approve", "reject"):
            raise RequestRefused(400, "the form has no decision", "press Approve or Reject")
        record = services.ledger.releases.get(release)
        waiting = services.ledger.approvals.waiting(record.id)
        if waiting is None or waiting.id != form.get("approval"):
            raise RequestRefused(409, "what was to be decided has changed meanwhile", "look at the release again")
        decision = Decision(principal=found.principal, decision=verb, reason=form.get("reason", "").strip(), via="page")
        done = decide(services.ledger, _owner(), waiting.id, decision)
        if done.state != "waiting" and record.flow_run_id:
            services.control.wake(record.flow_run_id)
        return f"/releases/{record.id}"

    return await _act(request, services, action)


@router.post("/releases/{release}/cancel")
async def cancel_release(request: Request, services: ServicesDependency, release: str) -> Response:
    """Cancel a release, and roll back what it had begun."""

    def action(found: Caller, form: dict[str, str]) -> str:
        record = services.ledger.releases.get(release)
        _require(services, found.principal, Action.RELEASE, record.app)
        if not record.open or record.flow_run_id is None:
            raise RequestRefused(409, f"{record.name} has ended meanwhile", "look at the release again")
        reason = form.get("reason", "").strip()
        why = f"cancelled by {found.principal}{f': {reason}' if reason else ''}"
        services.ledger.releases.update(record.id, reason=why)
        services.control.cancel(record.flow_run_id)
        return f"/releases/{record.id}"

    return await _act(request, services, action)


@router.post("/apps/{app}/{environment}/rollback")
async def roll_back(request: Request, services: ServicesDependency, app: str, environment: str) -> Response:
    """Go back to the revision before the live one."""

    def action(found: Caller, form: dict[str, str]) -> str:
        _require(services, found.principal, Action.ROLLBACK, app, environment)
        if services.ledger.rollouts.live(app, environment) != form.get("live"):
            raise RequestRefused(409, "another revision is live meanwhile", "look at the app again")
        asked = {"app": app, "environment": environment, "to": None, "reason": form.get("reason", "").strip()}
        start_as(found.principal, services.ledger, services.control, deployments.ROLLBACK, asked)
        return f"/apps/{app}"

    return await _act(request, services, action)


def _home(services: Services, found: Caller) -> dict[str, Any]:
    ledger = services.ledger
    open_releases = ledger.releases.unfinished()
    previews = {one.of for one in ledger.previews.active()}
    names = sorted({*ledger.releases.apps(), *previews} - ledger.previews.names())
    seen = [name for name in names if not _refused(services, found.principal, Action.READ, name)]
    apps = [app_overview(ledger, name, open_releases) for name in seen]
    problems = sorted(set(services.checks.values()) - {"ok"})
    authority = ledger.grants.authority(found.principal, _owner())
    return {
        "template": "home.html",
        "apps": apps,
        "problems": problems,
        "hidden": len(names) - len(seen),
        "givers": [] if has_role(authority) else able(authority, Role.ADMIN, None),
    }


def _app(services: Services, found: Caller, app: str) -> dict[str, Any]:
    ledger = services.ledger
    _require(services, found.principal, Action.READ, app)
    if app not in ledger.releases.apps():
        raise RequestRefused(404, f"there is no release of {app}", "see the start page")
    may_roll_back = {
        environment: not _refused(services, found.principal, Action.ROLLBACK, app, environment)
        for environment in ledger.rollouts.environments(app)
        if ledger.rollouts.previous(app, environment)
    }
    return {
        "template": "app.html",
        "app": app_overview(ledger, app, ledger.releases.unfinished()),
        "releases": ledger.releases.recent(app, RECENT),
        "may_roll_back": may_roll_back,
    }


def _release(services: Services, found: Caller, text: str) -> dict[str, Any]:
    ledger = services.ledger
    try:
        record = ledger.releases.find(text)
    except (NotFound, UsageError) as error:
        raise RequestRefused(404, error.what, error.hint) from None
    _require(services, found.principal, Action.READ, record.app)
    waiting = ledger.approvals.waiting(record.id) if record.open else None
    rollouts = ledger.rollouts.by_release(record.id)
    return {
        "template": "release.html",
        "release": record,
        "stages": ledger.stages.by_release(record.id),
        "waits_for": pending_decision(ledger, record) if record.open else "",
        "waiting": waiting,
        "so_far": approvals_so_far(ledger, _owner(), waiting) if waiting else "",
        "rollouts": [(one, ledger.rollouts.steps(one.id)) for one in rollouts],
        "requests": ledger.rollouts.user_requests(record.id),
        "may_cancel": _may_cancel(services, found.principal, record),
        "run": f"{PREFECT}/runs/flow-run/{record.flow_run_id}" if record.flow_run_id else None,
    }


def _may_cancel(services: Services, principal: Principal, record: ReleaseRecord) -> bool:
    return record.open and not _refused(services, principal, Action.RELEASE, record.app)


async def _page(
    request: Request, services: Services, content: Callable[[Services, Caller], dict[str, Any]]
) -> Response:
    """A page for the person who is signed in; the sign-in page for nobody."""
    try:
        found = await caller(request, services.ledger, services.site)
        if found is None:
            return RedirectResponse("/sign-in", 303)
        values = await asyncio.to_thread(content, services, found)
    except RequestRefused as refused:
        return refusal_page(refused)
    except HeadwayError as error:
        return refusal_page(RequestRefused(503, error.what, error.hint))
    return page(**values, person=str(found.principal), csrf_token=found.csrf_token, prefect=f"{PREFECT}/")


async def _act(request: Request, services: Services, action: Callable[[Caller, dict[str, str]], str]) -> Response:
    """Do what a form asks for, and lead to the page that shows it."""
    try:
        found = await caller(request, services.ledger, services.site)
        if found is None:
            return RedirectResponse("/sign-in", 303)
        form = await read_form(request)
        if not hmac.compare_digest(form.get("csrf_token", ""), found.csrf_token):
            raise RequestRefused(403, "the form is not one of this session", "reload the page and press again")
        return RedirectResponse(await asyncio.to_thread(action, found, form), 303)
    except RequestRefused as refused:
        return refusal_page(refused)
    except HeadwayError as error:
        return refusal_page(RequestRefused(409, error.what, error.hint))


def _require(
    services: Services, principal: Principal, action: Action, app: str, environment: str | None = None
) -> None:
    if refusal := _refused(services, principal, action, app, environment):
        raise refusal


def _refused(
    services: Services, principal: Principal, action: Action, app: str, environment: str | None = None
) -> RequestRefused | None:
    authority = services.ledger.grants.authority(principal, _owner())
    refusal = may(authority, action, app, environment, now=datetime.now(UTC))
    return RequestRefused(403, refusal.what, refusal.hint) if refusal else None


def _owner() -> str:
    return home_owner(home())
