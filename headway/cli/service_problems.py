"""What `GET /health` of the running `headway up` reports."""

from __future__ import annotations

import json

import httpx
from tenacity import wait_none

from headway.domain.errors import HeadwayError, ServiceUnavailable
from headway.system.http_client import Failure, HttpClient, Limits
from headway.system.paths import home
from headway.system.retry_policy import RetryPolicy

__all__ = ["service_problems"]

LIMITS = Limits(httpx.Timeout(5.0, connect=1.0))
ONCE = RetryPolicy(attempts=1, backoff=wait_none())


def service_problems() -> list[str]:
    """A line for each problem of the running service. None if no service runs here."""
    try:
        url = str(json.loads((home() / "up.json").read_text())["web_url"])
    except FileNotFoundError:
        return []

    def failed(failure: Failure) -> ServiceUnavailable:
        cause = failure.response.status_code if failure.response is not None else type(failure.error).__name__
        return ServiceUnavailable(f"{url} does not answer ({cause})", "see the logs in $HEADWAY_HOME/logs")

    try:
        with HttpClient(url, LIMITS, ONCE, failed) as web:
            checks = web.request("GET", "/health").json()["checks"]
    except HeadwayError as error:
        return [f"problem: {error.what}"]
    return [f"problem: {state}" for state in sorted(set(checks.values()) - {"ok"})]  # some checks have two names
