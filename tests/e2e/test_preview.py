"""Preview environments of pull requests: deployed, updated and torn down, with a stand-in of the git host."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from headway.ledger import PreviewRecord, ReleaseRecord
from headway.system.command_runner import MARK
from headway.system.ports_in_use import is_free
from headway.system.runners.sandbox import SandboxRunner
from tests.e2e.conftest import APP, GOOD, Headway, Repo, Up
from tests.standins import webhook_payloads
from tests.standins.git_hosts import REPO, Gitea, listening

pytestmark = pytest.mark.e2e

NAME = "storefront"
SETTINGS = """
app: {app}
checks: {{check: sh check.sh}}
run: exec python3 app.py
env: {{TOKEN: {{secret: true, required: [production]}}, PLAIN: {{default: said}}}}
environments:
  preview:
    target: process/preview
    env: {{TOKEN: !secret e2e-token}}
    smoke: [{{get: /health, version: true, deadline: 10s}}]
    stop_grace: 2s
    drain: 1s
  production: {{target: process/production}}
"""
TOLD = "    import os\n    return 200, {'token': os.environ.get('TOKEN'), 'plain': os.environ['PLAIN']}"
BLOCK = (
    "from headway.service.prefect.connections import connections;"
    "connections().git_hosts()['gitea'](api='%s', token='a-token').save('e2e', overwrite=True)"
)


class Shop:
    """The repository, its host, and the pull requests there. Each is a branch of its own, from where main was first."""

    def __init__(self, up: Up, place: Path, host: Gitea) -> None:
        self.host = host
        self.up = up
        self.bare = up.home / "git" / "acme" / "shop.git"
        self.bare.parent.mkdir(parents=True)
        subprocess.run(["git", "init", "--quiet", "--bare", "--initial-branch=main", self.bare], check=True)
        self.repo = Repo(place / "app", NAME, SETTINGS)
        self.repo.commit("checks", {"check.sh": "true\n", "app.py": f"def answer(path):\n{TOLD}\n{APP}"})
        self.main = self.repo.git("rev-parse", "HEAD")
        self.repo.git("push", "--quiet", str(self.bare), "main")
        self.secret = up.environment["HEADWAY_SECRET_E2E_WEBHOOK"]
        self.token = up.environment["HEADWAY_SECRET_E2E_TOKEN"]
        self._deliveries = itertools.count()

    def branch(self) -> None:
        """Where a new pull request begins."""
        self.repo.git("checkout", "--quiet", "--detach", self.main)

    def push(self, number: int, files: dict[str, str], *, fork: bool = False) -> str:
        sha = self.repo.commit(f"change {next(self._deliveries)}", files)
        self.repo.git("push", "--quiet", "--force", str(self.bare), f"HEAD:refs/pull/{number}/head")
        self.host.pulls[number] = (True, sha, fork)
        self.host.comments.setdefault(number, [])
        self.hook(number, "synchronized")
        return sha

    def close(self, number: int, *, webhook: bool = True) -> None:
        _, sha, fork = self.host.pulls[number]
        self.host.pulls[number] = (False, sha, fork)
        if webhook:
            self.hook(number, "closed")

    def hook(self, number: int, action: str) -> None:
        """As Gitea does; every delivery is another."""
        is_open, sha, fork = self.host.pulls[number]
        repository = {"clone_url": f"https://git.example/{REPO}.git", "ssh_url": f"git@git.example:{REPO}.git"}
        theirs = {name: url.replace("acme", "mallory") for name, url in repository.items()}
        pull = {
            "number": number,
            "state": "open" if is_open else "closed",
            "head": {"sha": sha, "ref": "feature", "repo": theirs if fork else repository},
            "base": {"ref": "main", "repo": repository},
            "user": {"login": "bob"},
        }
        sent = webhook_payloads.gitea("pull_request", {"action": action, "pull_request": pull}, self.secret)
        headers = {**sent.headers, "x-gitea-delivery": f"guid-{next(self._deliveries)}"}
        web = json.loads((self.up.home / "up.json").read_text())["web_url"]
        answer = httpx.post(f"{web}/hooks/gitea", content=sent.body, headers=headers, trust_env=False, timeout=10)
        assert answer.status_code == 202, answer.text

    def status(self, sha: str, context: str) -> str | None:
        mark = self.host.marks.get((sha, context))
        return mark["state"] if mark else None


@pytest.fixture(scope="module")
def shop(up: Up, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    with listening(Gitea()) as host:
        assert isinstance(host, Gitea)
        made = Shop(up, tmp_path_factory.mktemp("storefront"), host)
        headway = Headway(up)
        with headway.control() as control:
            environment = {**os.environ, "PREFECT_API_URL": control.url, "PREFECT_API_AUTH_STRING": headway.login}
        subprocess.run([sys.executable, "-c", BLOCK % host.url], env=environment, check=True, timeout=60)
        where = ["--name", NAME, "--host", "gitea", "--secret", "e2e-webhook", "--reports", "gitea/e2e"]
        headway.run("app", "add", f"https://git.example/{REPO}", *where)
        yield made
        headway.run("app", "remove", NAME)


def deployed(headway: Headway, number: int) -> PreviewRecord | None:
    found = headway.ledger.previews.get(f"{NAME}-pr-{number}")
    return found if found and found.active and found.url else None


def newest(headway: Headway, number: int, sha: str) -> ReleaseRecord | None:
    """The release of this commit, when it has ended or waits."""
    found = headway.ledger.releases.recent(f"{NAME}-pr-{number}", 1)
    return found[0] if found and found[0].sha == sha and found[0].state != "running" else None


def ask(url: str) -> dict[str, Any]:
    answer: dict[str, Any] = httpx.get(url, trust_env=False, timeout=10).raise_for_status().json()
    return answer


def left_of(number: int) -> list[psutil.Process]:
    """Processes of the preview, its proxy among them."""
    name = f"{NAME}-pr-{number}"
    return [one for one in psutil.process_iter() if name in " ".join(_words(one))]


def _words(one: psutil.Process) -> list[str]:
    try:
        return [*one.cmdline(), one.environ().get("HEADWAY_APP", "")]
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return []


def gone(headway: Headway, number: int, port: int) -> None:
    headway.until(lambda: not (headway.ledger.previews.get(f"{NAME}-pr-{number}") or pytest.fail("never there")).active)
    assert left_of(number) == []
    assert is_free("127.0.0.1", port)


def port_of(url: str | None) -> int:
    return httpx.URL(str(url)).port or 0


def test_preview_is_deployed_updated_and_torn_down(shop: Shop, headway: Headway) -> None:
    shop.branch()
    first = shop.push(1, {"n": "1"})
    up = headway.until(lambda: deployed(headway, 1))
    assert ask(up.url) == {"version": first, "token": shop.token, "plain": "said"}
    headway.until(lambda: any(up.url in text for text in shop.host.texts(1)))
    headway.until(lambda: shop.status(first, "headway/preview") == "success")
    assert shop.status(first, "headway/preview/check") == "success"
    assert shop.status(first, "headway") is None
    assert f"#1: {up.url}" in " ".join(headway.run("status").stdout.split())
    assert up.url in headway.run("previews").stdout

    second = shop.push(1, {"n": "2"})
    headway.until(lambda: ask(up.url)["version"] == second)
    headway.until(lambda: any(second[:7] in text for text in shop.host.texts(1)))
    (text,) = shop.host.texts(1)
    assert up.url in text
    assert "| check | passed |" in text

    shop.close(1)
    gone(headway, 1, port_of(up.url))
    headway.until(lambda: "torn down, the pull request was closed" in shop.host.texts(1)[0])
    assert len(shop.host.texts(1)) == 1
    assert headway.ledger.rollouts.environments(NAME) == []  # nothing of the app proper was touched


def test_failed_checks_prevent_the_preview_and_are_reported(shop: Shop, headway: Headway) -> None:
    shop.branch()
    sha = shop.push(2, {"check.sh": "echo '@everybody `fails` |here|'; exit 3\n"})
    headway.until(lambda: shop.status(sha, "headway/preview") == "failure")
    assert shop.status(sha, "headway/preview/check") == "failure"
    headway.until(lambda: any("nothing is deployed" in text for text in shop.host.texts(2)))
    assert ": @everybody 'fails' ¦here¦`" in shop.host.texts(2)[0]
    assert headway.ledger.rollouts.by_release(headway.ledger.releases.recent(f"{NAME}-pr-2", 1)[0].id) == []


def test_fork_waits_for_an_approval_and_gets_no_secrets(shop: Shop, headway: Headway) -> None:
    if refusal := SandboxRunner().missing():
        pytest.skip(f"{refusal.what}: {refusal.hint}")
    shop.branch()
    settings = SETTINGS.format(app=NAME).replace("sh check.sh", "touch changed").replace("process/", "docker/")
    files = {"check.sh": f"env\nls {shop.up.home} || true\n", "headway.yaml": settings}
    sha = shop.push(3, files, fork=True)
    release = headway.until(lambda: newest(headway, 3, sha))
    assert release.state == "waiting"
    printed = shop.up.home / "output" / release.id / "check.log"
    assert not printed.exists()
    assert "is from a fork" in headway.run("status", NAME).stdout

    headway.run("approve", release.name)
    up = headway.until(lambda: deployed(headway, 3))
    assert ask(up.url) == {"version": sha, "token": None, "plain": "said"}
    told = printed.read_text()
    assert "ledger.db" not in told  # it ran in the sandbox
    assert shop.token not in told
    names = {line.partition("=")[0] for line in told.splitlines()} - {MARK}  # by which Headway finds its processes
    assert not [name for name in names if name.startswith(("HEADWAY_", "PREFECT_", "DOCKER_"))]

    shop.close(3)  # and open again: the approval is still valid
    gone(headway, 3, port_of(up.url))
    shop.host.pulls[3] = (True, sha, True)
    shop.hook(3, "reopened")
    headway.until(lambda: deployed(headway, 3))


def test_pull_request_closed_during_its_deploy_is_torn_down(shop: Shop, headway: Headway) -> None:
    shop.branch()
    sha = shop.push(4, {"app.py": f"import time\ntime.sleep(3)\n{GOOD}{APP}"})
    name = f"{NAME}-pr-4"
    headway.until(lambda: headway.ledger.rollouts.unfinished(name))
    shop.close(4, webhook=False)
    release = headway.until(lambda: newest(headway, 4, sha))
    assert (release.state, release.reason) == ("superseded", "pull request #4 was closed meanwhile")
    assert not headway.ledger.previews.get(name).active  # type: ignore[union-attr]  # it is known
    assert left_of(4) == []


def test_expired_preview_is_torn_down(shop: Shop, headway: Headway) -> None:
    shop.branch()
    settings = SETTINGS.format(app=NAME).replace("    stop_grace", "    ttl: 2s\n    stop_grace")
    shop.push(5, {"headway.yaml": settings})
    up = headway.until(lambda: deployed(headway, 5))
    gone(headway, 5, port_of(up.url))
    preview = headway.ledger.previews.get(f"{NAME}-pr-5")
    assert preview
    assert preview.reason.startswith("it expired")
