"""A virtual environment with Headway: installed, started, upgraded in place.

Nothing here imports Headway. The tests see an installation as its users do: commands, ports, files, processes.
"""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tarfile
import threading
import time
import tomllib
from collections import Counter
from collections.abc import Callable
from contextlib import closing, suppress
from io import BytesIO
from pathlib import Path
from typing import Any, TypeVar

import httpx
import psutil
import pytest

from tests.standins.ports import free_port

ROOT = Path(__file__).parents[2]
START = 240.0  # seconds until every service of a `headway up` is healthy; takes 10 on an idle machine
PATIENCE = 240.0  # seconds for a command or for something to happen, on a busy machine
SECRET = "a secret of the tests"

T = TypeVar("T")


def last_release(place: Path) -> tuple[str, Path]:
    """Version and source tree of the last release, unpacked to `place`. Skips the test without its commit."""
    named = tomllib.loads((ROOT / "tests/upgrade/last_release.toml").read_text())
    commit = named["commit"]
    packed = subprocess.run(["git", "archive", commit], cwd=ROOT, capture_output=True, timeout=60, check=False)
    if packed.returncode:
        pytest.skip(f"this checkout does not have the last release, {commit}: {packed.stderr.decode().strip()}")
    with tarfile.open(fileobj=BytesIO(packed.stdout)) as archive:
        archive.extractall(place, filter="data")
    return named["version"], place


def until(what: Callable[[], T | None], seconds: float = PATIENCE) -> T:
    """The first true answer of `what`; fails after `seconds`."""
    end = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < end, f"did not happen within {seconds:g} s"
        time.sleep(0.2)
    return found


class Installation:
    """A virtual environment, HEADWAY_HOME and two ports. `place` has a short path: Unix sockets have no room."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.home = place / "home"
        self.home.mkdir()
        self._bin = place / "venv" / "bin"
        self._ports = free_port(), free_port()
        ours = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "HEADWAY_"))}
        ours.pop("PYTHONDONTWRITEBYTECODE", None)  # every process would compile Prefect again
        ours.pop("PYTHONPATH", None)
        ours.pop("VIRTUAL_ENV", None)
        # What git finds at https://git.example/ is on this machine.
        git = {"COUNT": "1", "KEY_0": f"url.{place}/git/.insteadOf", "VALUE_0": "https://git.example/"}
        self.environment = {
            **ours,
            **{f"GIT_CONFIG_{name}": value for name, value in git.items()},
            "HEADWAY_HOME": str(self.home),
            "HEADWAY_SECRET_UPGRADE": SECRET,  # of the apps
            "HEADWAY_SECRET_HOOK": SECRET,  # signs webhooks: an app may not name that one
            "NO_COLOR": "1",
            # Prefect's server on SQLite answers 503 while another writes; the default gives up on a busy machine.
            "PREFECT_CLIENT_MAX_RETRIES": "20",
        }

    # --- installing --------------------------------------------------------------------------------------------

    def install(self, tree: Path) -> None:
        """The wheel of this source tree, and the dependencies that its uv.lock names, over what is there."""
        uv, built = _uv(), self.place / "wheels"
        shutil.rmtree(built, ignore_errors=True)
        _run(sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", built, cwd=tree)
        locked = ["--frozen", "--no-dev", "--no-emit-project", "--no-hashes", "--quiet"]
        _run(uv, "export", *locked, "--output-file", built / "requirements.txt", cwd=tree)
        if not self._bin.exists():
            _run(uv, "venv", "--quiet", "--python", sys.executable, self.place / "venv", cwd=self.place)
        (wheel,) = built.glob("*.whl")
        into = ["--python", str(self._bin / "python"), "--no-deps", "--reinstall-package", "headway"]
        into += ["--compile-bytecode"]  # else each of five services compiles Prefect for itself
        _run(uv, "pip", "install", "--quiet", *into, "-r", built / "requirements.txt", wheel, cwd=self.place)

    # --- the service -------------------------------------------------------------------------------------------

    def start(self) -> None:
        """`headway up`; returns when it is ready."""
        log = self.home / "up.log"
        with log.open("w") as output:
            self._up = subprocess.Popen(
                [self._bin / "headway", "up", "--port", str(self._ports[0]), "--prefect-port", str(self._ports[1])],
                env=self.environment,
                cwd=self.place,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        end = time.monotonic() + START
        while "Ctrl-C" not in log.read_text():
            assert self._up.poll() is None, log.read_text()
            assert time.monotonic() < end, log.read_text()
            time.sleep(0.1)

    def stop(self) -> int:
        """Ctrl-C; returns the exit code."""
        self._up.send_signal(signal.SIGINT)
        return self._up.wait(90)

    def end(self) -> list[str]:
        """Stop everything, the apps too; returns the command lines of what had to be killed."""
        if hasattr(self, "_up") and self._up.poll() is None:
            self.stop()
        supervisors = self.supervisors()
        for one in supervisors:
            one.terminate()  # ends what it supervises
        psutil.wait_procs(supervisors, timeout=60)
        left = [one for one in psutil.process_iter() if self._is_ours(one)]
        said = [" ".join(one.cmdline()) for one in left if one.is_running()]
        for one in left:
            with suppress(psutil.NoSuchProcess):
                one.kill()
        psutil.wait_procs(left, timeout=60)
        return said

    # --- asking ------------------------------------------------------------------------------------------------

    def run(self, *arguments: str | Path, code: int = 0) -> str:
        """A command; returns its standard output."""
        return self.begin(*arguments).done(code)

    def begin(self, *arguments: str | Path) -> Command:
        """A command that goes on meanwhile."""
        return Command(
            subprocess.Popen(
                [self._bin / "headway", *map(str, arguments)],
                env=self.environment,
                cwd=self.place,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )

    def status(self, app: str) -> dict[str, Any]:
        (found,) = json.loads(self.run("status", app, "--json"))
        return dict(found)

    def live(self, app: str, environment: str) -> str | None:
        """Id of the revision that is live."""
        found: list[tuple[int, str | None]] = self.rows(
            "SELECT max(sequence), json_extract(plan, '$.new') FROM rollouts "
            "WHERE app = ? AND environment = ? AND state = 'done'",
            app,
            environment,
        )
        return found[0][1]

    def rows(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        """Of the ledger's database."""
        with closing(sqlite3.connect(self.home / "ledger.db", timeout=30)) as db, db:
            return db.execute(query, values).fetchall()

    def prefect(self, path: str, body: dict[str, Any] | None = None) -> Any:
        """A GET of Prefect's API, or a POST of this body."""
        url = f"http://127.0.0.1:{self._ports[1]}/api/{path}"
        method = "GET" if body is None else "POST"

        def answered() -> httpx.Response | None:
            answer = httpx.request(method, url, json=body, auth=self._login, trust_env=False, timeout=30)
            return None if answer.status_code == httpx.codes.SERVICE_UNAVAILABLE else answer  # another one writes

        answer = until(answered)
        assert answer.is_success, answer.text
        return answer.json()

    @property
    def _login(self) -> tuple[str, str] | None:
        """Prefect's server asks for one since 0.2."""
        file = self.home / "prefect-credential"
        if not file.exists():
            return None
        user, _, password = file.read_text().partition(":")
        return user, password

    def start_release(self, repository: Path, ref: str) -> None:
        """As the form in Prefect's UI does: the run finds out itself which commit the ref names."""
        deployment = self.prefect("deployments/name/release/main")["id"]
        asked = {"parameters": {"repo": str(repository), "ref": ref}, "state": {"type": "SCHEDULED"}}
        self.prefect(f"deployments/{deployment}/create_flow_run", asked)

    def deliver(self, body: bytes, headers: dict[str, str]) -> None:
        """A webhook of a Gitea."""
        url = f"http://127.0.0.1:{self._ports[0]}/hooks/gitea"
        answer = httpx.post(url, content=body, headers=headers, trust_env=False, timeout=30)
        assert answer.status_code == httpx.codes.ACCEPTED, answer.text

    # --- looking at processes ----------------------------------------------------------------------------------

    def port(self, app: str, environment: str) -> int:
        state = self.home / "targets" / environment / "apps" / app / "state.json"
        return int(json.loads(state.read_text())["port"])

    def instances(self, app: str, environment: str) -> list[psutil.Process]:
        """Processes of the app there."""
        wanted = {"HEADWAY_APP": app, "HEADWAY_ENVIRONMENT": environment}
        return [one for one in psutil.process_iter() if wanted.items() <= _environment(one).items()]

    def versions(self, app: str, environment: str) -> Counter[str]:
        """Commit -> number of its instances."""
        return Counter(_environment(one)["HEADWAY_VERSION"] for one in self.instances(app, environment))

    def supervisors(self) -> list[psutil.Process]:
        return [one for one in psutil.process_iter() if self._is_ours(one) and "supervisord" in " ".join(_words(one))]

    def proxies(self) -> list[psutil.Process]:
        """The Envoys."""
        return [
            one
            for one in psutil.process_iter()
            if any(str(self.home) in word and word.endswith("bootstrap.json") for word in _words(one))
            and "envoy" in _words(one)[0]
        ]

    def _is_ours(self, one: psutil.Process) -> bool:
        place = str(self.place)
        return any(place in word for word in (*_words(one), *_environment(one).values()))


