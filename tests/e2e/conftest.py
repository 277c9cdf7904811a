"""One `headway up` for all end-to-end tests: real Prefect server, worker, Envoy and app processes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from filelock import FileLock

from headway.domain.principal import Principal
from headway.ledger import Ledger
from headway.service.prefect.client import Control
from headway.system import directories
from headway.system.os_user import os_user
from headway.system.supervisor import Supervisor
from tests.standins.ports import free_port
from tests.standins.prefect_server import errors_in

HEADWAY = [str(Path(sys.executable).with_name("headway"))]
START = 120.0  # seconds
ME = os_user().name  # who runs the command line, as Headway records it

APP = """
import http.server, json, os, signal, sys, threading, time

class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self):
        status, body = answer(self.path)
        body = json.dumps({"version": os.environ["HEADWAY_VERSION"]} | body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass

class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

server = Server((os.environ.get("LISTEN", "127.0.0.1"), int(os.environ["PORT"])), Handler)
signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
print("listening on", os.environ["PORT"], flush=True)
server.serve_forever()
"""
GOOD = "def answer(path):\n    return 200, {}\n"
SETTINGS = """
app: {app}
checks: {{check: "true"}}
run: exec python3 app.py
environments:
  staging: {{target: process/staging, smoke: [{{get: /health, version: true, deadline: 5s}}]}}
  production:
    target: process/production
    instances: 2
    stop_grace: 2s
    drain: 3s
"""


LONGEST = (
    "test_upgrade.py",
    "test_release.py",
    "test_faults.py",
    "test_containers.py",
    "test_foreign.py",
    "test_service.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the longest files first, so that none of them starts when the other workers are done."""
    items.sort(key=lambda item: LONGEST.index(item.path.name) if item.path.name in LONGEST else len(LONGEST))


class Headway:
    """The command line for the running service, and the service's ledger."""

    patience = 120.0  # seconds for a command

    def __init__(self, up: Up) -> None:
        self.home = up.home
        self.environment = up.environment
        self.program = up.program
        self.ledger = Ledger.open(up.environment.get("HEADWAY_LEDGER_URL", f"sqlite:///{up.home / 'ledger.db'}"))

    def run(
        self, *arguments: str | Path, code: int | None = 0, cwd: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [*self.program, *map(str, arguments)],
            env=self.environment,
            cwd=cwd or self.home,
            capture_output=True,
            text=True,
            timeout=self.patience,
            check=False,
        )
        if code is not None:
            assert done.returncode == code, f"exit {done.returncode}: {done.stdout}\n{done.stderr}"
        return done

    def release(self, repo: Path, *arguments: str, code: int = 0) -> dict[str, Any]:
        result: dict[str, Any] = json.loads(self.run("release", repo, "--json", *arguments, code=code).stdout)
        return result

    def start(self, repo: Path, **parameters: Any) -> str:
        with self.control() as control:
            return control.start("release/main", {"repo": str(repo), "ref": "main", "by": "test", **parameters})

    def press(self, flow_run_id: str, who: str, **answer: str) -> None:
        """Answer the form of a suspended run in the Prefect UI, as a user who is signed in there."""
        session = self.ledger.sessions.begin(Principal(kind="user", name=who))
        given = httpx.post(
            f"{self.ui_url}/api/flow_runs/{flow_run_id}/resume",
            json={"run_input": answer},
            cookies={"headway-session": session},
            headers={"origin": self.web_url},
            timeout=60,
            trust_env=False,
        )
        assert given.json()["status"] == "ACCEPT", given.text

    def control(self) -> Control:
        return Control(self.api_url, login=self.login)

    @property
    def api_url(self) -> str:
        """Prefect's API, for Headway's own services."""
        return str(json.loads((self.home / "up.json").read_text())["api_url"])

    @property
    def login(self) -> str:
        """The credential of the Prefect server."""
        return (self.home / "prefect-credential").read_text()

    @property
    def prefect(self) -> httpx.Client:
        """For requests to the Prefect API, as Headway's own services send them."""
        user, _, password = self.login.partition(":")
        return httpx.Client(base_url=self.api_url, auth=(user, password), trust_env=False)

    @property
    def ui_url(self) -> str:
        """Prefect's UI behind the sign-in."""
        return str(json.loads((self.home / "up.json").read_text())["ui_url"])

    @property
    def web_url(self) -> str:
        return str(json.loads((self.home / "up.json").read_text())["web_url"])

    def url(self, app: str, environment: str) -> str:
        state = json.loads((self.home / "targets" / environment / "apps" / app / "state.json").read_text())
        return f"http://127.0.0.1:{state['port']}"

    def until(self, what: Callable[[], Any], seconds: float = 60.0) -> Any:
        """Wait for the first true result of `what`, and return it."""
        end = time.monotonic() + seconds
        while not (found := what()):
            assert time.monotonic() < end, f"did not happen within {seconds:g} s; logs in {self.home / 'logs'}"
            time.sleep(0.05)
        return found


class Repo:
    """An app's repository; every commit is a version of it."""

    def __init__(self, path: Path, app: str, settings: str = SETTINGS) -> None:
        self.path = path
        self.app = app
        path.mkdir()
        self.git("init", "--quiet", "--initial-branch=main")
        self.commit("first", {"headway.yaml": settings.format(app=app), "app.py": GOOD + APP})

    def git(self, *arguments: str) -> str:
        who = ("-c", "user.name=Ann", "-c", "user.email=ann@example.com")
        asked = ["git", *who, *arguments]
        return subprocess.run(asked, cwd=self.path, check=True, capture_output=True, text=True).stdout.strip()

    def commit(self, subject: str, files: dict[str, str]) -> str:
        for name, content in files.items():
            (self.path / name).write_text(content)
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--message", subject)
        return self.git("rev-parse", "HEAD")

    def behave(self, answer: str, subject: str = "change") -> str:
        """Commit a version whose `answer(path)` has this body."""
        return self.commit(subject, {"app.py": f"def answer(path):\n{answer}\n{APP}"})


class Up:
    """A `headway up` for one test, which can be stopped and started again."""

    program = HEADWAY
    breaks_the_server = False
    """A test that takes the disk, the network or the processes from Prefect's server sets it."""

    def __init__(self, home: Path, **environment: str) -> None:
        ours = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "HEADWAY_"))}
        self.home = home
        signs = {"HEADWAY_SECRET_E2E_WEBHOOK": "a secret of the tests", "HEADWAY_SECRET_E2E_TOKEN": "a token of an app"}
        # What git finds at https://git.example/ is on this machine.
        elsewhere = {"COUNT": "1", "KEY_0": f"url.{home}/git/.insteadOf", "VALUE_0": "https://git.example/"}
        signs |= {f"GIT_CONFIG_{name}": value for name, value in elsewhere.items()}
        self.environment = {**ours, "HEADWAY_HOME": str(home), "NO_COLOR": "1", **signs, **environment}
        self.log = home / "up.log"
        self.folder = home / "folder"
        self._ports = free_port(), free_port()

    def with_database(self) -> Up:
        """Start with a migrated Prefect database: migrating takes 10 s of CPU time."""
        (self.home / "prefect").mkdir()
        shutil.copy(migrated_database(), self.home / "prefect" / "prefect.db")
        return self

    def start(self, until: str = "Ctrl-C") -> None:
        """Start it, and wait until it has printed these words: the default are the last ones of a start.

        It starts in a folder whose files have the names of modules of Headway, Prefect, their libraries and Python, and
        the names of files with settings of Prefect.
        """
        self.folder.mkdir(exist_ok=True)
        for name in ("blocks", "click", "flows", "headway", "json", "prefect", "supervisor", "tasks", "uvicorn"):
            (self.folder / f"{name}.py").write_text("raise SystemExit(f'imported: {__file__}')\n")
        (self.folder / ".env").write_text("PREFECT_SERVER_UI_ENABLED=false\n")
        (self.folder / "prefect.toml").write_text("[server.ui]\nenabled = false\n")
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [*self.program, "up", "--port", str(self._ports[0]), "--prefect-port", str(self._ports[1])],
                env=self.environment,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        end = time.monotonic() + START
        while until not in self.log.read_text():
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < end, self.log.read_text()
            time.sleep(0.2)

    def stop(self, number: int = signal.SIGINT) -> int:
        """Returns the exit code."""
        self.process.send_signal(number)
        return self.process.wait(90)

    def child(self, words: str) -> psutil.Process:
        """The service whose command line has these words."""
        children = psutil.Process(self.process.pid).children()
        return next(child for child in children if words in " ".join(child.cmdline()))

    @contextmanager
    def running(self) -> Iterator[None]:
        try:
            self.start()
            yield
        finally:
            self.stop()
            self.end_targets()
        errors = [] if self.breaks_the_server else errors_in(self.home / "logs" / "server.log")
        assert not errors, "\n".join(errors)

    def end_targets(self) -> None:
        """End what the tests have released.

        The sweep may start a supervisor again before its files are gone, as it should: one without files is of no use.
        """
        for target in (self.home / "targets").glob("*"):
            for _ in range(10):
                Supervisor(target).shut_down()
                with suppress(OSError):  # a process still writes there
                    directories.remove(target)
                if not target.exists() and not Supervisor(target).running:
                    break


