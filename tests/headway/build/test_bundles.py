from __future__ import annotations

import asyncio
import os
import resource
import shutil
import signal
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from headway.build import bundles
from headway.domain.errors import BuildFailed
from headway.domain.revision import Artifact
from headway.domain.source import Source
from headway.domain.workload import Workload
from headway.scm import git
from headway.system import command_runner, sealed_tree
from headway.system.runners.host import HostRunner
from tests.standins.repositories import Repository


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path / "shop")


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "store"


Build = Callable[..., "asyncio.Task[Artifact]"]


@pytest.fixture
def lines() -> list[str]:
    return []


@pytest.fixture
def build(repository: Repository, store: Path, tmp_path: Path, lines: list[str]) -> Build:
    """Commit all changes and build them."""

    def start(install: str | None = None, commit: Source | None = None, **env: str) -> asyncio.Task[Artifact]:
        commit = commit or committed(repository, tmp_path)
        workload = installing(install, env, on_line=lines.append) if install else None
        building = bundles.build(commit, workload, runner=HostRunner(), store=store, on_line=lines.append)
        return asyncio.create_task(building)

    return start


def installing(
    command: str,
    env: Mapping[str, str] | None = None,
    timeout: float = 60,
    on_line: Callable[[str], None] = print,
) -> Workload:
    environment = {**command_runner.clean_environment(), **(env or {})}
    return Workload(command, Path("replaced"), environment, timeout, on_line, "install")


def committed(repository: Repository, tmp_path: Path) -> Source:
    return git.checkout(str(repository.path), repository.commit(), tmp_path / "workspaces")


def content(artifact: Artifact) -> dict[str, str]:
    root = Path(artifact.location)
    return {str(path.relative_to(root)): path.read_text() for path in root.rglob("*") if path.is_file()}


