"""Settings of the Prefect server that `headway up` starts. Each may be set in the environment instead."""

from __future__ import annotations

from headway.system.retention import keep_period

__all__ = ["server_settings"]


def server_settings() -> dict[str, str]:
    """Environment variables. Raises UsageError for a wrong HEADWAY_KEEP_DAYS."""
    return {
        # The default keeps every run, log and artifact for good.
        "PREFECT_SERVER_SERVICES_DB_VACUUM_ENABLED": "events,flow_runs",
        "PREFECT_SERVER_SERVICES_DB_VACUUM_RETENTION_PERIOD": f"{keep_period().total_seconds():.0f}",
        # By default each event of a task run is a transaction of its own.
        "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_BATCH_SIZE": "25",
        "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_FLUSH_INTERVAL": "1",
    }
