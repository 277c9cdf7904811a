"""What Headway adds to the commands themselves: `python bench/overhead.py`.

Eight no-op checks, four side by side and then four in a row: (a) `headway release` from the shell, (b) a run from the
moment the worker has accepted it. Beside them, in the same run: the same DAG as bare Prefect tasks in a script.
"""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path

import httpx

ROUNDS = 5
HEADWAY = str(Path(sys.executable).with_name("headway"))
PORTS = ("4379", "4279")
API = f"http://127.0.0.1:{PORTS[1]}/api"
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


def main() -> None:
    with tempfile.TemporaryDirectory() as directory:
        place = Path(directory)
        environment = {**os.environ, "HEADWAY_HOME": str(place / "home"), "NO_COLOR": "1"}
        repo = repository(place / "repo")
        (place / "bare.py").write_text(BARE)
        with (place / "up.log").open("w") as log:
            up = subprocess.Popen(
                [HEADWAY, "up", "--port", PORTS[0], "--prefect-port", PORTS[1]], env=environment, stdout=log, stderr=log
            )
        try:
            await_up(up, place / "up.log")
            report(environment, repo, place / "bare.py")
        finally:
            up.send_signal(2)
            up.wait(90)


def report(environment: dict[str, str], repo: Path, bare: Path) -> None:
    shell, warm, script = [], [], []
    server = environment | {"PREFECT_API_URL": API}
    for _ in range(ROUNDS):
        shell.append(seconds([HEADWAY, "release", str(repo)], environment))
        warm.append(accepted_to_end())
        script.append(seconds([sys.executable, str(bare)], server))
    print(f"{platform.platform()}, Python {platform.python_version()}, {ROUNDS} rounds; median (worst) in s")
    for name, figures in (("bare Prefect script", script), ("(a) headway release", shell), ("(b) accepted run", warm)):
        ratio = statistics.median(figures) / statistics.median(script)
        print(f"{name:22} {statistics.median(figures):6.2f} ({max(figures):.2f})   ratio {ratio:.2f}")
    print("goals: (b) under 1.0 s; (a) within 0.5 s of the bare script")


def accepted_to_end() -> float:
    """From Pending, when the worker took it, to the end, of the newest run of the flow `release`."""
    asked = {"sort": "EXPECTED_START_TIME_DESC", "limit": 1, "flows": {"name": {"any_": ["release"]}}}
    with httpx.Client(base_url=API, trust_env=False) as client:
        run = client.post("/flow_runs/filter", json=asked).raise_for_status().json()[0]
        states = client.get("/flow_run_states/", params={"flow_run_id": run["id"]}).raise_for_status().json()
    times = {state["type"]: datetime.fromisoformat(state["timestamp"]) for state in states}
    return (times["COMPLETED"] - times["PENDING"]).total_seconds()


def seconds(command: list[str], environment: dict[str, str]) -> float:
    begun = time.monotonic()
    subprocess.run(command, env=environment, check=True, capture_output=True, timeout=120)
    return time.monotonic() - begun


def repository(path: Path) -> Path:
    path.mkdir()
    (path / "headway.yaml").write_text(SETTINGS)
    who = ("-c", "user.name=bench", "-c", "user.email=bench@example.com")
    for arguments in (("init", "-q", "-b", "main"), ("add", "-A"), (*who, "commit", "-q", "-m", "no-op")):
        subprocess.run(["git", *arguments], cwd=path, check=True)
    return path


def await_up(up: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + 120
    while "Ctrl-C" not in log.read_text():
        if up.poll() is not None or time.monotonic() > end:
            raise RuntimeError(log.read_text())
        time.sleep(0.2)


if __name__ == "__main__":
    main()
