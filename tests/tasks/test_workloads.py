"""Commands of an app in the workspace of a commit."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from headway.domain.errors import UsageError
from headway.domain.source import Source
from headway.domain.workload import Finished
from headway.scm import git
from headway.system.runners import isolation, runner, sandbox
from headway.system.runners.sandbox import SandboxRunner
from tasks import workloads
from tasks.workloads import workload
from tests.standins.repositories import Repository


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Source:
    if refusal := SandboxRunner().missing():
        pytest.skip(f"{refusal.what}: {refusal.hint}")
    monkeypatch.setenv("HEADWAY_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HEADWAY_RUNNER", "sandbox")
    repository = Repository(tmp_path / "shop")
    repository.write(a="1")
    return git.checkout(str(repository.path), repository.commit(), tmp_path / "home" / "workspaces")


def run(source: Source, command: str) -> Finished:
    return asyncio.run(runner(trusted=source.trusted).run(workload("shop", source, command, {}, 60.0, print)))


def test_git_works_in_the_sandbox(source: Source) -> None:
    assert run(source, f"git status --short && git cat-file -e {source.sha} && git log -1").exit_code == 0


def test_the_mirror_cannot_be_changed(source: Source) -> None:
    """`git replace` in the mirror would make every later release of this commit another one."""
    mirror = git.mirror_of(source.workspace)
    replace_commit = (
        "git -c user.name=x -c user.email=x@example.com commit --allow-empty -qm x && git replace -f {0} HEAD"
    )
    run(source, replace_commit.format(source.sha))
    assert run(source, f"test -e {mirror}/HEAD || test -e {mirror}/config || test -e {mirror}/refs").exit_code == 1
    assert run(source, f"touch {mirror}/objects/here").exit_code != 0
    assert not list(mirror.glob("refs/replace/*"))


def test_the_state_of_headway_and_of_other_apps_is_not_there(source: Source, tmp_path: Path) -> None:
    home = tmp_path / "home"
    others = git.checkout(source.repo, source.sha, home / "workspaces", "another-run")
    files = [
        home / "ledger.db",
        home / "keys" / "signing.pem",
        home / "prefect" / "prefect.db",
        home / "bundles" / "sha256" / "0" / "app.py",
        home / "targets" / "production" / "apps" / "other" / "state.json",
        home / "workload-homes" / "other" / ".npmrc",
        Path(others.workspace) / "a",
    ]
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("of others")
        assert run(source, f"cat {file}").exit_code != 0, file
        assert run(source, f"echo taken > {file}; ln -sf {file} link; grep others link").exit_code != 0, file
        assert file.read_text() == "of others"


def test_the_home_directory_is_kept_for_the_app(source: Source) -> None:
    assert run(source, 'echo cached > "$HOME/cache"').exit_code == 0
    assert run(source, 'grep cached "$HOME/cache"').exit_code == 0
    other = workload("other", source, 'grep cached "$HOME/cache"', {}, 60.0, print)
    assert asyncio.run(runner(trusted=True).run(other)).exit_code != 0


def test_a_fork_has_a_home_directory_of_its_own(source: Source) -> None:
    fork = source.model_copy(update={"trusted": False})
    assert run(fork, 'echo planted > "$HOME/cache"').exit_code == 0
    assert run(source, 'test -e "$HOME/cache"').exit_code != 0


def test_an_unknown_runner_is_refused_with_those_that_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADWAY_RUNNER", "sandbx")
    with pytest.raises(UsageError, match=r"no runner 'sandbx'\n  hint: choose one of auto, host, sandbox"):
        runner(trusted=True)


@pytest.fixture
def no_sandbox(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """A machine without bubblewrap: the directory of its programs, which is empty."""
    (programs := tmp_path / "programs").mkdir()
    monkeypatch.setenv("PATH", str(programs))
    sandbox._missing.cache_clear()
    yield programs
    sandbox._missing.cache_clear()


def test_how_commands_run_is_said(source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HEADWAY_RUNNER")
    assert isolation(runner(trusted=source.trusted)) == "isolated by the sandbox runner"
    monkeypatch.setenv("HEADWAY_RUNNER", "host")
    assert isolation(runner(trusted=True)) == "not isolated: HEADWAY_RUNNER or HEADWAY_FORK_RUNNER names host"


@pytest.mark.usefixtures("no_sandbox")
def test_each_release_logs_that_nothing_isolates_its_commands(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv("HEADWAY_RUNNER", raising=False)
    monkeypatch.setattr(workloads, "get_run_logger", lambda: logging.getLogger("test"))
    workloads.require_runner(trusted=True)
    assert [(record.levelname, record.message) for record in caplog.records] == [
        (
            "WARNING",
            "commands are not isolated: the sandbox needs `bwrap`, which is not installed (apt-get install bubblewrap)",
        )
    ]


@pytest.mark.parametrize(
    ("program", "message"),
    [
        ("bwrap", "bwrap: No permissions to create new namespace"),
        ("slirp4netns", "open(/dev/net/tun): No such device"),
    ],
)
def test_programs_that_are_there_and_do_not_work_are_no_sandbox(
    no_sandbox: Path, program: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a container, or where the kernel forbids user namespaces."""
    for name in sandbox.PROGRAMS:
        if (found := shutil.which(name, path=os.defpath + ":/usr/sbin:/sbin")) is None:
            pytest.skip(f"{name} is not installed: apt-get install {sandbox.PROGRAMS[name]}")
        (no_sandbox / name).symlink_to(found)
    (no_sandbox / program).unlink()
    (no_sandbox / program).write_text(f"#!/bin/sh\necho '{message}' >&2\nexit 1\n")
    (no_sandbox / program).chmod(0o755)
    monkeypatch.setenv("HEADWAY_RUNNER", "auto")
    assert isolation(runner(trusted=True)).startswith("not isolated: the sandbox does not work on this machine: ")
    assert message in isolation(runner(trusted=True))
    with pytest.raises(UsageError, match="commands of a fork run only in isolation: the sandbox does not work"):
        runner(trusted=False)


