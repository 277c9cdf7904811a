"""The shop example and the demo: each version passes its own checks, and only v3 fails for users."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from headway.system import command_runner
from headway.build import test_reports
from headway import config
from headway.rollout import smoke_tests
from headway.domain.revision import Revision
from tests.standins.ports import free_port

pytestmark = pytest.mark.slow

EXAMPLES = Path(__file__).parents[2] / "examples"
SHA = "3f2a9c1" + "0" * 33
VERSIONS = {"v1": [], "v2": ["v2"], "v3": ["v2", "v3"]}


@pytest.fixture(scope="module", params=VERSIONS)
def version(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def shop(version: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shop as it is after this merge."""
    root = tmp_path_factory.mktemp(version) / "shop"
    shutil.copytree(EXAMPLES / "shop", root, ignore=shutil.ignore_patterns(".*_cache", "__pycache__", "reports"))
    for merge in VERSIONS[version]:
        shutil.copytree(EXAMPLES / "demo" / merge, root, dirs_exist_ok=True)
    return root


def environment() -> dict[str, str]:
    """Of a command: with the tools that are installed beside this Python."""
    ours = command_runner.clean_environment()
    return {**ours, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{ours['PATH']}"}


@contextmanager
def running(root: Path) -> Iterator[str]:
    """The shop as a target runs it."""
    port = free_port()
    env = {**environment(), **config.load(root).variables("production"), "PORT": str(port), "HEADWAY_VERSION": SHA}
    command = ["/bin/sh", "-c", f"exec {config.load(root).run}"]
    process = subprocess.Popen(command, cwd=root, env={key: str(value) for key, value in env.items()})
    try:
        url = f"http://127.0.0.1:{port}"
        wait_until_it_answers(url, process)
        yield url
    finally:
        process.terminate()
        assert process.wait(60) == 0


def wait_until_it_answers(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        try:
            httpx.get(url, trust_env=False)
        except httpx.ConnectError:
            time.sleep(0.02)
        else:
            return
    pytest.fail("the shop does not answer")


def customers() -> list[int]:
    """Requests of the demo's simulated users."""
    (listed,) = re.findall(r"^    ([0-9, ]+)$", (EXAMPLES / "demo" / "README.md").read_text(), re.MULTILINE)
    return [int(items) for items in listed.split(", ")]


def test_a_third_of_the_carts_are_large() -> None:
    large = sum(items > 60 for items in customers())
    assert large * 3 == len(customers())


def test_every_merge_changes_files() -> None:
    files = [path for path in (EXAMPLES / "demo").rglob("*.py") if "__pycache__" not in path.parts]
    assert len(files) == 5
    for path in files:
        replaced = EXAMPLES / "shop" / Path(*path.relative_to(EXAMPLES / "demo").parts[1:])
        assert replaced.read_text() != path.read_text()


@pytest.mark.parametrize("name", ["lint", "typecheck", "unit", "integration"])
async def test_every_version_passes_its_checks(shop: Path, name: str) -> None:
    check = config.load(shop).checks[name]
    lines: list[str] = []
    finished = await command_runner.run(
        check.run, cwd=shop, env={**environment(), **check.env}, timeout=120, on_line=lines.append
    )
    assert finished.exit_code == 0, "\n".join(lines)
    if check.reports:
        tests, failures = test_reports.junit(shop, check.reports)
        assert tests > 5
        assert failures == ()
    if check.coverage:
        assert test_reports.coverage(shop / check.coverage, shop).lines > 50


async def test_every_version_passes_its_smoke_tests_and_only_v3_fails_users(shop: Path, version: str) -> None:
    loaded = config.load(shop)
    revision = Revision(app="shop", sha=SHA, digest="sha256:" + "a" * 64, configuration="c")
    with running(shop) as url:
        for name in ("staging", "production"):
            probes = loaded.environments[name].smoke
            report = await smoke_tests.run(url, probes, revision, environment=name, on_line=print)
            assert report.probes == len(probes) > 0
        async with httpx.AsyncClient(base_url=url, trust_env=False) as client:
            statuses = [(await client.get("/price", params={"items": items})).status_code for items in customers()]
            assert (await client.get("/health")).status_code == 200
    failed = [items for items, status in zip(customers(), statuses, strict=True) if status == 500]
    assert failed == ([items for items in customers() if items > 60] if version == "v3" else [])
    assert set(statuses) == ({200, 500} if version == "v3" else {200})


def test_change_of_v2_is_visible(version: str, shop: Path) -> None:
    with running(shop) as url:
        page = httpx.get(url, trust_env=False).text
    assert ("15 % off from 100 mugs" in page) is (version != "v1")
