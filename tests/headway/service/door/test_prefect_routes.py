"""What each request to Prefect's API is, for every route that the locked version has."""

from __future__ import annotations

import pytest
from prefect.server.api.server import create_api_app

from headway.domain.access import Action
from headway.service.door.prefect_routes import flow_run_of, required_action

ID = "0b6b5f4a-3e1c-4d2a-9f7e-2f1f0a9c5d11"
READING = {
    *("filter", "count", "history", "lateness", "paginate", "validate", "concurrency_status"),
    *("count-task-runs", "count-deployments", "next-runs", "counts", "{countable}"),
}
"""Last parts of the paths of requests that only read, although their method is POST."""


def routes() -> list[tuple[str, str]]:
    paths = create_api_app().openapi()["paths"]
    return sorted((method.upper(), path) for path, methods in paths.items() for method in methods)


def test_every_route_that_changes_something_needs_more_than_a_viewer() -> None:
    found = routes()
    assert len(found) > 150
    for method, path in found:
        asked = required_action(method, f"/api{path}".replace("{countable}", "day").replace("{id}", ID))
        reads = method == "GET" or path.rstrip("/").rsplit("/", 1)[-1] in READING
        if path.startswith("/admin/") and path != "/admin/version":
            reads = False
        assert (asked is Action.READ) == reads, (method, path, asked)


@pytest.mark.parametrize(
    ("method", "path", "action"),
    [
        ("POST", f"/api/deployments/{ID}/create_flow_run", Action.RELEASE),
        ("POST", f"/api/flow_runs/{ID}/resume", Action.RELEASE),
        ("POST", f"/api/flow_runs/{ID}/set_state", Action.RELEASE),
        ("POST", f"/api/flow_runs/{ID}/set_state/", Action.RELEASE),
        ("DELETE", f"/api/flow_runs/{ID}", Action.ADMIN),
        ("POST", "/api/deployments/", Action.ADMIN),
        ("PATCH", f"/api/deployments/{ID}", Action.ADMIN),
        ("PATCH", "/api/work_pools/headway", Action.ADMIN),
        ("POST", "/api/block_documents/", Action.ADMIN),
        ("GET", "/api/admin/settings", Action.ADMIN),
        ("GET", "/api/admin/settings/", Action.ADMIN),
        ("DELETE", "/api/admin/storage", Action.ADMIN),
        ("POST", "/api/work_pools/headway/get_scheduled_flow_runs", Action.ADMIN),
        ("GET", "/api/flow_runs/filter", Action.READ),
        ("BREW", "/api/flow_runs/filter", Action.ADMIN),
    ],
)
def test_action_of_a_request(method: str, path: str, action: Action) -> None:
    assert required_action(method, path) is action


@pytest.mark.parametrize(
    ("path", "action"),
    [
        ("/api/events/out", Action.READ),
        ("/api/logs/out", Action.READ),
        ("/api/events/in", Action.ADMIN),
        ("/api/task_runs/subscriptions/scheduled", Action.ADMIN),
        ("/api/work_pools/headway/workers/connect", Action.ADMIN),
    ],
)
def test_viewers_may_only_listen_to_streams(path: str, action: Action) -> None:
    assert required_action("GET", path, websocket=True) is action


def test_flow_run_of_a_request() -> None:
    assert flow_run_of(f"/api/flow_runs/{ID}/resume") == ID
    assert flow_run_of(f"/api/flow_runs/{ID}") is None
    assert flow_run_of(f"/api/deployments/{ID}/create_flow_run") is None
