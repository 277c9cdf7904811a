"""Measure Headway's overhead per release: `python bench/overhead.py`.

Eight no-op checks, four in parallel and then four in sequence: (a) `headway release` from the shell, (b) a flow run
from the time the worker accepts it. Baselines in the same run: the same DAG as bare Prefect tasks in a script, and as
a GitHub workflow run by act without containers.
"""

from __future__ import annotations

import platform
import statistics
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path

from service import Service, repository, running

ROUNDS = 5
ACT = str(Path(sys.executable).with_name("act"))
SETTINGS = """
app: noop
checks:
  a: {run: "true"}
  b: {run: "true"}
  c: {run: "true"}
  d: {run: "true"}
  e: {run: "true", needs: [a, b, c, d]}
  f: {run: "true", needs: [e]}
  g: {run: "true", needs: [f]}
  h: {run: "true", needs: [g]}
"""
BARE = """
import asyncio, subprocess
from prefect import flow, task

@task(task_run_name="{name}")
async def check(name):
    process = await asyncio.create_subprocess_shell("true")
    await process.wait()
    return {"name": name}

@flow
async def pipeline():
    last = await asyncio.gather(*(check(name) for name in "abcd"))
    for name in "efgh":
        last = [await check(name, wait_for=last)]

asyncio.run(pipeline())
"""


WORKFLOW = """
on: push
jobs:
""" + "".join(
    f"  {name}:\n    runs-on: ubuntu-latest\n    needs: [{needs}]\n    steps: [{{run: 'true'}}]\n"
    for name, needs in zip("abcdefgh", ("", "", "", "", "a, b, c, d", "e", "f", "g"), strict=True)
)


def main() -> None:
    with running() as service:
        files = {"headway.yaml": SETTINGS, ".github/workflows/noop.yaml": WORKFLOW, "bare.py": BARE}
        report(service, repository(service.place / "noop", files))


def report(service: Service, repo: Path) -> None:
    rows: dict[str, list[float]] = {
        "bare Prefect script": [],
        "(a) headway release": [],
        "(b) accepted run": [],
        "act, self-hosted": [],
    }
    server = service.environment | {"PREFECT_API_URL": service.api, "PREFECT_API_AUTH_STRING": service.login}
    # act keeps its cache and settings here. Without settings, its first run asks which image size to use.
    act = service.environment | {"XDG_CACHE_HOME": str(service.place / "act"), "HOME": str(service.place)}
    for _ in range(ROUNDS):
        rows["(a) headway release"].append(seconds([service.headway, "release", str(repo)], service.environment))
        rows["(b) accepted run"].append(accepted_to_end(service))
        rows["bare Prefect script"].append(seconds([sys.executable, str(repo / "bare.py")], server))
        rows["act, self-hosted"].append(seconds([ACT, "-C", str(repo), "-P", "ubuntu-latest=-self-hosted"], act))
    base = statistics.median(rows["bare Prefect script"])
    print(f"{platform.platform()}, Python {platform.python_version()}, {ROUNDS} rounds; median (worst) in s")
    for name, figures in rows.items():
        middle = statistics.median(figures)
        print(f"{name:22} {middle:6.2f} ({max(figures):.2f})   ratio {middle / base:.2f}")
    print("goals: (b) under 1.0 s; (a) within 0.5 s of the bare script")


def accepted_to_end(service: Service) -> float:
    """Seconds from Pending (accepted by the worker) to Completed, of the newest run of the flow `release`."""
    asked = {"sort": "EXPECTED_START_TIME_DESC", "limit": 1, "flows": {"name": {"any_": ["release"]}}}
    with service.prefect as client:
        run = client.post("/flow_runs/filter", json=asked).raise_for_status().json()[0]
        states = client.get("/flow_run_states/", params={"flow_run_id": run["id"]}).raise_for_status().json()
    times = {state["type"]: datetime.fromisoformat(state["timestamp"]) for state in states}
    return (times["COMPLETED"] - times["PENDING"]).total_seconds()


def seconds(command: list[str], environment: dict[str, str]) -> float:
    begun = time.monotonic()
    subprocess.run(command, env=environment, check=True, capture_output=True, timeout=120)
    return time.monotonic() - begun


if __name__ == "__main__":
    main()
