"""Requests of authenticated people to the Prefect API: who resumed, created or changed which flow run."""

from __future__ import annotations

import base64
import uuid
from urllib.parse import unquote

import sqlalchemy as sa

from headway.domain.principal import Principal
from headway.ledger import schema as t
from headway.ledger.base import Repository
from headway.ledger.database import writing

__all__ = ["CREATOR", "PrefectRequests", "creator_headers"]

CREATOR = ("prefect-automation-id", "prefect-automation-name")
"""Headers from which Prefect's API fills `created_by` of a flow run, for its automations."""


class PrefectRequests(Repository):
    """Rows that are written before a request passes to the Prefect API. They stay for good."""

    def record(self, principal: Principal, method: str, path: str, flow_run_id: str | None) -> int:
        """Record a request before it passes, and return its number, for `creator_headers`.

        `path` is that of the URL; a query string is not kept.
        """
        row = {
            "principal": principal.model_dump(mode="json"),
            "method": method.upper(),
            "path": _canonical(path),
            "flow_run_id": _canonical(flow_run_id) if flow_run_id else None,
            "requested_at": self._now(),
        }
        with writing(self._engine) as db:
            made = db.execute(t.prefect_requests.insert().values(row).returning(t.prefect_requests.c.id))
            return int(made.scalar_one())

    def last_resume(self, flow_run_id: str, after: int) -> Principal | None:
        """Who asked to resume this flow run after the request with this number.

        None when nobody did, and when several people did: nothing says whose request the server accepted.
        """
        path = f"/api/flow_runs/{_canonical(flow_run_id)}/resume"
        people = self._people(t.prefect_requests.c.path == path, t.prefect_requests.c.id > after)
        return people[0] if len(people) == 1 else None

    def creator(self, creator_id: uuid.UUID) -> Principal | None:
        """Who created a flow run, by the id that Prefect kept of `creator_headers`."""
        own = t.prefect_requests.c.id == creator_id.int
        row = self._read_one(sa.select(t.prefect_requests.c.principal).where(own)) if creator_id.int < 2**63 else None
        return Principal.model_validate(row["principal"]) if row else None

    def _people(self, *wanted: sa.ColumnElement[bool]) -> list[Principal]:
        """The different principals of these requests, the last one first."""
        query = sa.select(t.prefect_requests.c.principal).where(*wanted).order_by(t.prefect_requests.c.id.desc())
        people = [Principal.model_validate(row["principal"]) for row in self._read(query)]
        return list({(one.kind, one.name): one for one in people}.values())


def creator_headers(request: int, principal: Principal) -> dict[str, str]:
    """Headers by which Prefect keeps, on the flow run that a request creates, which request that was.

    The door sets them on requests of people, instead of those that came with them: a run without them was started by a
    service of Headway.
    """
    name = base64.b64encode(str(principal).encode()).decode()
    return dict(zip(CREATOR, (str(uuid.UUID(int=request)), name), strict=True))


def _canonical(path: str) -> str:
    """A path as Prefect reads it: without query and escapes, ids in one spelling."""
    return "/".join(_canonical_id(segment) for segment in unquote(path.partition("?")[0]).rstrip("/").split("/"))


def _canonical_id(segment: str) -> str:
    """Prefect accepts an id in capitals, in braces and without hyphens."""
    try:
        return str(uuid.UUID(segment))
    except ValueError:
        return segment
