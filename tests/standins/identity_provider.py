"""npm's `oidc-provider`, which is certified by the OpenID Foundation, as a process; and a browser for its forms."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from html import unescape
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import httpx
import pytest

from headway.service.identity_provider import IdentityProvider
from tests.standins.ports import free_port

__all__ = ["CLIENT", "Provider", "follow", "installed"]

SOURCE = Path(__file__).parent / "oidc_provider"
INSTALLING = 120.0  # seconds
STARTING = 60.0  # seconds
STEPS = 12  # redirects and forms of one sign-in, at most
CLIENT = {"client_id": "headway", "client_secret": "a secret of the client"}


def installed(place: Path) -> Path:
    """The provider's program, with the packages of package-lock.json. Skips the test where they cannot be had."""
    if not shutil.which("node") or not shutil.which("npm"):
        pytest.skip("node and npm are not installed: the identity provider of this test runs on them")
    for file in SOURCE.iterdir():
        shutil.copy(file, place)
    command = ["npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts"]
    made = subprocess.run(command, cwd=place, capture_output=True, text=True, timeout=INSTALLING, check=False)
    if made.returncode:
        pytest.skip(f"npm cannot install oidc-provider here: {made.stderr.strip()[-300:]}")
    return place / "provider.mjs"


class Provider:
    """Its users are changed without a restart, its options with one.

    It is at `localhost`: for browsers another site than the door at 127.0.0.1.
    """

    def __init__(self, program: Path, redirect: str) -> None:
        self._program = program
        self._options: dict[str, Any] = {"port": free_port(), "client": CLIENT, "redirect": redirect}
        self._options |= {"skew": 0, "idToken": 3600, "claimsInIdToken": False, "foreignKeys": False, "users": {}}
        self.settings = IdentityProvider(f"http://localhost:{self._options['port']}", "headway")

    def user(self, subject: str, **claims: Any) -> None:
        """Let a person sign in with this subject as login, and any password."""
        self._write(users=self._options["users"] | {subject: claims})

    @contextmanager
    def running(self, **options: Any) -> Iterator[None]:
        """Run it with these options, and with new keys."""
        with socket.create_server(("127.0.0.1", self._options["port"])):
            pass  # no other one listens
        before = dict(self._options)
        file = self._write(**options)
        with self._program.with_name("log").open("wb") as log:
            process = subprocess.Popen(["node", self._program, file], stdout=log, stderr=log, cwd=self._program.parent)
        try:
            self._until_it_listens(process)
            yield
        finally:
            process.terminate()
            process.wait(30)
            self._write(**before)

    def _write(self, **options: Any) -> Path:
        self._options |= options
        file = self._program.with_name("options.json")
        written = file.with_suffix(".new")
        written.write_text(json.dumps(self._options))
        return written.replace(file)

    def _until_it_listens(self, process: subprocess.Popen[bytes]) -> None:
        end = time.monotonic() + STARTING
        while True:
            try:
                socket.create_connection(("127.0.0.1", self._options["port"]), timeout=5).close()
            except OSError:
                log = self._program.with_name("log").read_text()
                assert process.poll() is None, log
                assert time.monotonic() < end, log
                time.sleep(0.05)
            else:
                return


def follow(browser: httpx.Client, url: str, login: str, until: str) -> str:
    """Follow the provider's redirects and fill in its forms. Returns the address that begins with `until`."""
    answer = browser.get(url)
    for _ in range(STEPS):
        if answer.has_redirect_location:
            url = urljoin(str(answer.url), answer.headers["location"])
            if url.startswith(until):
                return url
            answer = browser.get(url)
        else:
            assert answer.status_code == 200, answer.text
            answer = browser.post(_action(answer), data=_fields(answer.text, login))
    raise AssertionError(f"the sign-in of {login} does not end: {answer.url}")


def _action(answer: httpx.Response) -> str:
    found = re.search(r'<form[^>]* action="([^"]+)"', answer.text)
    assert found is not None, answer.text
    return urljoin(str(answer.url), unescape(found[1]))


def _fields(page: str, login: str) -> Mapping[str, str]:
    hidden = dict(re.findall(r'type="hidden" name="(\w+)" value="([^"]*)"', page))
    return hidden | ({"login": login, "password": "any"} if 'name="login"' in page else {})
