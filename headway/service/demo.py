"""`headway demo`: three releases of the bundled shop, the second under load, the third rolled back by its canary."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.table import Table

from headway.domain import deployments
from headway.domain.base import Frozen
from headway.domain.errors import HeadwayError
from headway.ledger import Ledger, ReleaseRecord
from headway.rollout.load_generator import Load
from headway.scm import git
from headway.service import stack
from headway.service.prefect.client import Control
from headway.service.prefect.connections import connections
from headway.system import directories, ports_in_use
from headway.system.paths import ledger_url
from headway.system.project_root import project_root

__all__ = ["DemoRelease", "run"]

RELEASE_DEADLINE = 120.0  # seconds; a release takes about ten
PATIENCE = 5.0  # seconds; after Ctrl-C the server is gone, and this thread ends
RATE = 60.0  # requests per second
BASKETS = (1, 2, 64, 3, 5, 120, 8, 12, 80, 20, 36, 144)  # mugs; v3 fails for the big ones, a third of them
PATHS = tuple(f"/price?items={items}" for items in BASKETS)
VERSIONS = (
    ("v1", "The first shop", "succeeded"),
    ("v2", "A discount from 100 mugs on", "succeeded"),
    ("v3", "Shipping costs (big baskets fail)", "rolled_back"),
)


class DemoRelease(Frozen):
    """One version and its release."""

    version: str
    subject: str
    release: ReleaseRecord
    seconds: float
    stages: dict[str, float]
    sent: int
    failed: int
    live: dict[str, str]


def run(*, keep: bool = False, console: Console | None = None) -> list[DemoRelease]:
    """Release the three versions in a temporary directory, and stop and remove everything afterwards.

    With `keep` that is after Ctrl-C. Raises HeadwayError when a release does not end as expected; then the logs stay.
    """
    console = console or Console()
    directory = Path(tempfile.mkdtemp(prefix="headway-demo-"))
    os.environ["HEADWAY_HOME"] = str(directory / "home")
    os.environ.pop("PREFECT_API_URL", None)
    os.environ.pop("HEADWAY_LEDGER_URL", None)
    try:
        with ports_in_use.reserved() as prefect_port, ports_in_use.reserved() as web_port:
            results = asyncio.run(_release_all(directory, (prefect_port, web_port), keep, console))
    except HeadwayError:
        _stop_targets(directory)
        console.print(f"stopped; logs stay in {directory}")
        raise
    except BaseException as error:  # noqa: BLE001  # raised again
        _clean_up(directory)
        raise (KeyboardInterrupt if isinstance(error, asyncio.CancelledError) else error) from None
    _clean_up(directory)
    return results


async def _release_all(directory: Path, ports: tuple[int, int], keep: bool, console: Console) -> list[DemoRelease]:
    begun = time.monotonic()
    task = asyncio.current_task()
    assert task is not None
    for number in (signal.SIGTERM, signal.SIGHUP):  # asyncio does the same for SIGINT
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    repo = _repository(directory / "shop")
    addresses = stack.Addresses("127.0.0.1", ports[1], ports[0])
    async with stack.running(addresses, console.print) as service:
        results: list[DemoRelease] = []
        for version, subject, expected in VERSIONS:
            _commit_version(repo, version, subject)
            result = await asyncio.to_thread(_release, repo, version, subject, console)
            results.append(result)
            if result.release.state != expected:
                what = f"{version}: expected {expected}, but it {result.release.state}: {result.release.reason}"
                raise HeadwayError(what, f"logs: {service.logs}")
        console.print(_table(results))
        console.print(f"{time.monotonic() - begun:.0f} s in total")
        if keep:
            console.print(f"still running, in {directory}; Ctrl-C stops it")
            console.print(f"try: HEADWAY_HOME={directory / 'home'} headway open    (or: headway status)")
            await _until_interrupted(service, console)
        else:
            console.print("removing everything; to keep it running: headway demo --keep")
    return results


def _release(repo: Path, version: str, subject: str, console: Console) -> DemoRelease:
    begun = time.monotonic()
    control = Control(patience=PATIENCE)
    with Ledger.open(ledger_url()) as ledger, control, _load(ledger, console) as load:
        ref = _git(repo, "rev-parse", "HEAD")
        run_id = control.start(deployments.RELEASE, {"repo": str(repo), "ref": ref, "by": "demo"})
        while not (state := control.flow_run(run_id)).final:
            if time.monotonic() - begun > RELEASE_DEADLINE:
                raise HeadwayError(
                    f"{version}: not finished after {RELEASE_DEADLINE:g} s", f"look at it: {control.run_url(run_id)}"
                )
            time.sleep(0.2)
        release = ledger.releases.by_run(run_id)
        if release is None:
            raise HeadwayError(f"{version}: {state.error or state.state}", f"look at it: {control.run_url(run_id)}")
        time.sleep(0.5 if load else 0)  # requests after the release count too
        live = {
            name: ledger.rollouts.live(release.app, name) or "nothing"
            for name in ledger.rollouts.environments(release.app)
        }
        stages = ledger.stages.by_release(release.id)
        result = DemoRelease(
            version=version,
            subject=subject,
            release=release,
            seconds=time.monotonic() - begun,
            stages={stage.name: stage.seconds for stage in stages if stage.state != "skipped"},
            sent=load.sent if load else 0,
            failed=load.failed if load else 0,
            live=live,
        )
    console.print(f"{version} {subject}: {release.state}{': ' + release.reason if release.reason else ''}")
    return result


@contextmanager
def _load(ledger: Ledger, console: Console) -> Iterator[Load | None]:
    """Send requests during the release, if a version is live already."""
    live = ledger.rollouts.live("shop", "production")
    if live is None:
        yield None
        return
    _, spec = ledger.revisions.find("shop", live, environment="production")
    url = asyncio.run(_url(spec.target))
    with Load(url, paths=PATHS, rate=RATE) as load:
        yield load
    if load.failures:
        console.print(f"{load.failed} of {load.sent} requests failed, for example {load.failures[0]}")


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


def _commit_version(repo: Path, version: str, subject: str) -> None:
    changes = project_root() / "examples" / "demo" / version
    if changes.is_dir():
        shutil.copytree(changes, repo, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    _git(repo, "add", "--all")
    author = ("-c", "user.name=Ann Developer", "-c", "user.email=ann@example.com")
    _git(repo, *author, "commit", "--quiet", f"--message={subject}")


def _git(repo: Path, *arguments: str) -> str:
    asked = ["git", "-C", str(repo), *arguments]
    run = subprocess.run(asked, check=True, capture_output=True, text=True, timeout=30, env=git.environment())
    return run.stdout.strip()


def _table(results: list[DemoRelease]) -> Table:
    table = Table(
        title="seconds by stage; sent and failed: requests during the release", box=None, padding=(0, 1, 0, 0)
    )
    for column in ("", "result", "checks", "build", "staging", "production", "sent", "failed", "live"):
        table.add_column(column, no_wrap=True)
    for result in results:
        checks = max((result.stages.get(check, 0.0) for check in ("lint", "typecheck")), default=0.0)
        tests = result.stages.get("unit", 0.0) + result.stages.get("integration", 0.0)
        table.add_row(
            result.version,
            result.release.state.replace("_", " "),
            f"{max(checks, tests):.1f}",
            f"{result.stages.get('build', 0.0):.1f}",
            *(f"{_environment_seconds(result, environment):.1f}" for environment in ("staging", "production")),
            str(result.sent),
            str(result.failed),
            "\n".join(f"{environment} {revision[:7]}" for environment, revision in result.live.items()),
        )
    return table


def _environment_seconds(result: DemoRelease, environment: str) -> float:
    """Rollout and smoke tests."""
    return result.stages.get(environment, 0.0) + result.stages.get(f"{environment} smoke", 0.0)


async def _until_interrupted(service: stack.Stack, console: Console) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    waiting = {asyncio.create_task(stop.wait()), asyncio.create_task(service.keep_running(console.print))}
    done, pending = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    for task in pending:
        task.cancel()
    for task in done:
        task.result()


def _stop_targets(directory: Path) -> None:
    from headway.system.supervisor import Supervisor

    for target in (directory / "home" / "targets").glob("*"):
        Supervisor(target).shut_down()


def _clean_up(directory: Path) -> None:
    _stop_targets(directory)
    directories.remove(directory)
