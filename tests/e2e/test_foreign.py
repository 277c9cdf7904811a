"""Third-party applications from package registries, with only a headway.yaml added."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path

import httpx
import pytest
from prefect.blocks.system import Secret
from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings

from tests.e2e.conftest import Headway, Repo

pytestmark = pytest.mark.e2e

EXAMPLES = Path(__file__).parents[2] / "examples"
PYPISERVER = {
    "2.4.0": "0dc0e8300c12c855253b36b34beebfc28305c2c9e39151540a2886b641d4b456",
    "2.4.1": "45f116d0bff6aafcaed002cfad48a6832e62a82393e3a9b447d5c41a0e310fff",
}
TIDDLYWIKI = {
    "5.3.8": "b83a9d8c5c08aa9d9ffd1a4c79116fbaee995eed1e8574d4f69bec6b598b8116",
    "5.4.1": "8d7f05b5376c4336feff181be45271b31bea95ba4bbb3b696aa69558e8477722",
}
PASSWORD = "correct horse battery"
HASHED = "ann:{SHA}mN7MYuzjmaIu0w1JDvMzvn/ec4U="  # of that password, as htpasswd -s writes it
DOWNLOAD = 300.0  # seconds
RELEASE = 600.0  # seconds: their own tests are among it, and what they install


def fetched(place: Path, versions: dict[str, str], command: Callable[[str], Sequence[str]]) -> list[Path]:
    """The archive of each version, checked; without a registry the test is skipped."""
    archives = []
    for version, digest in versions.items():
        (place / version).mkdir()
        asked, here = command(version), place / version
        done = subprocess.run(asked, cwd=here, capture_output=True, text=True, timeout=DOWNLOAD, check=False)
        if done.returncode:
            pytest.skip(f"not to be had from the registry: {(done.stderr or done.stdout).strip()[-300:]}")
        (archive,) = (place / version).iterdir()
        assert hashlib.sha256(archive.read_bytes()).hexdigest() == digest
        archives.append(archive)
    return archives


def from_pypi(place: Path, name: str, versions: dict[str, str]) -> list[Path]:
    asked = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-binary", ":all:"]
    return fetched(place, versions, lambda version: [*asked, f"{name}=={version}"])


def from_npm(place: Path, name: str, versions: dict[str, str], *, node: int) -> list[Path]:
    if shutil.which("npm") is None:
        pytest.skip("no npm on this machine: apt-get install npm")
    here = subprocess.run(["node", "--version"], capture_output=True, text=True, check=True).stdout.strip()
    if int(here.removeprefix("v").partition(".")[0]) < node:
        pytest.skip(f"{name} needs Node {node}, this is {here}")
    return fetched(place, versions, lambda version: ["npm", "pack", "--silent", f"{name}@{version}"])


class Foreign(Repo):
    """A repository with what an archive has in it, and a headway.yaml."""

    def __init__(self, path: Path, app: str, data: Path) -> None:
        self.path = path
        self.app = app
        self.settings = (EXAMPLES / app / "headway.yaml").read_text().replace("/srv", str(data))
        path.mkdir()
        self.git("init", "--quiet", "--initial-branch=main")

    def becomes(self, archive: Path) -> str:
        for old in self.path.iterdir():
            if old.name != ".git":
                shutil.rmtree(old) if old.is_dir() else old.unlink()
        with tarfile.open(archive) as tar:
            inside = archive.parent / "inside"
            tar.extractall(inside, filter="data")
        (top,) = inside.iterdir()
        shutil.copytree(top, self.path, dirs_exist_ok=True, symlinks=True)
        return self.commit(archive.name, {"headway.yaml": self.settings})

    def configure(self, good: str, bad: str) -> None:
        """Commit other environment variables for production only, where the good version is live last."""
        before, found, after = self.settings.rpartition(good)
        assert found
        self.commit(bad, {"headway.yaml": f"{before}{bad}{after}"})


def keep_secrets(headway: Headway, app: str, **values: str) -> None:
    """Create a Secret block for each environment, as a user would in the UI."""
    server = {PREFECT_API_URL: headway.api_url, PREFECT_API_AUTH_STRING: headway.login}
    with temporary_settings(server):
        for environment in ("staging", "production"):
            Secret(value=values).save(f"{app}-{environment}", overwrite=True)


def page(url: str) -> str:
    answer = httpx.get(url, trust_env=False)
    assert answer.status_code == 200, answer.text
    return answer.text


def test_a_package_index_from_pypi(headway: Headway, tmp_path: Path) -> None:
    older, newer = from_pypi(tmp_path, "pypiserver", PYPISERVER)
    headway.patience = RELEASE
    keep_secrets(headway, "pypiserver", users=HASHED)
    repo = Foreign(tmp_path / "app", "pypiserver", tmp_path)
    repo.becomes(older)
    told = headway.release(repo.path)
    details = {stage["name"]: stage["detail"] for stage in told["stages"]}
    assert details["tests"].endswith(" tests passed")
    assert details["staging smoke"] == details["production smoke"] == "2 probes"
    url = headway.url("pypiserver", "production")
    assert "2.4.0" in page(url)
    form = {":action": "file_upload", "name": "pypiserver", "version": "2.4.0"}
    package = {"content": (older.name, older.read_bytes())}
    assert httpx.post(url, data=form, files=package, auth=("ann", PASSWORD), trust_env=False).status_code == 200

    repo.becomes(newer)
    told = headway.release(repo.path)
    assert told["users"]["failed"] == 0
    assert "2.4.1" in page(url)
    assert older.name in page(f"{url}/simple/pypiserver/")
    live = headway.ledger.rollouts.live("pypiserver", "production")

    # The env schema refuses some values before the start; others only fail in the app, before it gets user requests.
    repo.configure("DATA: ", "LOGIN_TO: uptade, DATA: ")
    refused = headway.run("release", repo.path, code=2)
    assert "LOGIN_TO: expected one of update, " in refused.stderr
    repo.configure("DATA: ", "HASH: sha257, DATA: ")
    told = headway.release(repo.path, code=1)
    assert told["state"] == "rolled_back"
    assert "sha257" in told["reason"]
    assert next(stage["state"] for stage in told["stages"] if stage["name"] == "tests") == "cached"
    assert headway.ledger.rollouts.live("pypiserver", "production") == live
    assert "2.4.1" in page(url)


def test_a_wiki_from_npm(headway: Headway, tmp_path: Path) -> None:
    older, newer = from_npm(tmp_path, "tiddlywiki", TIDDLYWIKI, node=20)
    headway.patience = RELEASE
    keep_secrets(headway, "tiddlywiki", password=PASSWORD)
    repo = Foreign(tmp_path / "app", "tiddlywiki", tmp_path)
    repo.becomes(older)
    headway.release(repo.path)
    url = headway.url("tiddlywiki", "production")
    assert json.loads(page(f"{url}/status"))["tiddlywiki_version"] == "5.3.8"
    written = {"title": "Hello", "text": "from before"}
    with httpx.Client(base_url=url, headers={"X-Requested-With": "TiddlyWiki"}, trust_env=False) as client:
        where = "/recipes/default/tiddlers/Hello"
        assert client.put(where, json=written).status_code == 401
        assert client.put(where, json=written, auth=("writer", PASSWORD)).status_code == 204
    headway.until(lambda: list((tmp_path / "tiddlywiki" / "tiddlers").glob("Hello*")))  # it writes a little later

    repo.becomes(newer)
    told = headway.release(repo.path)
    assert told["users"]["failed"] == 0
    assert json.loads(page(f"{url}/status"))["tiddlywiki_version"] == "5.4.1"
    assert "from before" in page(f"{url}{where}")

    repo.configure("WIKI: ", "READERS: everybody, WIKI: ")
    refused = headway.run("release", repo.path, code=2)
    assert "READERS: expected one of (anon), (authenticated)" in refused.stderr
