"""What the sign-in adds to a request, and isolation to a check: `python bench/trust.py`.

The same requests, in turn, straight to the server that answers them and through the door: one to Prefect's API, with a
session, which the door shows to the web service first; and a signed webhook delivery, to the web service.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import platform
import statistics
import subprocess
import time
from collections.abc import Callable

import httpx
import isolation
from service import Service, repository, running

from headway.ledger import Ledger
from headway.system.os_user import os_user
from headway.system.unix_socket import socket_directory

ROUNDS = 300
SECRET = "a secret of the benchmark"
GOALS = {"request to Prefect's API": 0.020, "webhook delivery": 0.050}  # seconds that it may add, p50
ISOLATION_GOAL = 0.150  # seconds


def main() -> None:
    with running(HEADWAY_SECRET_SHOP_WEBHOOK=SECRET) as service:
        shop = repository(service.place / "shop", {"headway.yaml": "app: shop\nrun: 'true'\n"})
        added = [service.headway, "app", "add", str(shop), "--name", "shop", "--host", "generic"]
        subprocess.run(added, env=service.environment, check=True, capture_output=True)
        figures = measure(pairs(service))
    print(f"{platform.platform()}, Python {platform.python_version()}, {ROUNDS} requests each; p50 (p95) in ms")
    for name, (direct, through) in figures.items():
        added_ms = 1000 * (statistics.median(through) - statistics.median(direct))
        ratio = statistics.median(through) / statistics.median(direct)
        print(f"{name:26} direct {shown(direct)}, through the door {shown(through)}   ratio {ratio:.2f}")
        print(f"{'':26} adds {added_ms:.1f} ms; goal: under {1000 * GOALS[name]:g} ms")
    checks = isolation.figures()
    host = statistics.median(checks["host"])
    for runner, seconds in checks.items():
        added_ms = 1000 * (statistics.median(seconds) - host)
        print(f"check, {runner:19} {shown(seconds)}   ratio to host {statistics.median(seconds) / host:.2f}")
        print(f"{'':26} adds {added_ms:.1f} ms; goal: under {1000 * ISOLATION_GOAL:g} ms")


def pairs(service: Service) -> dict[str, tuple[Callable[[], None], Callable[[], None]]]:
    """Name -> the request straight to its server, and through the door."""
    with Ledger.open(f"sqlite:///{service.home / 'ledger.db'}") as ledger:
        session = ledger.sessions.begin(os_user())
    web = socket_directory(service.home) / "web.sock"
    inside = httpx.Client(base_url="http://web", transport=httpx.HTTPTransport(uds=str(web)))
    browser = httpx.Client(base_url=service.web, headers={"origin": service.web}, trust_env=False)
    browser.cookies.set("headway-session", session)
    server, asked = service.prefect, {"limit": 1}
    return {
        "request to Prefect's API": (
            lambda: expect(200, server.post("/flows/filter", json=asked)),
            lambda: expect(200, browser.post("/prefect/api/flows/filter", json=asked)),
        ),
        "webhook delivery": (lambda: deliver(inside), lambda: deliver(browser)),
    }


def deliver(client: httpx.Client) -> None:
    """A signed delivery of an event that starts nothing."""
    body = json.dumps(
        {"repository": "https://git.example/other", "ref": "refs/heads/other", "after": "1" * 40}
    ).encode()
    signature = "sha256=" + hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()
    headers = {"x-headway-signature": signature, "x-headway-event": "push", "content-type": "application/json"}
    expect(200, client.post("/hooks/generic", content=body, headers=headers))


def expect(status: int, answer: httpx.Response) -> None:
    assert answer.status_code == status, answer.text


def measure(
    wanted: dict[str, tuple[Callable[[], None], Callable[[], None]]],
) -> dict[str, tuple[list[float], list[float]]]:
    """Seconds of each request, the two in turn; the first ten do not count."""
    figures: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in wanted}
    for number in range(ROUNDS + 10):
        for name, requests in wanted.items():
            for request, taken in zip(requests, figures[name], strict=True):
                begun = time.monotonic()
                request()
                if number >= 10:
                    taken.append(time.monotonic() - begun)
    return figures


def shown(seconds: list[float]) -> str:
    return f"{1000 * statistics.median(seconds):.1f} ({1000 * statistics.quantiles(seconds, n=20)[-1]:.1f})"


if __name__ == "__main__":
    main()
