"""Git repositories of small apps, as the tests of an upgrade release them."""

from __future__ import annotations

import hashlib
import hmac
import itertools
import json
import subprocess
from pathlib import Path
from typing import Any

from tests.upgrade.installation import SECRET

APP = """
import http.server, json, os, signal, threading

class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        body = json.dumps({"version": os.environ["HEADWAY_VERSION"]}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass

server = http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler)
signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
print("listening, the token is", os.environ.get("TOKEN"), flush=True)
server.serve_forever()
"""

# Applies the files in migrations/ that the database does not have yet, in their order.
MIGRATE = """
import os, pathlib, sqlite3

database = sqlite3.connect(os.environ["DATABASE"])
(done,) = database.execute("PRAGMA user_version").fetchone()
for number, file in enumerate(sorted(pathlib.Path("migrations").glob("*.sql")), 1):
    if number > done:
        database.executescript(file.read_text() + f"; PRAGMA user_version = {number};")
"""


class Repository:
    """An app's repository; every commit is a version of it."""

    def __init__(self, path: Path, settings: str) -> None:
        self.path = path
        path.mkdir(parents=True)
        self.git("init", "--quiet", "--initial-branch=main")
        self.commit({"headway.yaml": settings, "app.py": APP})

    def git(self, *arguments: str | Path) -> str:
        who = ("-c", "user.name=Ann", "-c", "user.email=ann@example.com")
        command = ["git", *who, *map(str, arguments)]
        return subprocess.run(command, cwd=self.path, check=True, capture_output=True, text=True).stdout.strip()

    def commit(self, files: dict[str, str] | None = None) -> str:
        for name, content in (files or {}).items():
            file = self.path / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(content)
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--message", "a change")
        return self.head

    @property
    def head(self) -> str:
        return self.git("rev-parse", "HEAD")


class PullRequest:
    """Number 1 of a repository at https://git.example/, and the webhooks that a Gitea there sends of it."""

    NUMBER = 1

    def __init__(self, repository: Repository, bare: Path) -> None:
        self.url = f"https://git.example/acme/{bare.name}"
        self._repository = repository
        self._bare = bare
        self._deliveries = itertools.count()
        bare.parent.mkdir(parents=True)
        repository.git("init", "--quiet", "--bare", "--initial-branch=main", bare)
        repository.git("push", "--quiet", bare, "main")

    def push(self) -> str:
        """Another commit of the pull request."""
        sha = self._repository.commit()
        self._repository.git("push", "--quiet", "--force", self._bare, f"HEAD:refs/pull/{self.NUMBER}/head")
        return sha

    def webhook(self, action: str) -> tuple[bytes, dict[str, str]]:
        """Body and headers of a delivery."""
        repository = {"clone_url": self.url, "ssh_url": self.url.replace("https://", "git@").replace("/", ":", 1)}
        pull: dict[str, Any] = {
            "number": self.NUMBER,
            "state": "closed" if action == "closed" else "open",
            "head": {"sha": self._repository.head, "ref": "feature", "repo": repository},
            "base": {"ref": "main", "repo": repository},
            "user": {"login": "bob"},
        }
        body = json.dumps({"action": action, "pull_request": pull}).encode()
        headers = {
            "x-gitea-event": "pull_request",
            "x-gitea-delivery": f"guid-{next(self._deliveries)}",
            "x-gitea-signature": hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest(),
        }
        return body, headers