def migrated_database() -> Path:
    """A new database of Prefect's server, made once for all workers of this test run."""
    made = Path(tempfile.gettempdir()) / "prefect-template" / "prefect.db"
    with FileLock(made.parent.with_suffix(".lock")):
        if not made.exists():
            part = made.parent.with_suffix(".part")
            database = {
                "PREFECT_HOME": str(part),
                "PREFECT_API_DATABASE_CONNECTION_URL": f"sqlite+aiosqlite:///{part / made.name}",
            }
            part.mkdir()
            subprocess.run(
                [Path(sys.executable).with_name("prefect"), "server", "database", "upgrade", "--yes"],
                env={**os.environ, **database},
                check=True,
                capture_output=True,
                timeout=START,
            )
            part.rename(made.parent)
    return made


@pytest.fixture(scope="session")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    service = Up(tmp_path_factory.mktemp("headway")).with_database()
    with service.running():
        yield service


@pytest.fixture
def headway(up: Up) -> Iterator[Headway]:
    """Stops what the test has released."""
    yield Headway(up)
    up.end_targets()


@pytest.fixture
def repo(tmp_path: Path, request: pytest.FixtureRequest) -> Repo:
    """A repository with one good commit; the app is named after the test."""
    name = request.node.name.removeprefix("test_").replace("_", "-")
    return Repo(tmp_path / "app", name[:40].strip("-"))