@pytest.mark.usefixtures("no_sandbox")
def test_a_sandbox_that_does_not_work_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADWAY_RUNNER", "sandbox")
    with pytest.raises(UsageError, match=r"HEADWAY_RUNNER=sandbox: the sandbox needs `bwrap`"):
        runner(trusted=True)


@pytest.mark.usefixtures("no_sandbox")
@pytest.mark.parametrize("chosen", ["host", "auto"])
def test_a_fork_without_isolation_is_refused(monkeypatch: pytest.MonkeyPatch, chosen: str) -> None:
    monkeypatch.setenv("HEADWAY_RUNNER", chosen)
    monkeypatch.setenv("HEADWAY_FORK_RUNNER", "auto")
    with pytest.raises(UsageError) as refused:
        runner(trusted=False)
    assert refused.value.what == (
        "commands of a fork run only in isolation: the sandbox needs `bwrap`, which is not installed"
    )
    assert refused.value.hint.startswith("apt-get install bubblewrap. HEADWAY_FORK_RUNNER=host runs them")
    assert not runner(trusted=True).isolated


@pytest.mark.usefixtures("no_sandbox")
def test_the_operator_can_allow_forks_on_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADWAY_FORK_RUNNER", "host")
    assert runner(trusted=False).name == "host"


def test_a_fork_is_isolated_also_where_the_repository_s_own_commits_are_not(
    source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEADWAY_RUNNER", "host")
    secret = Path(source.workspace).parent / "secret"
    secret.write_text("of the worker")
    fork = source.model_copy(update={"trusted": False})
    assert run(source, f"cat {secret}").exit_code == 0
    assert run(fork, f"cat {secret}").exit_code != 0


def test_auto_is_the_sandbox_where_it_works(source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADWAY_RUNNER", "auto")
    assert runner(trusted=True).name == "sandbox"