class Command:
    """A command that has been started."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def done(self, code: int = 0) -> str:
        """Wait for its end; returns its standard output."""
        said, errors = self._process.communicate(timeout=PATIENCE)
        assert self._process.returncode == code, f"exit {self._process.returncode}: {said}\n{errors}"
        return said

    def json(self, code: int = 0) -> Any:
        return json.loads(self.done(code))


class Users(threading.Thread):
    """Requests to one port, one after the other, until they are stopped."""

    PAUSE = 0.05  # seconds

    def __init__(self, port: int) -> None:
        super().__init__(daemon=True)
        self._port = port
        self._over = threading.Event()
        self.answers: Counter[str] = Counter()
        """Version -> requests that it answered."""
        self.failures: list[str] = []

    def __enter__(self) -> Users:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self.join(60)

    def run(self) -> None:
        while not self._over.wait(self.PAUSE):
            try:
                connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=60)
                with closing(connection):
                    connection.request("GET", "/")
                    answer = connection.getresponse()
                    said = answer.read()
                if answer.status == httpx.codes.OK:
                    self.answers[json.loads(said)["version"]] += 1
                else:
                    self.failures.append(f"{answer.status} {said!r}")
            except (OSError, http.client.HTTPException) as error:
                self.failures.append(repr(error))


def _environment(process: psutil.Process) -> dict[str, str]:
    try:
        return process.environ()
    except (psutil.Error, OSError):
        return {}


def _words(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline() or [""]
    except psutil.Error:
        return [""]


def _uv() -> str:
    """The one on the PATH, or the one that `make` put into the checkout."""
    found = shutil.which("uv", path=os.pathsep.join([os.environ.get("PATH", ""), str(ROOT / ".uv" / "bin")]))
    return found or pytest.fail("no uv on the PATH or in .uv/bin: `make` installs it")


def _run(*command: str | Path, cwd: Path) -> None:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, f"{' '.join(map(str, command))}: {done.stdout}{done.stderr}"
