"""`git push` to a real bare repository ends in a release."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from headway.ledger import Ledger
from tests.e2e.conftest import Headway, Repo

pytestmark = pytest.mark.e2e


class Server:
    """A bare repository with the hook that `headway app hook` prints."""

    def __init__(self, place: Path, headway: Headway, repo: Repo) -> None:
        self.path = place / "server" / "shop.git"
        self.headway = headway
        self.repo = repo
        subprocess.run(["git", "init", "--quiet", "--bare", "--initial-branch=main", self.path], check=True)
        headway.run("app", "add", self.path, "--name", repo.app, "--secret", "e2e-webhook")
        hook = self.path / "hooks" / "post-receive"
        hook.write_text(headway.run("app", "hook", repo.app, headway.web_url).stdout)
        hook.chmod(0o755)
        (hook.parent / "headway-secret").write_text(headway.environment["HEADWAY_SECRET_E2E_WEBHOOK"] + "\n")
        repo.git("remote", "add", "origin", str(self.path))

    def push(self, *refs: str) -> str:
        done = subprocess.run(
            ["git", "push", "--force", "origin", *refs], cwd=self.repo.path, check=True, capture_output=True, text=True
        )
        return done.stderr

    def states(self, ledger: Ledger) -> list[str]:
        """Of the app's releases, the newest first."""
        return [release.state for release in ledger.releases(self.repo.app)]


@pytest.fixture
def server(tmp_path: Path, headway: Headway, repo: Repo) -> Server:
    return Server(tmp_path, headway, repo)


def test_git_push_is_a_release(server: Server, headway: Headway, repo: Repo) -> None:
    said = server.push("main")
    assert '{"stored":1,"ignored":[]}' in said

    headway.until(lambda: server.states(headway.ledger) == ["succeeded"])

    (release,) = headway.ledger.releases(repo.app)
    assert release.sha == repo.git("rev-parse", "HEAD")
    assert release.requested_by.endswith("at generic")
    assert "started" in headway.run("app", "events", repo.app).stdout
