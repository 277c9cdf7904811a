"""Tasks that read a commit."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import pytest

from headway.config import Settings
from headway.domain.errors import SettingsError
from headway.domain.source import Source
from headway.scm import git
from tasks import checkout
from tests.standins.repositories import Repository

MANIFESTS = """app: a
checks: {unit: pytest}
build: {image: ghcr.io/acme/a}
manifests: k8s
environments: {production: {target: kubernetes/prod}}
"""


@pytest.fixture(autouse=True)
def of_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkout, "get_run_logger", lambda: logging.getLogger("of the run"))


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path / "shop")


def checked_out(repository: Repository, tmp_path: Path, **files: str) -> Source:
    return git.checkout(str(repository.path), repository.commit(**files), tmp_path / "workspaces")


def read(source: Source) -> Settings:
    return asyncio.run(checkout.read_settings.fn(source))


def test_reading_the_settings_logs_a_warning_for_each_old_key(
    repository: Repository, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    text = "app: a\nchecks: {unit: pytest}\nleaks: {exceptions: {docs/: examples}}\n"
    settings = read(checked_out(repository, tmp_path, headway_dot_yaml=text))
    assert settings.secret_scan.exceptions == {"docs/": "examples"}
    assert "headway.yaml:3: leaks is now called secret_scan" in caplog.text


def test_settings_and_manifests_are_those_of_the_commit(repository: Repository, tmp_path: Path) -> None:
    manifest = (
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: a}\n"
        "spec:\n  selector: {matchLabels: {app: a}}\n  template:\n    metadata: {labels: {app: a}}\n"
        "    spec: {containers: [{name: a, image: ghcr.io/acme/a, ports: [{containerPort: 80}]}]}\n"
    )
    source = checked_out(repository, tmp_path, headway_dot_yaml=MANIFESTS, k8s__web_dot_yaml=manifest)
    before = read(source)
    assert "containerPort" in str(before.manifests_read)
    workspace = Path(source.workspace)
    (workspace / "headway.yaml").write_text(MANIFESTS.replace("unit: pytest", "unit: true"))
    (workspace / "k8s" / "web.yaml").write_text(manifest.replace("80", "81"))
    (workspace / ".git" / "info").mkdir(exist_ok=True)
    (workspace / ".git" / "info" / "attributes").write_text("* filter=mine\n")
    after = read(source)
    assert (after, after.manifests_read) == (before, before.manifests_read)


@pytest.mark.parametrize("name", ["headway.yaml", "k8s/web.yaml"])
def test_a_link_in_the_commit_is_not_followed(repository: Repository, tmp_path: Path, name: str) -> None:
    repository.write(headway_dot_yaml=MANIFESTS, k8s__web_dot_yaml="kind: Deployment\n")
    (tmp_path / "secret").write_text("root:x")
    (repository.path / name).unlink()
    (repository.path / name).symlink_to(tmp_path / "secret")
    with pytest.raises(SettingsError, match=f"{name}: is a symbolic link") as caught:
        read(checked_out(repository, tmp_path))
    assert "root:x" not in str(caught.value)


def test_a_commit_without_settings_is_named(repository: Repository, tmp_path: Path) -> None:
    source = checked_out(repository, tmp_path, a="1")
    with pytest.raises(SettingsError, match=f"{repository.path}: {source.sha[:7]} has no headway.yaml"):
        read(source)


def test_a_replaced_object_in_the_mirror_changes_no_settings(repository: Repository, tmp_path: Path) -> None:
    """A command that could write to the mirror would run `git replace` there."""
    source = checked_out(repository, tmp_path, headway_dot_yaml="app: a\nchecks: {unit: pytest}\n")
    mirror = git.mirror_of(source.workspace)
    other = checked_out(repository, tmp_path, headway_dot_yaml="app: a\nchecks: {unit: 'true'}\n")
    repository.git("--git-dir", str(mirror), "replace", source.sha, other.sha)
    assert read(source).checks["unit"].run == "pytest"
    assert read(other).checks["unit"].run == "true"
