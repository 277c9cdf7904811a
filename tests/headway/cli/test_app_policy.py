"""`headway app policy`: shown, compared, confirmed and set; and the repository that `headway release` names."""

from __future__ import annotations

import json
import os
import pwd
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from headway.cli.release import _repository
from headway.config.app_policy import AppPolicy
from headway.ledger import Ledger
from headway.scm import git
from headway.system.os_user import os_user
from tests.standins.repositories import Repository

Policy = Callable[..., subprocess.CompletedProcess[str]]
STRICT = """\
branches: [main]
secrets: [shop-*]
environments:
  production:
    approval: {by: [ann, bob], count: 2, expires: 8h}
"""


@pytest.fixture
def ledger_file(tmp_path: Path) -> str:
    url = f"sqlite:///{tmp_path / 'home' / 'ledger.db'}"
    with Ledger.open(url) as ledger:
        ledger.apps.register("shop", repo="https://github.com/acme/shop", host="github", secret="s", by="ann")
    return url


@pytest.fixture
def policy(tmp_path: Path, ledger_file: str) -> Policy:
    assert ledger_file

    def run(*arguments: str, text: str = "", code: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", f"{code}\nfrom headway.cli import main; main()", "app", "policy", *arguments],
            env={**os.environ, "HEADWAY_HOME": str(tmp_path / "home")},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            input=text,
            timeout=60,
            check=False,
        )

    return run


def test_a_policy_is_set_with_a_diff_and_shown_as_it_was_written(policy: Policy, tmp_path: Path) -> None:
    assert "shop has no policy" in policy("shop").stdout
    (tmp_path / "policy.yaml").write_text(STRICT)
    first = policy("shop", "--set", "policy.yaml", "--yes")
    assert first.returncode == 0, first.stderr
    assert "+    approval:" in first.stderr
    shown = policy("shop").stdout
    assert shown.startswith(f"# version 1, set by {os_user()} on ")
    assert "expires: 8h" in shown
    again = policy("shop", "--set", "-", "--yes", text=shown)  # what is shown can be set
    assert (again.returncode, again.stderr) == (0, "shop has this policy already\n")
    changed = policy("shop", "--set", "-", "--yes", "--json", text=shown.replace("count: 2", "count: 1"))
    assert json.loads(changed.stdout)["number"] == 2
    with Ledger.open(f"sqlite:///{tmp_path / 'home' / 'ledger.db'}") as ledger:
        newest, oldest = ledger.policies.versions("shop")
        audited = ledger.audit.last(2, action="policy.set")
    assert [(one.principal, one.subject, one.details["version"]) for one in audited] == [
        (str(os_user()), "shop", 1),
        (str(os_user()), "shop", 2),
    ]
    assert oldest.set_by == newest.set_by == str(os_user())
    counts = [one.policy.environments["production"].approval for one in (oldest, newest)]
    assert [one and one.count for one in counts] == [2, 1]


def test_a_policy_is_not_set_without_a_confirmation(policy: Policy) -> None:
    done = policy("shop", "--set", "-", text=STRICT)
    assert done.returncode == 1
    assert "the policy of shop was not changed: nobody can be asked" in done.stderr
    assert "shop has no policy" in policy("shop").stdout


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("branchs: [main]", "standard input:1: branchs: unknown key 'branchs' (did you mean 'branches'?)"),
        (
            "environments:\n  live: {aproval: true}",
            "standard input:2: environments/live/aproval: unknown key 'aproval'",
        ),
        ("branches: []\ntags: []", "branches and tags are empty: nothing could be released"),
        ("targets: []", "targets is empty: nothing could be released"),
        ("environments: {live: {approval: {by: [ann], count: 2}}}", "count is 2, but only 1 may approve"),
        ("environments: {live: {approval: {by: ['group:owners']}}}", "nobody is known to be in group:owners"),
        ("environments: {live: {freeze_override: ['token:ci']}}", "expected a user, or a group as group:NAME"),
        ("a: [", "standard input:1:5: is not YAML"),
    ],
)
def test_a_policy_that_is_wrong_or_locks_everybody_out_is_refused(policy: Policy, text: str, error: str) -> None:
    done = policy("shop", "--set", "-", "--yes", text=text)
    assert done.returncode == 2
    assert error in done.stderr
    assert "shop has no policy" in policy("shop").stdout


def test_an_app_that_is_not_registered_has_no_policy(policy: Policy) -> None:
    assert "no app blog is registered" in policy("blog").stderr
    assert "no app blog is registered" in policy("blog", "--set", "-", "--yes", text=STRICT).stderr


def test_only_an_admin_sets_a_policy(policy: Policy) -> None:
    eve = pwd.getpwuid(65534).pw_name
    done = policy("shop", "--set", "-", "--yes", text="{}", code="import os; os.getuid = lambda: 65534")
    assert done.returncode == 2
    assert f"{eve} may not administer shop: that needs the role admin" in done.stderr


def test_a_clone_is_released_from_the_repository_of_its_app(tmp_path: Path, ledger_file: str) -> None:
    clone = Repository(tmp_path / "shop")
    sha = clone.commit(headway_dot_yaml="app: shop\n")
    other = Repository(tmp_path / "blog")
    local = git.LocalRepo(clone.path, sha, "main")
    with Ledger.open(ledger_file) as ledger:
        assert _repository(ledger, local) == "https://github.com/acme/shop"
        blog = git.LocalRepo(other.path, other.commit(headway_dot_yaml="app: blog\n"), "main")
        assert _repository(ledger, blog) == str(other.path)
        broken = git.LocalRepo(other.path, other.commit(headway_dot_yaml="app: 1\n"), "main")
        assert _repository(ledger, broken) == str(other.path)
        ledger.policies.set("shop", AppPolicy(repository=str(clone.path)), by="root")
        assert _repository(ledger, local) == str(clone.path)
