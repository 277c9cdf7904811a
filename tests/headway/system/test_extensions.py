"""Entry points of installed packages."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from headway.domain.errors import HeadwayError
from headway.system.extensions import extensions


@pytest.fixture(autouse=True)
def uncached() -> Iterator[None]:
    extensions.cache_clear()
    yield
    extensions.cache_clear()


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def install(packages: Path, package: str, group: str, entry: str, code: str = "") -> None:
    """As pip leaves it behind: a module, and metadata with one entry point."""
    module = package.replace("-", "_")
    (packages / f"{module}.py").write_text(code)
    metadata = packages / f"{module}-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(f"[{group}]\n{entry}\n")


def test_adapters_of_headway_are_entry_points() -> None:
    assert list(extensions("headway.platforms")) == ["docker", "kubernetes", "process", "railway", "vercel"]
    assert list(extensions("headway.git_hosts")) == ["bitbucket", "gitea", "github", "gitlab"]
    assert list(extensions("headway.metric_sources")) == ["prometheus"]
    assert list(extensions("headway.runners")) == ["host", "sandbox"]
    assert list(extensions("headway.secret_stores")) == ["environment", "files", "prefect"]


def test_a_group_without_entry_points_is_empty() -> None:
    assert extensions("headway.nothing") == {}


def test_another_package_adds_to_them(packages: Path) -> None:
    install(packages, "extra-host", "headway.git_hosts", "extra = extra_host:HOST", "HOST = 'a git host'")
    assert extensions("headway.git_hosts")["extra"] == "a git host"
    assert len(extensions("headway.git_hosts")) == 5


def test_a_name_that_two_packages_use_is_an_error(packages: Path) -> None:
    install(packages, "other-github", "headway.git_hosts", "github = other_github:HOST", "HOST = 1")
    with pytest.raises(HeadwayError, match=r"headway.git_hosts: two installed packages offer 'github'") as raised:
        extensions("headway.git_hosts")
    assert "pip uninstall" in raised.value.hint


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("import nothing_like_it", "ModuleNotFoundError: No module named 'nothing_like_it'"),
        ("", "AttributeError: .*HOST"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("def", "SyntaxError: "),
    ],
)
def test_an_entry_point_that_cannot_be_loaded_names_its_package(packages: Path, code: str, reason: str) -> None:
    package = f"broken-host-{len(code)}"  # a module is imported once
    module = package.replace("-", "_")
    install(packages, package, "headway.git_hosts", f"broken = {module}:HOST", code)
    with pytest.raises(HeadwayError, match=f"broken of the package {package} cannot be loaded: {reason}"):
        extensions("headway.git_hosts")
