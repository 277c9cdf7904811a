"""The whole story on the bundled shop: a release, one over it under load, and a bad one that goes back by itself."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.table import Table

from headway.domain.base import Frozen
from headway.domain.errors import HeadwayError
from headway.ledger import Ledger, ReleaseRecord
from headway.rollout.load_generator import Load
from headway.service import stack
from headway.service.prefect.client import Control
from headway.service.prefect.connections import connections
from headway.system import directories
from headway.system.paths import ledger_url
from headway.system.project_root import project_root

__all__ = ["Merge", "run"]

DEADLINE = 120.0  # seconds for one release; it takes about ten
RATE = 60.0  # requests a second
BASKETS = (1, 2, 64, 3, 5, 120, 8, 12, 80, 20, 36, 144)  # mugs; a third of the baskets is big
PATHS = tuple(f"/price?items={items}" for items in BASKETS)
STORY = (
    ("v1", "The first shop", "succeeded"),
    ("v2", "A discount from 100 mugs on", "succeeded"),
    ("v3", "Shipping costs (big baskets fail)", "rolled_back"),
)


class Merge(Frozen):
    """What became of one merge to main."""

    version: str
    subject: str
    release: ReleaseRecord
    seconds: float
    stages: dict[str, float]
    sent: int
    failed: int
    live: dict[str, str]


def run(*, keep: bool = False, console: Console | None = None) -> list[Merge]:
    """Play the three merges in a place of their own, and take everything away again unless `keep`.

    Raises HeadwayError when the story does not go as it should.
    """
    console = console or Console()
    place = Path(tempfile.mkdtemp(prefix="headway-demo-"))
    os.environ["HEADWAY_HOME"] = str(place / "home")
    os.environ.pop("PREFECT_API_URL", None)
    os.environ.pop("HEADWAY_LEDGER_URL", None)
    try:
        return asyncio.run(_play(place, keep, console))
    finally:
        if not keep:
            _take_away(place)


async def _play(place: Path, keep: bool, console: Console) -> list[Merge]:
    begun = time.monotonic()
    repo = _repository(place / "shop")
    ports = _free_ports(2)
    async with stack.running(
        host="127.0.0.1", prefect_port=ports[0], web_port=ports[1], on_line=console.print
    ) as service:
        console.print(f"watch it: {service.ui_url}")
        merges = []
        for version, subject, expected in STORY:
            _merge(repo, version, subject)
            merges.append(await asyncio.to_thread(_release, repo, version, subject, console))
            if merges[-1].release.state != expected:
                raise HeadwayError(
                    f"{version} should have {expected}, but it {merges[-1].release.state}: {merges[-1].release.reason}",
                    f"logs: {service.logs}",
                )
        console.print(_table(merges))
        console.print(f"{time.monotonic() - begun:.0f} s in all. Prefect UI: {service.ui_url}")
        if keep:
            console.print(
                f"still there, in {place}; look: HEADWAY_HOME={place / 'home'} headway status. Ctrl-C ends it."
            )
            await _until_interrupted(service)
        else:
            console.print("everything is taken away again; to keep it and look around: headway demo --keep")
    return merges


def _release(repo: Path, version: str, subject: str, console: Console) -> Merge:
    begun = time.monotonic()
    with Ledger.open(ledger_url()) as ledger, Control() as control, _users(ledger, console) as load:
        ref = _git(repo, "rev-parse", "HEAD")
        run_id = control.start("release/main", {"repo": str(repo), "ref": ref, "by": "demo"})
        while not (state := control.flow_run(run_id)).final:
            if time.monotonic() - begun > DEADLINE:
                raise HeadwayError(f"{version}: no end after {DEADLINE:g} s", f"look at it: {control.run_url(run_id)}")
            time.sleep(0.2)
        release = ledger.releases.by_run(run_id)
        if release is None:
            raise HeadwayError(f"{version}: {state.message}", f"look at it: {control.run_url(run_id)}")
        time.sleep(0.5 if load else 0)  # what users see afterwards counts too
        live = {
            name: ledger.rollouts.live(release.app, name) or "nothing"
            for name in ledger.rollouts.environments(release.app)
        }
        stages = {
            stage.name: stage.seconds for stage in ledger.stages.by_release(release.id) if stage.state != "skipped"
        }
        merge = Merge(
            version=version,
            subject=subject,
            release=release,
            seconds=time.monotonic() - begun,
            stages=stages,
            sent=load.sent if load else 0,
            failed=load.failed if load else 0,
            live=live,
        )
    console.print(f"{version} {subject}: {release.state}{': ' + release.reason if release.reason else ''}")
    return merge


@contextmanager
def _users(ledger: Ledger, console: Console) -> Iterator[Load | None]:
    """Users shop as soon as there is a shop."""
    live = ledger.rollouts.live("shop", "production")
    if live is None:
        yield None
        return
    _, spec = ledger.revisions.find("shop", live, environment="production")
    url = asyncio.run(_url(spec.target))
    with Load(url, paths=PATHS, rate=RATE) as load:
        yield load
    if load.failures:
        console.print(f"users saw {load.failed} failed requests of {load.sent}, for example {load.failures[0]}")


async def _url(target: str) -> str:
    found = await connections().load_target(target)
    url = found.observe("shop").url
    assert url is not None
    return url


def _repository(path: Path) -> Path:
    shutil.copytree(
        project_root() / "examples" / "shop", path, ignore=shutil.ignore_patterns(".*", "__pycache__", "reports")
    )
    (path / ".gitignore").write_text("__pycache__/\nreports/\n.*\n!.gitignore\n")
    _git(path, "init", "--quiet", "--initial-branch=main")
    return path


def _merge(repo: Path, version: str, subject: str) -> None:
    changes = project_root() / "examples" / "demo" / version
    if changes.is_dir():
        shutil.copytree(changes, repo, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    _git(repo, "add", "--all")
    author = ("-c", "user.name=Ann Developer", "-c", "user.email=ann@example.com")
    _git(repo, *author, "commit", "--quiet", f"--message={subject}")


def _git(repo: Path, *arguments: str) -> str:
    asked = ["git", "-C", str(repo), *arguments]
    return subprocess.run(asked, check=True, capture_output=True, text=True, timeout=30).stdout.strip()


def _table(merges: list[Merge]) -> Table:
    table = Table(
        title="seconds by stage; sent and failed: requests of the shop's users", box=None, padding=(0, 1, 0, 0)
    )
    for column in ("", "result", "checks", "build", "staging", "production", "sent", "failed", "live"):
        table.add_column(column, no_wrap=True)
    for merge in merges:
        checks = max((merge.stages.get(check, 0.0) for check in ("lint", "typecheck")), default=0.0)
        tests = merge.stages.get("unit", 0.0) + merge.stages.get("integration", 0.0)
        table.add_row(
            merge.version,
            merge.release.state.replace("_", " "),
            f"{max(checks, tests):.1f}",
            f"{merge.stages.get('build', 0.0):.1f}",
            *(f"{_place(merge, environment):.1f}" for environment in ("staging", "production")),
            str(merge.sent),
            str(merge.failed),
            "\n".join(f"{environment} {revision[:7]}" for environment, revision in merge.live.items()),
        )
    return table


def _place(merge: Merge, environment: str) -> float:
    """Rollout and smoke test."""
    return merge.stages.get(environment, 0.0) + merge.stages.get(f"{environment} smoke", 0.0)


async def _until_interrupted(service: stack.Up) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    waiting = {asyncio.create_task(stop.wait()), asyncio.create_task(service.until_one_dies())}
    done, pending = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    for task in pending:
        task.cancel()
    for task in done:
        task.result()


def _take_away(place: Path) -> None:
    from headway.system.supervisor import Supervisor

    for target in (place / "home" / "targets").glob("*"):
        Supervisor(target).shut_down()
    directories.remove(place)


def _free_ports(number: int) -> list[int]:
    probes = [socket.socket() for _ in range(number)]
    for probe in probes:
        probe.bind(("127.0.0.1", 0))
    ports = [int(probe.getsockname()[1]) for probe in probes]
    for probe in probes:
        probe.close()
    return ports