def exit_code_of(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def stored(store: Path) -> list[str]:
    """All files in the store except locks."""
    return sorted(str(path.relative_to(store)) for path in store.glob("*/*") if path.suffix != ".lock")


async def test_bundle_has_the_tree_of_the_commit_only(repository: Repository, build: Build, store: Path) -> None:
    repository.write(a="1", deep__er__b="2")
    artifact = await build()
    assert content(artifact) == {"a": "1", "deep/er/b": "2"}
    assert artifact.location == str(store / "sha256" / artifact.digest.removeprefix("sha256:"))
    assert artifact.digest == f"sha256:{sealed_tree.digest_of(Path(artifact.location))}"
    assert artifact.size == 2


async def test_bundle_has_the_output_of_install(repository: Repository, build: Build, lines: list[str]) -> None:
    repository.write(a="1")
    artifact = await build('echo installing; cp a "$NAME"', NAME="b")
    assert content(artifact) == {"a": "1", "b": "1"}
    assert lines == ["installing"]


async def test_bundle_is_built_from_the_commit_not_the_workspace(
    repository: Repository, build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository.write(a="1")
    commit = committed(repository, tmp_path)
    workspace = Path(commit.workspace)
    (workspace / "a").write_text("changed by a check")
    (workspace / "junit.xml").write_text("left by a check")
    (workspace / ".git" / "info").mkdir(exist_ok=True)
    (workspace / ".git" / "info" / "attributes").write_text("* filter=mine\n")
    (workspace / ".git" / "config").write_text(f'[filter "mine"]\n\tsmudge = touch {tmp_path / "ran"}; cat\n')
    assert content(await build(commit=commit)) == {"a": "1"}
    assert not (tmp_path / "ran").exists()


async def test_same_commit_makes_one_bundle(
    repository: Repository, build: Build, store: Path, lines: list[str]
) -> None:
    repository.write(a="1")
    # What it makes differs each time: the second build has to be the first one's artifact all the same.
    first = await build("date +%s%N > built; echo installing")
    second = await build("date +%s%N > built; echo installing")
    assert first == second
    assert lines == ["installing", f"built before: {first.digest}"]
    assert len(list(store.glob("sha256/*"))) == len([path for path in store.glob("trees/*") if path.is_dir()]) == 1


async def test_same_content_from_another_commit_makes_one_bundle(
    repository: Repository, build: Build, store: Path
) -> None:
    repository.write(a="1")
    first, second = await build("echo 1 > b"), await build("echo 1 > b # the same")
    assert first == second
    assert content(second) == {"a": "1", "b": "1\n"}
    assert len([path for path in store.glob("trees/*") if path.is_dir()]) == 1


async def test_concurrent_builds_make_one_bundle(
    repository: Repository, build: Build, tmp_path: Path, lines: list[str]
) -> None:
    repository.write(a="1")
    commit = committed(repository, tmp_path)
    first, second = await asyncio.gather(*(build("echo installing; sleep 0.2", commit) for _ in range(2)))
    assert first == second
    assert sorted(lines) == [f"built before: {first.digest}", "installing"]


async def test_a_bundle_is_read_only(repository: Repository, build: Build) -> None:
    repository.write(a="1")
    root = Path((await build("echo 1 > b; chmod 4755 b; mkdir c; touch c/d; chmod 600 c/d")).location)
    assert [(root / name).stat().st_mode & 0o7777 for name in ("", "a", "b", "c", "c/d")] == [
        *(0o555, 0o444, 0o555, 0o555),
        0o400,
    ]
    # Its manifest is what its digest is the hash of.
    assert (root.parents[1] / "manifests" / root.name).read_bytes() == sealed_tree.manifest_of(root)


async def test_a_bundle_that_was_changed_is_not_released_again(repository: Repository, build: Build) -> None:
    repository.write(a="1", b="1")
    artifact = await build("true")
    root = Path(artifact.location)
    assert bundles.refusal(artifact) is None
    (root / "a").unlink()
    (root / "a").write_text("2")
    (root / "b").unlink()
    changed = bundles.refusal(artifact)
    assert changed
    assert changed.what.endswith("was changed after its build: a: has other content (and 1 more)")
    with pytest.raises(BuildFailed, match="a: has other content"):
        await build("true")
    tree = changed.hint.partition("rm -r ")[2].partition(",")[0]
    shutil.rmtree(tree)
    again = await build("true")
    assert again == artifact
    assert bundles.refusal(again) is None


async def test_a_link_to_another_bundle_is_not_launched(repository: Repository, build: Build) -> None:
    repository.write(a="1")
    checked = await build()
    repository.write(a="2")
    other = await build()
    Path(checked.location).unlink()
    Path(checked.location).symlink_to(Path(other.location).resolve())
    changed = bundles.refusal(checked)
    assert changed
    assert changed.what.endswith("was changed after its build: a: has other content")
    assert bundles.refusal(other) is None


async def test_bundles_of_an_earlier_version_are_launched_unseen_and_not_released_again(
    repository: Repository, build: Build, store: Path
) -> None:
    """Their directories were writable, and every Python app has written to them."""
    repository.write(a="1")
    artifact = await build()
    root = Path(artifact.location).resolve()
    shutil.rmtree(store / "manifests")
    shutil.rmtree(store / "keys")
    root.chmod(0o755)
    older = root.rename(root.with_name("older"))
    (older / "__pycache__").mkdir()
    Path(artifact.location).unlink()
    Path(artifact.location).symlink_to("../trees/older")
    stored = artifact.model_dump(exclude={"sealed"})
    assert bundles.refusal(Artifact.model_validate(stored)) is None
    assert await build() == artifact
    assert content(artifact) == {"a": "1"}
    assert bundles.refusal(artifact) is None
    assert older.exists()


async def test_another_home_directory_makes_another_build(
    repository: Repository, store: Path, tmp_path: Path, lines: list[str]
) -> None:
    """A fork's commands fill the caches of its own home. What it builds from them is not released."""
    repository.write(a="1")
    commit = committed(repository, tmp_path)

    async def built_by(home: str, cached: str) -> Artifact:
        (tmp_path / home).mkdir()
        (tmp_path / home / "cache").write_text(cached)
        command = installing(f"cat {tmp_path}/*/cache > built; rm {tmp_path}/*/cache", on_line=lines.append)
        install = replace(command, home=tmp_path / home)
        return await bundles.build(commit, install, runner=HostRunner(), store=store, on_line=lines.append)

    assert content(await built_by("fork", "poisoned"))["built"] == "poisoned"
    assert content(await built_by("release", "good"))["built"] == "good"


async def test_a_virtual_environment_works_where_it_was_built(
    repository: Repository, build: Build, lines: list[str], tmp_path: Path
) -> None:
    repository.write(a="1")
    artifact = await build(f"{sys.executable} -m venv --without-pip .venv && .venv/bin/python -c 'print(1)'")
    asking = ".venv/bin/python -c 'import sys; print(sys.prefix)'"
    await command_runner.run(asking, cwd=Path(artifact.location), env={}, timeout=30, on_line=lines.append)
    assert Path(lines[-1]).resolve() == (Path(artifact.location) / ".venv").resolve()
    # What was written down by its absolute path is found there.
    written = dict(
        line.split(" = ") for line in (Path(artifact.location) / ".venv/pyvenv.cfg").read_text().splitlines()
    )
    if "command" in written:
        assert Path(written["command"].rsplit(" ", 1)[1]).exists()


@pytest.mark.parametrize("target", ["/etc/passwd", "../outside", "a/../../outside", "/usr/bin/python3"])
async def test_links_that_lead_out_are_refused(repository: Repository, build: Build, store: Path, target: str) -> None:
    repository.commit(a__file="1")
    (repository.path / "link").symlink_to(target)
    with pytest.raises(BuildFailed, match=f"build: link is a link to {target}, outside of the build"):
        await build()
    assert stored(store) == []


async def test_links_made_by_install_must_stay_inside(repository: Repository, build: Build, store: Path) -> None:
    repository.write(a="1")
    with pytest.raises(BuildFailed, match="build: b is a link to /etc, outside of the build"):
        await build("ln -s /etc b")
    assert stored(store) == []


@pytest.mark.parametrize("target", ["a", "./deep/../a", "link", "gone", "deep"])
async def test_links_inside_are_kept(repository: Repository, build: Build, target: str) -> None:
    repository.write(a="1", deep__b="1")
    (repository.path / "link").symlink_to(target)
    artifact = await build()
    assert os.readlink(f"{artifact.location}/link") == target  # noqa: PTH115 - as it was written


async def test_a_fifo_is_refused(repository: Repository, build: Build, store: Path) -> None:
    repository.write(a="1")
    with pytest.raises(BuildFailed, match="build: pipe is neither file, directory nor link"):
        await build("mkfifo pipe")
    assert stored(store) == []


async def test_failed_install_is_an_error(repository: Repository, build: Build, store: Path) -> None:
    repository.write(a="1")
    with pytest.raises(BuildFailed, match="build/install: exit code 3: no such package"):
        await build("echo no such package; echo; exit 3")
    assert stored(store) == []
    # and it can be tried again
    assert content(await build("echo 1 > b")) == {"a": "1", "b": "1\n"}


async def test_install_times_out(repository: Repository, store: Path, tmp_path: Path) -> None:
    repository.write(a="1")
    commit = committed(repository, tmp_path)
    install = installing("sleep 60", timeout=0.5)
    with pytest.raises(BuildFailed, match=r"build/install: timed out after 0\.5 s"):
        await bundles.build(commit, install, runner=HostRunner(), store=store, on_line=print)
    assert stored(store) == []


async def test_cancelled_build_leaves_no_files(
    repository: Repository, build: Build, store: Path, tmp_path: Path
) -> None:
    repository.write(a="1")
    building = build(f"touch {tmp_path}/started; sleep 60")
    async with asyncio.timeout(30):
        while not (tmp_path / "started").exists():
            await asyncio.sleep(0.01)
    building.cancel()
    with pytest.raises(asyncio.CancelledError):
        await building
    assert stored(store) == []


async def test_leftovers_of_a_killed_build_are_replaced(
    repository: Repository, build: Build, store: Path, tmp_path: Path
) -> None:
    repository.write(a="1")
    commit = committed(repository, tmp_path)
    pid = os.fork()
    if pid == 0:
        killing = f"touch half; kill -9 {os.getpid()}; sleep 1"
        asyncio.new_event_loop().run_until_complete(
            bundles.build(commit, installing(killing), runner=HostRunner(), store=store, on_line=print)
        )
        os._exit(0)
    assert await asyncio.to_thread(exit_code_of, pid) == -signal.SIGKILL
    (half,) = (path for path in store.glob("trees/*") if path.is_dir())
    assert content(await build(commit=commit)) == {"a": "1"}
    os.utime(half, (0, 0))
    assert bundles.prune(store, keep=[], older_than=60) == []
    assert not half.exists()


@pytest.mark.parametrize("install", [None, "head -c 3000000 /dev/zero > big", "seq 300000 > big"])
async def test_a_full_disk(
    repository: Repository, small_disk: Path, tmp_path: Path, lines: list[str], install: str | None
) -> None:
    repository.write(a="1" * (100 if install else 3_000_000))
    commit = committed(repository, tmp_path)
    workload = installing(install) if install else None
    with pytest.raises(
        BuildFailed,
        match=r"(No space left on device|unable to write file a); nothing of the build was kept\n  hint: make room",
    ):
        await bundles.build(commit, workload, runner=HostRunner(), store=small_disk / "store", on_line=lines.append)
    assert stored(small_disk / "store") == []
    assert shutil.disk_usage(small_disk).used < 100_000


def test_file_size_limit_is_an_error(repository: Repository, store: Path, tmp_path: Path) -> None:
    """A file-size limit simulates a full disk without root rights."""
    repository.write(a="1" * 3_000_000)
    commit = committed(repository, tmp_path)
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            asyncio.new_event_loop().run_until_complete(
                bundles.build(commit, None, runner=HostRunner(), store=store, on_line=print)
            )
        except BuildFailed:
            status = 0
        finally:
            os._exit(status)
    assert exit_code_of(pid) == 0
    assert stored(store) == []


async def test_prune(repository: Repository, build: Build, store: Path) -> None:
    made = []
    for number in range(3):
        repository.write(a=str(number))
        made.append(await build("mkdir d; touch d/f; chmod 555 d"))
    old, kept, _ = made
    for artifact in (old, kept):
        os.utime(artifact.location, (0, 0), follow_symlinks=False)
    assert bundles.prune(store, keep={kept.digest}, older_than=3600) == [old.digest]
    assert [Path(artifact.location).exists() for artifact in made] == [False, True, True]
    assert len(list(store.glob("keys/*"))) == 2
    assert len([path for path in store.glob("trees/*") if path.is_dir()]) == 2
    repository.write(a="0")
    assert await build("mkdir d; touch d/f; chmod 555 d") == old


async def test_reused_bundle_is_pruned_later(repository: Repository, build: Build, store: Path) -> None:
    repository.write(a="1")
    artifact = await build()
    os.utime(artifact.location, (0, 0), follow_symlinks=False)
    await build()
    assert bundles.prune(store, keep=[], older_than=3600) == []


async def test_prune_keeps_a_bundle_that_is_being_built(
    repository: Repository, build: Build, store: Path, tmp_path: Path
) -> None:
    repository.write(a="1")
    building = build(f"touch {tmp_path}/started; while [ ! -e {tmp_path}/go-on ]; do sleep 0.02; done")
    async with asyncio.timeout(30):
        while not (tmp_path / "started").exists():
            await asyncio.sleep(0.01)
    assert bundles.prune(store, keep=[], older_than=-1) == []
    (tmp_path / "go-on").touch()
    assert content(await building) == {"a": "1"}
