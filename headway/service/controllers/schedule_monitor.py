"""Report scheduled runs that do not start."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

from headway.domain.errors import HeadwayError
from headway.service.controllers.base import Controller
from headway.service.prefect.client import Control

__all__ = ["ScheduleMonitor", "overdue_schedules"]

GRACE = timedelta(minutes=3)  # the scheduler of Prefect's server runs every minute, and a worker takes seconds


class ScheduleMonitor(Controller):
    """Fails while a scheduled run is overdue, so that `GET /health` reports it."""

    name = "schedules"
    interval = 60.0

    def __init__(self, control: Control) -> None:
        super().__init__()
        self._control = control

    async def reconcile(self) -> list[str]:
        overdue = await asyncio.to_thread(overdue_schedules, self._control, datetime.now(UTC))
        if overdue:
            raise HeadwayError("; ".join(overdue), "see server.log and worker.log in $HEADWAY_HOME/logs")
        return []


def overdue_schedules(control: Control, now: datetime) -> list[str]:
    """A line for each deployment of Headway whose scheduled run has not started, or that has no next run."""
    deployments = control.query("/deployments/filter", {"deployments": {"tags": {"all_": ["headway"]}}})
    lines = []
    for deployment in deployments:
        if deployment["paused"] or not any(schedule["active"] for schedule in deployment["schedules"]):
            continue
        if problem := _problem(deployment, control, now):
            lines.append(f"{control.flow_name(deployment['flow_id'])}/{deployment['name']}: {problem}")
    return lines


def _problem(deployment: dict[str, Any], control: Control, now: datetime) -> str | None:
    wanted = {
        "deployments": {"id": {"any_": [deployment["id"]]}},
        "flow_runs": {"state": {"type": {"any_": ["SCHEDULED"]}}},
        "sort": "NEXT_SCHEDULED_START_TIME_ASC",
    }
    runs = [run for run in control.query("/flow_runs/filter", wanted) if run["auto_scheduled"]]
    if not runs and datetime.fromisoformat(deployment["updated"]) + GRACE < now:
        return "it has a schedule, but Prefect's scheduler has made no run of it"
    due = datetime.fromisoformat(runs[0]["next_scheduled_start_time"]) if runs else now
    if due + GRACE < now:
        return f"the run scheduled for {due:%Y-%m-%d %H:%M} UTC has not started"
    return None
