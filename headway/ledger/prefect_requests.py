"""Requests of authenticated people to the Prefect API: who resumed, created or changed which flow run."""

from __future__ import annotations

import uuid
from datetime import datetime, timedelta
from urllib.parse import unquote

import sqlalchemy as sa

from headway.domain.principal import Principal
from headway.ledger import schema as t
from headway.ledger.base import Repository
from headway.ledger.database import writing

__all__ = ["PrefectRequests"]

# Between the request and the creation of its run: the server may be busy, and answers 503 until it is not.
BEFORE_CREATION = timedelta(seconds=60)
CLOCKS = timedelta(seconds=1)  # by which the clocks of the sign-in and of the Prefect server may differ


class PrefectRequests(Repository):
    """Rows that are written before a request passes to the Prefect API. They stay for good."""

    def record(self, principal: Principal, method: str, path: str, flow_run_id: str | None) -> None:
        """Record a request before it passes. `path` is that of the URL; a query string is not kept."""
        row = {
            "principal": principal.model_dump(mode="json"),
            "method": method.upper(),
            "path": _canonical(path),
            "flow_run_id": _canonical(flow_run_id) if flow_run_id else None,
            "requested_at": self._now(),
        }
        with writing(self._engine) as db:
            db.execute(t.prefect_requests.insert().values(row))

    def last_resume(self, flow_run_id: str, since: datetime) -> Principal | None:
        """Who asked to resume this flow run since then.

        None when nobody did, and when several people did: nothing says whose request the server accepted.
        """
        path = f"/api/flow_runs/{_canonical(flow_run_id)}/resume"
        people = self._people(t.prefect_requests.c.path == path, t.prefect_requests.c.requested_at >= since)
        return people[0] if len(people) == 1 else None

    def creators(self, deployment_id: str, created_at: datetime) -> list[Principal]:
        """Who may have created the run of this deployment that was created at this time.

        Empty when no person did; more than one when several people started runs of the deployment at the same time.
        """
        deployment = f"/api/deployments/{_canonical(deployment_id)}/create_flow_run"
        paths = (deployment, f"{deployment}/bulk")
        when = t.prefect_requests.c.requested_at.between(created_at - BEFORE_CREATION, created_at + CLOCKS)
        return self._people(t.prefect_requests.c.path.in_(paths), when)

    def _people(self, *wanted: sa.ColumnElement[bool]) -> list[Principal]:
        """The different principals of these requests, the last one first."""
        query = sa.select(t.prefect_requests.c.principal).where(*wanted).order_by(t.prefect_requests.c.id.desc())
        people = [Principal.model_validate(row["principal"]) for row in self._read(query)]
        return list({(one.kind, one.name): one for one in people}.values())


def _canonical(path: str) -> str:
    """A path as Prefect reads it: without query and escapes, ids in one spelling."""
    return "/".join(_canonical_id(segment) for segment in unquote(path.partition("?")[0]).rstrip("/").split("/"))


def _canonical_id(segment: str) -> str:
    """Prefect accepts an id in capitals, in braces and without hyphens."""
    try:
        return str(uuid.UUID(segment))
    except ValueError:
        return segment
