"""A schedule that does not fire is reported, by a Prefect API that has what the test says."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from headway.cli.service_problems import service_problems
from headway.domain.errors import HeadwayError
from headway.service.controllers.schedule_monitor import GRACE, ScheduleMonitor, overdue_schedules
from headway.service.prefect.client import Control
from tests.headway.service.prefect.test_client import Answer, Prefect

NOW = datetime(2026, 11, 30, 12, tzinfo=UTC)
NIGHT = datetime(2026, 11, 30, 2, tzinfo=UTC)


def deployment(**fields: Any) -> dict[str, Any]:
    known = {"id": "d1", "flow_id": "f1", "name": "main", "paused": False, "schedules": [{"active": True}]}
    return known | {"updated": (NOW - timedelta(days=1)).isoformat()} | fields


def run(at: datetime, *, scheduled: bool = True) -> dict[str, Any]:
    return {"auto_scheduled": scheduled, "next_scheduled_start_time": at.isoformat()}


@pytest.fixture
def prefect() -> Iterator[Prefect]:
    with Prefect() as serving:
        serving.says("GET /flows/f1", Answer(200, {"name": "nightly"}))
        thread = threading.Thread(target=serving.serve_forever, args=(0.01,))
        thread.start()
        yield serving
        serving.shutdown()
        thread.join()


def told(prefect: Prefect, deployments: list[dict[str, Any]], runs: list[dict[str, Any]]) -> list[str]:
    prefect.says("POST /deployments/filter", Answer(200, deployments))
    prefect.says("POST /flow_runs/filter", Answer(200, runs))
    with Control(prefect.url) as control:
        return overdue_schedules(control, NOW)


def test_a_run_that_has_not_started_is_overdue(prefect: Prefect) -> None:
    overdue = told(prefect, [deployment()], [run(NIGHT), run(NOW + timedelta(days=1))])
    assert overdue == ["nightly/main: the run scheduled for 2026-11-30 02:00 UTC has not started"]


def test_a_schedule_without_a_run_is_overdue(prefect: Prefect) -> None:
    overdue = told(prefect, [deployment()], [run(NOW - timedelta(days=1), scheduled=False)])
    assert overdue == ["nightly/main: it has a schedule, but Prefect's scheduler has made no run of it"]


@pytest.mark.parametrize(
    ("deployments", "runs"),
    [
        pytest.param([deployment()], [run(NOW + timedelta(hours=14))], id="the next run is in the future"),
        pytest.param([deployment()], [run(NOW - GRACE)], id="the run is due"),
        pytest.param([deployment(updated=NOW.isoformat())], [], id="registered just now"),
        pytest.param([deployment(paused=True)], [run(NIGHT)], id="paused"),
        pytest.param([deployment(schedules=[{"active": False}])], [], id="the schedule is off"),
        pytest.param([deployment(schedules=[])], [], id="no schedule"),
    ],
)
def test_nothing_is_overdue(prefect: Prefect, deployments: list[dict[str, Any]], runs: list[dict[str, Any]]) -> None:
    assert told(prefect, deployments, runs) == []


async def test_health_has_what_is_overdue(prefect: Prefect) -> None:
    prefect.says("POST /deployments/filter", Answer(200, [deployment()]))
    prefect.says("POST /flow_runs/filter", Answer(200, [run(NIGHT)]), Answer(200, [run(NOW + timedelta(days=9999))]))
    with Control(prefect.url) as control:
        with pytest.raises(HeadwayError, match="nightly/main: the run scheduled for 2026-11-30 02:00 UTC") as raised:
            await ScheduleMonitor(control).reconcile()
        assert "logs" in raised.value.hint
        assert await ScheduleMonitor(control).reconcile() == []


def test_status_has_the_problems_of_the_service(
    prefect: Prefect, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEADWAY_HOME", str(tmp_path))
    assert service_problems() == []
    url = prefect.url.removesuffix("/api")
    (tmp_path / "up.json").write_text(json.dumps({"web_url": url}))
    overdue = "nightly/main: the run scheduled for 2026-11-30 02:00 UTC has not started"
    prefect.says("GET /health", Answer(200, {"checks": {"sweep": "ok", "schedules": overdue}}))
    assert service_problems() == [f"problem: {overdue}"]
    prefect.says("GET /health", Answer(502, ""))
    assert service_problems() == [f"problem: {url} does not answer (502)"]
