"""Start a flow run again when it fails, a limited number of times."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from headway.service.prefect.client import Control

__all__ = ["MAX_ATTEMPTS", "start_with_retries"]

MAX_ATTEMPTS = 3
RETRY_PAUSE = 10.0  # seconds between the end of an attempt and the next


def start_with_retries(deployment: str, parameters: dict[str, Any], key: str, control: Control) -> bool:
    """Start the next attempt, unless one is running or the last ended less than `RETRY_PAUSE` ago.

    Returns False when every attempt has ended. Each attempt has an idempotency key of its own, made from `key`, so
    calling this again starts no second run.
    """
    for number in range(MAX_ATTEMPTS):
        run_id = control.start(deployment, parameters, idempotency_key=f"{key}-{number}")
        run = control.flow_run(run_id)
        if not run.final or (run.ended and datetime.now(UTC) < run.ended + timedelta(seconds=RETRY_PAUSE)):
            return True
    return False
