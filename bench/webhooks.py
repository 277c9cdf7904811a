"""Measure webhook intake under load: `python bench/webhooks.py`.

Sends 1,000 signed deliveries a second for 10 s over 50 connections to a running `headway up`; one in ten is sent twice.
Prints response latency, lost deliveries and started releases. Baseline in the same run: `GET /health` of the same
server at the same rate. Also prints the CPU time of both, which a busy machine does not change as much as latency.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import os
import platform
import subprocess
import time
from collections.abc import Callable, Iterator

import psutil
from service import PORTS, Service, repository, running

from headway.ledger import Ledger

RATE = 1000  # requests a second
SECONDS = 10
CONNECTIONS = 50
SECRET = "a secret of the bench"
SETTINGS = """
app: flood
checks: {check: "true"}
"""


def main() -> None:
    os.environ["HEADWAY_SECRET_FLOOD_WEBHOOK"] = SECRET
    with running() as service:
        repo = str(repository(service.place / "flood", {"headway.yaml": SETTINGS}))
        subprocess.run([service.headway, "app", "add", repo], env=service.environment, check=True, capture_output=True)
        head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=repo, check=True, capture_output=True, text=True)
        report(service, repo, head.stdout.strip())


def report(service: Service, repo: str, head: str) -> None:
    names = [f"guid-{number}" for number in range(RATE * SECONDS * 10 // 11)]
    names = [name for number, name in enumerate(names) for _ in range(2 if number % 10 == 0 else 1)]
    page, page_cost = measured(service, lambda: (b"GET /health HTTP/1.1\r\nHost: bench\r\n\r\n" for _ in names))
    hooks, hooks_cost = measured(service, lambda: (delivery(repo, head, name) for name in names))
    with Ledger.open(f"sqlite:///{service.home / 'ledger.db'}") as ledger:
        end = time.monotonic() + 60
        while ledger.deliveries.due() and time.monotonic() < end:
            time.sleep(0.2)
        kept = ledger.deliveries.recent("flood", len(names))
        unsettled = len(ledger.deliveries.due())
    print(f"{platform.platform()}, Python {platform.python_version()}, {RATE}/s for {SECONDS} s")
    for name, answers, cost in (("GET /health", page, page_cost), ("POST /hooks/generic", hooks, hooks_cost)):
        times = sorted(seconds for _, seconds in answers)
        p50, p99 = (times[int(len(times) * share)] for share in (0.5, 0.99))
        codes = sorted({code for code, _ in answers})
        print(f"{name:20} {len(times):6} answers {codes}, p50 {1000 * p50:.1f} ms, p99 {1000 * p99:.1f} ms; {cost}")
    lost = len(set(names) - {one.delivery for one in kept})
    starts = sum(one.state == "started" for one in kept)
    print(f"{len(set(names))} deliveries, {len(names) - len(set(names))} of them twice: {lost} lost, {len(kept)} kept")
    print(f"{starts} started, {unsettled} not settled; goals: none lost, each kept once, 1 started, p99 under 100 ms")


def measured(service: Service, requests: Callable[[], Iterator[bytes]]) -> tuple[list[tuple[int, float]], str]:
    """Status and latency of each response, and the CPU cores that each process used meanwhile."""
    processes = {
        "client": psutil.Process(),
        **{
            name: service.process(name)
            for name in ("headway.service.api.http_server", "headway.service.controllers.runner")
        },
    }
    before, begun = {name: spent(process) for name, process in processes.items()}, time.monotonic()
    answers = asyncio.run(flood(requests))
    took = time.monotonic() - begun
    return answers, ", ".join(
        f"{name} {(spent(one) - before[name]) / took:.2f}" for name, one in processes.items()
    ) + " cores"


def spent(process: psutil.Process) -> float:
    """Seconds of CPU time, including children that have exited."""
    return sum(process.cpu_times()[:4])


async def flood(requests: Callable[[], Iterator[bytes]]) -> list[tuple[int, float]]:
    """Send each request when it is due. Seconds count from that time, so waiting for a free connection is included."""
    todo = list(requests())
    begun = time.monotonic() + 0.5
    answers: list[tuple[int, float]] = []

    async def connection(mine: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(PORTS[0]))
        for number in range(mine, len(todo), CONNECTIONS):
            due = begun + number / RATE
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            writer.write(todo[number])
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n", 1)[0])
            await reader.readexactly(length)
            answers.append((int(head.split(b" ", 2)[1]), time.monotonic() - due))
        writer.close()

    await asyncio.gather(*(connection(number) for number in range(CONNECTIONS)))
    return answers


def delivery(repo: str, head: str, name: str) -> bytes:
    body = json.dumps({"repository": repo, "ref": "refs/heads/main", "after": head, "by": "bench"}).encode()
    signature = hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()
    lines = [
        "POST /hooks/generic HTTP/1.1",
        "Host: bench",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
        f"X-Headway-Delivery: {name}",
        f"X-Headway-Signature: sha256={signature}",
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


if __name__ == "__main__":
    main()
