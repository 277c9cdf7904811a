"""What a request to Prefect's API does, as one of the actions that a role may do. What no rule names, admins may do."""

from __future__ import annotations

import re

from headway.domain.access import Action

__all__ = ["flow_run_of", "required_action"]

ID = r"[0-9a-fA-F-]{36}"
READ = re.compile(
    r"/api/(.+/)?(filter|count|history|lateness|paginate|validate|concurrency_status|count-by/[a-z]+)"
    r"|/api/ui/.+"
)
"""Requests that only read, although their method is POST."""
CHANGES = (
    (re.compile(rf"/api/deployments/{ID}/create_flow_run"), Action.RELEASE),
    (re.compile(rf"/api/flow_runs/{ID}/(set_state|resume)"), Action.RELEASE),
    (re.compile(r"/api/flow_runs/bulk_set_state"), Action.RELEASE),
)
"""What developers may do. Who may decide an approval is checked again, by the release that is resumed."""
SETTINGS = re.compile(r"/api/admin/(settings|storage)")
STREAMS = re.compile(r"/api/(events|logs)/out")
FLOW_RUN = re.compile(rf"/api/flow_runs/({ID})/(?:set_state|resume)")


def required_action(method: str, path: str, *, websocket: bool = False) -> Action:
    """What this request is. `path` is normalised, without its query, and begins with /api/."""
    path = path.rstrip("/")
    if websocket:
        return Action.READ if STREAMS.fullmatch(path) else Action.ADMIN
    if SETTINGS.fullmatch(path):
        return Action.ADMIN
    if method in ("GET", "HEAD", "OPTIONS"):
        return Action.READ
    if method == "POST":
        if READ.fullmatch(path):
            return Action.READ
        for pattern, action in CHANGES:
            if pattern.fullmatch(path):
                return action
    return Action.ADMIN


def flow_run_of(path: str) -> str | None:
    """Id of the flow run that a request resumes, or whose state it sets."""
    found = FLOW_RUN.fullmatch(path.rstrip("/"))
    return found[1] if found else None
