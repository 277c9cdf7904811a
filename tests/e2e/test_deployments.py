"""The deployments that Headway registers with Prefect, and those that an earlier version has registered."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from headway.domain import deployments
from tests.e2e.conftest import Headway, Repo

pytestmark = pytest.mark.e2e


def api(headway: Headway, path: str, body: dict[str, Any] | None = None) -> Any:
    with headway.prefect as prefect:
        return prefect.request("GET" if body is None else "POST", f"/{path}", json=body).raise_for_status().json()


def test_each_deployment_is_named_for_what_it_does(headway: Headway) -> None:
    named = {one["name"] for one in api(headway, "deployments/filter", {"limit": 100})}
    assert named - {"main"} == {
        name.partition("/")[2] for name in (*deployments.FORMER.values(), deployments.MERGE_GROUP, deployments.DELETE)
    }


def test_former_names_keep_working_and_their_schedules_move(headway: Headway, repo: Repo) -> None:
    nightly = api(headway, f"deployments/name/{deployments.NIGHTLY}")
    former = {
        "name": "main",
        "flow_id": nightly["flow_id"],
        "entrypoint": "flows/of/an/earlier/version.py:nightly",
        "work_pool_name": "headway",
        "schedules": [{"schedule": {"cron": "30 4 * * 1", "timezone": "Europe/Berlin"}, "active": False}],
    }
    api(headway, "deployments/", former)
    release = api(headway, f"deployments/name/{deployments.RELEASE}")
    api(headway, "deployments/", {**former, "flow_id": release["flow_id"], "schedules": []})

    for _ in range(2):  # the second time, nothing changes
        with headway.control() as control:
            server = {"PREFECT_API_URL": control.url, "PREFECT_API_AUTH_STRING": headway.login}
            environment = headway.environment | server
        command = [sys.executable, "-m", "headway.service.prefect.project"]
        subprocess.run(command, env=environment, check=True, capture_output=True, timeout=110)

        (moved,) = api(headway, f"deployments/name/{deployments.NIGHTLY}")["schedules"]
        assert (moved["schedule"]["cron"], moved["active"]) == ("30 4 * * 1", False)
        old = api(headway, "deployments/name/nightly/main")
        assert old["schedules"] == []
        assert old["entrypoint"] == nightly["entrypoint"]
        assert old["description"].startswith(f"Former name of {deployments.NIGHTLY}")

    old = api(headway, "deployments/name/release/main")
    run = api(
        headway,
        f"deployments/{old['id']}/create_flow_run",
        {"parameters": {"repo": str(repo.path), "ref": "main"}, "state": {"type": "SCHEDULED"}},
    )
    ended = headway.until(lambda: (one := headway.ledger.releases.by_run(run["id"])) and not one.open and one)
    assert ended.state == "succeeded"
    assert api(headway, f"flow_runs/{run['id']}")["name"] == f"{repo.app}#1 first"
