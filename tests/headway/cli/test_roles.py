"""`headway role` and `headway token`."""

from __future__ import annotations

import json
import os
import pwd
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from headway.ledger import Ledger
from headway.system.os_user import os_user

Headway = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def headway(tmp_path: Path) -> Headway:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", "from headway.cli import main; main()", *arguments],
            env={**os.environ, "HEADWAY_HOME": str(tmp_path / "home")},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    return run


def document(done: subprocess.CompletedProcess[str]) -> Any:
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_token_is_printed_once_works_and_is_revoked(headway: Headway, tmp_path: Path) -> None:
    done = headway("token", "create", "ci", "--for", "shop,blog", "--may", "read,release", "--in", "staging")
    assert done.returncode == 0, done.stderr
    secret = done.stdout.strip()
    assert secret.startswith("headway_")
    assert "token ci: read, release of shop, blog in staging, until " in done.stderr
    with Ledger.open(f"sqlite:///{tmp_path / 'home' / 'ledger.db'}") as ledger:
        assert str(ledger.tokens.authenticate(secret, datetime.now(UTC))) == "token:ci"
        assert ledger.tokens.get("ci").owner == os_user().name
    assert secret not in headway("token", "list").stdout
    assert document(headway("token", "revoke", "ci", "--json"))["revoked_by"] == os_user().name
    with Ledger.open(f"sqlite:///{tmp_path / 'home' / 'ledger.db'}") as ledger:
        assert ledger.tokens.authenticate(secret, datetime.now(UTC)) is None
    listed = headway("token", "list").stdout
    assert f"it was revoked by {os_user().name}" in listed
    assert document(headway("token", "create", "second", "--expires", "never", "--json"))["expires_at"] is None


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("ci", "--may", "deploy"), "--may deploy: no such action: deploy"),
        (("ci", "--may", ","), "--may names no action"),
        (("ci", "--for", "Shop"), "--for Shop: "),
        (("ci", "--expires", "soon"), "--expires soon: expected a duration"),
        (("CI",), "NAME CI: "),
    ],
)
def test_a_token_with_a_wrong_option_is_not_created(headway: Headway, arguments: tuple[str, ...], error: str) -> None:
    done = headway("token", "create", *arguments)
    assert done.returncode == 2
    assert error in done.stderr
    assert done.stdout == ""


def test_roles_are_given_listed_and_taken(headway: Headway) -> None:
    assert "ann is developer of shop" in headway("role", "grant", "ann", "developer", "--app", "shop").stdout
    headway("role", "grant", "group:owners", "admin")
    headway("role", "join", "bob", "owners")
    listed = document(headway("role", "list", "--json"))
    assert listed["owner"] == os_user().name
    assert [(one["subject"], one["role"], one["app"]) for one in listed["roles"]] == [
        ("ann", "developer", "shop"),
        ("group:owners", "admin", None),
    ]
    refused = headway("role", "leave", "bob", "owners")
    assert refused.returncode == 2
    assert "nobody would be admin of all apps: bob is the last" in refused.stderr
    assert headway("role", "revoke", "ann", "--app", "shop").returncode == 0
    assert "ann has no role for shop" in headway("role", "revoke", "ann", "--app", "shop").stderr


@pytest.mark.parametrize("subject", ["token:ci", "group:", " ann", "group:group:owners"])
def test_a_name_that_reads_as_another_principal_gets_no_role(headway: Headway, subject: str) -> None:
    done = headway("role", "grant", subject, "viewer")
    assert done.returncode == 2
    assert "is not the name of a" in done.stderr


def test_another_os_user_has_only_the_roles_that_were_given(tmp_path: Path) -> None:
    code = "import os; os.getuid = lambda: 65534\nfrom headway.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "role", "grant", "eve", "admin"],
        env={**os.environ, "HEADWAY_HOME": str(tmp_path / "home")},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert (
        f"error: {pwd.getpwuid(65534).pw_name} may not administer every app: that needs the role admin" in done.stderr
    )
    assert f"these may: {os_user().name}" in done.stderr
