"""Settings of the Prefect server that `headway up` starts. Each may be set in the environment instead."""

from __future__ import annotations

from pathlib import Path

from headway.service.door.envoy import PREFECT
from headway.system.retention import keep_period

__all__ = ["server_settings"]


def server_settings(login: str, ui: Path) -> dict[str, str]:
    """Environment variables. `login` is what it asks every client for, `ui` a folder for the files of its UI.

    Raises UsageError for a wrong HEADWAY_KEEP_DAYS.
    """
    return {
        "PREFECT_SERVER_API_AUTH_STRING": login,
        # Pages of other sites get no answers. People reach the server through the door, which has the same origin.
        "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": "",
        "PREFECT_SERVER_UI_SERVE_BASE": PREFECT,
        "PREFECT_SERVER_UI_API_URL": f"{PREFECT}/api",
        # Prefect writes its base path into these files; by default into those of its package, for all servers.
        "PREFECT_SERVER_UI_STATIC_DIRECTORY": str(ui),
        # The default keeps every run, log and artifact for good.
        "PREFECT_SERVER_SERVICES_DB_VACUUM_ENABLED": "events,flow_runs",
        "PREFECT_SERVER_SERVICES_DB_VACUUM_RETENTION_PERIOD": f"{keep_period().total_seconds():.0f}",
        # By default each event of a task run is a transaction of its own.
        "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_BATCH_SIZE": "25",
        "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_FLUSH_INTERVAL": "1",
    }
