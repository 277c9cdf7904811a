"""How long users see the bad revision after the verdict: `python bench/rollback.py`.

Baseline in the same run: one bare switch of the route between two warm revisions. Both under the same load. The plan
is walked by the executor itself: what Prefect takes to start the rollback's flow run comes on top and is not in the
figure.
"""

from __future__ import annotations

import asyncio
import platform
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import httpx

from blocks.targets.process import ProcessTarget
from headway import strategies
from headway.executor import Rollout, walk
from headway.load import Load
from headway.model import Artifact, LaunchSpec, Measurements, Revision, Step, Traffic

ROUNDS = 7
APP = """
import http.server, json, os
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    def do_GET(self):
        body = json.dumps({"version": os.environ["HEADWAY_VERSION"]}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_):
        pass
http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
"""


class Unwritten:
    """A journal nobody reads."""

    def started(self, index: int, step: Step) -> None: ...

    def measured(self, index: int, measurements: Measurements) -> None: ...

    def finished(self, index: int, outcome: str, detail: str) -> None: ...


class Watcher(threading.Thread):
    """Asks as fast as it can, and remembers when the bad revision answered last."""

    def __init__(self, url: str, bad: Revision) -> None:
        super().__init__(daemon=True)
        self.last_bad = 0.0
        self._url, self._bad, self._stop_asking = url, bad, threading.Event()

    def run(self) -> None:
        with httpx.Client(base_url=self._url, trust_env=False) as client:
            while not self._stop_asking.is_set():
                if client.get("/").headers.get("x-headway-revision") == self._bad.id:
                    self.last_bad = time.monotonic()

    def stop(self) -> None:
        self._stop_asking.set()
        self.join(5)


def main() -> None:
    with tempfile.TemporaryDirectory() as directory:
        place = Path(directory)
        (place / "app.py").write_text(APP)
        artifact = Artifact(digest="sha256:" + "a" * 64, location=str(place), size=1)
        spec = LaunchSpec(
            environment="bench", artifact=artifact, run="exec python3 app.py", instances=2, stop_grace=1, drain=1
        )
        target = ProcessTarget(directory=place / "target")
        try:
            measure(target, spec)
        finally:
            target.destroy()


def measure(target: ProcessTarget, spec: LaunchSpec) -> None:
    old, bad = spec.revision("shop", "1" * 40), spec.revision("shop", "2" * 40)
    bare, back = [], []
    failed = sent = 0
    for _ in range(ROUNDS):
        for revision in (old, bad):
            launch(target, revision, spec)
        target.route("shop", Traffic.all_to(bad))
        url = target.observe("shop").url
        assert url is not None
        with Load(url, rate=100) as load:
            bare.append(until_old(url, bad, lambda: target.route("shop", Traffic.all_to(old))))
            target.route("shop", Traffic.all_to(bad))
            back.append(until_old(url, bad, lambda: roll_back(target, spec, old, bad)))
        failed, sent = failed + load.failed, sent + load.sent
    ratio = statistics.median(back) / statistics.median(bare)
    print(f"{platform.platform()}, Python {platform.python_version()}, {ROUNDS} rounds, 2 instances, under load")
    print(f"bare switch of the route     median {statistics.median(bare):.3f} s   worst {max(bare):.3f} s")
    print(f"verdict to all on the old    median {statistics.median(back):.3f} s   worst {max(back):.3f} s")
    print(f"ratio {ratio:.2f}; requests sent {sent}, failed {failed}; goal: under 1 s, 0 failed")


def launch(target: ProcessTarget, revision: Revision, spec: LaunchSpec) -> None:
    target.launch(revision, spec)
    end = time.monotonic() + 30
    while target.ready(revision).ready < spec.instances:
        if time.monotonic() > end:
            raise TimeoutError(f"{revision} is not ready")
        time.sleep(0.05)


def until_old(url: str, bad: Revision, act: Callable[[], None]) -> float:
    """Seconds from now until the bad revision answered for the last time."""
    watcher = Watcher(url, bad)
    watcher.start()
    time.sleep(0.3)
    begun = time.monotonic()
    act()
    time.sleep(0.3)
    watcher.stop()
    return max(0.0, watcher.last_bad - begun)


def roll_back(target: ProcessTarget, spec: LaunchSpec, old: Revision, bad: Revision) -> None:
    plan = strategies.rollback(target.observe("shop"), old.id, instances=2, startup=30, drain=spec.drain)
    specs = {revision.id: (revision, spec) for revision in (old, bad)}
    asyncio.run(walk(Rollout("shop", plan, target, specs, Unwritten(), lambda _: None)))


if __name__ == "__main__":
    main()
