from __future__ import annotations

import multiprocessing
import os
import re
import socket
import subprocess
from collections.abc import Iterator
from datetime import UTC
from pathlib import Path

import filelock
import pytest

from headway.domain.errors import SourceError
from headway.domain.source import Source
from headway.scm import git
from tests.standins.repositories import Repository

pytestmark = pytest.mark.slow


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path / "shop")


@pytest.fixture
def workspaces(tmp_path: Path) -> Path:
    return tmp_path / "workspaces"


def checkout(repository: Repository, ref: str, workspaces: Path) -> Source:
    return git.checkout(str(repository.path), ref, workspaces)


def url(repository: Repository) -> str:
    """The same repository as a stranger sees it: through git's transport."""
    return f"file://{repository.path}"


# --- inspect -----------------------------------------------------------------------------------------------------


def test_inspect_a_clean_repository(repository: Repository) -> None:
    sha = repository.commit(a="1")
    assert git.inspect(repository.path) == (repository.path, sha, "main", ())


def test_inspect_from_a_subdirectory(repository: Repository) -> None:
    sha = repository.commit(deep__er__a="1")
    assert git.inspect(repository.path / "deep" / "er") == (repository.path, sha, "main", ())


def test_inspect_with_a_ref(repository: Repository) -> None:
    first = repository.commit(a="1")
    repository.commit(a="2")
    repository.write(a="3")
    assert git.inspect(repository.path, "HEAD~1") == (repository.path, first, "HEAD~1", ())


def test_inspect_a_detached_head(repository: Repository) -> None:
    sha = repository.commit(a="1")
    repository.git("checkout", "--quiet", "--detach")
    assert git.inspect(repository.path) == (repository.path, sha, "HEAD", ())


def test_inspect_a_bare_repository(repository: Repository, tmp_path: Path) -> None:
    sha = repository.commit(a="1")
    bare = tmp_path / "bare.git"
    repository.git("clone", "--quiet", "--bare", ".", str(bare))
    with pytest.raises(
        SourceError, match=r"bare\.git: is a bare repository: name a commit with --ref\n  hint: .*--ref"
    ):
        git.inspect(bare)
    assert git.inspect(bare, "main") == (bare, sha, "main", ())


def refused(path: Path, ref: str | None = None) -> SourceError:
    with pytest.raises(SourceError) as refusal:
        git.inspect(path, ref)
    assert refusal.value.exit_code == 2
    assert refusal.value.hint
    assert refusal.value.what.startswith(str(path))
    assert "\n" not in refusal.value.what
    return refusal.value


def test_not_a_repository_is_an_error(tmp_path: Path) -> None:
    assert "not a git repository" in refused(tmp_path).what
    assert "git init" in refused(tmp_path).hint


def test_missing_directory_is_an_error(tmp_path: Path) -> None:
    assert refused(tmp_path / "gone").what.endswith("no such directory")


def test_inside_the_git_directory(repository: Repository) -> None:
    assert refused(repository.path / ".git").what.endswith("is inside a .git directory")


def test_an_empty_repository(repository: Repository) -> None:
    assert refused(repository.path).what.endswith("has no commit yet")
    assert "no branch, tag or commit 'main'" in refused(repository.path, "main").what


def test_uncommitted_changes_are_named(repository: Repository) -> None:
    repository.commit(**{f"f{number}": "1" for number in range(7)})
    repository.write(**{f"f{number}": "2" for number in range(7)})
    assert refused(repository.path).what.endswith("has uncommitted changes: f0, f1, f2, f3, f4, ...")
    assert refused(repository.path).hint == "commit or stash them, or name the commit: --ref HEAD"


def test_an_untracked_file_is_no_change(repository: Repository) -> None:
    sha = repository.commit(a="1")
    repository.write(headway_dot_yaml="app: shop", new__b="1")
    assert git.inspect(repository.path) == (repository.path, sha, "main", ("headway.yaml", "new/"))
    repository.write(a="2")
    assert refused(repository.path).what.endswith("has uncommitted changes: a")


def test_another_users_repository(repository: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    repository.commit(a="1")
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    refusal = refused(repository.path)
    assert "dubious ownership" in refusal.what
    assert f"safe.directory {repository.path}" in refusal.hint


def test_started_from_a_hook_of_another_repository(
    repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sha = repository.commit(a="1")
    other = Repository(tmp_path / "other")
    monkeypatch.setenv("GIT_DIR", str(other.path / ".git"))
    monkeypatch.setenv("GIT_INDEX_FILE", str(other.path / "index"))
    assert git.inspect(repository.path).sha == sha


def test_without_git(repository: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(SourceError, match="git: not installed"):
        git.inspect(repository.path)


# --- resolve -----------------------------------------------------------------------------------------------------


@pytest.fixture
def history(repository: Repository) -> tuple[Repository, str, str]:
    """Two commits; `v1` is an annotated tag of the first, `main` and the branch `feature/x` are the second."""
    first = repository.commit(a="1")
    repository.git("tag", "-a", "v1", "-m", "one")
    second = repository.commit(a="2")
    repository.git("branch", "feature/x")
    return repository, first, second


@pytest.mark.parametrize("remote", [False, True])
@pytest.mark.parametrize(
    ("ref", "which"),
    [("main", 2), ("feature/x", 2), ("refs/heads/main", 2), ("HEAD", 2), ("v1", 1), ("refs/tags/v1^{}", 1)],
)
def test_commit_names_are_resolved(history: tuple[Repository, str, str], ref: str, which: int, remote: bool) -> None:
    repository = history[0]
    assert git.resolve(url(repository) if remote else str(repository.path), ref) == history[which]


def test_full_sha_is_used_unchanged(history: tuple[Repository, str, str]) -> None:
    assert git.resolve(url(history[0]), history[1].upper()) == history[1]


def test_a_short_sha(history: tuple[Repository, str, str]) -> None:
    repository, first, _ = history
    assert git.resolve(str(repository.path), first[:7]) == first
    with pytest.raises(SourceError, match="full sha"):
        git.resolve(url(repository), first[:7])


@pytest.mark.parametrize("remote", [False, True])
def test_an_unknown_ref_names_the_nearest(history: tuple[Repository, str, str], remote: bool) -> None:
    repo = url(history[0]) if remote else str(history[0].path)
    with pytest.raises(SourceError) as refusal:
        git.resolve(repo, "feature/y")
    assert refusal.value.what == f"{repo}: no branch, tag or commit 'feature/y'"
    assert refusal.value.hint == "did you mean feature/x?"
    with pytest.raises(SourceError, match=r"hint: it has .*feature/x, main"):
        git.resolve(repo, "zzzzz")


@pytest.mark.parametrize("ref", ["", "--upload-pack=touch x", "-h"])
def test_ref_is_never_parsed_as_an_option(history: tuple[Repository, str, str], ref: str) -> None:
    with pytest.raises(SourceError, match="is not a branch, tag or commit"):
        git.resolve(str(history[0].path), ref)


def test_repository_is_never_parsed_as_an_option(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no such directory"):
        git.resolve("--upload-pack=touch x:y", "main")


@pytest.mark.parametrize("repo", ["/not/there", "not-there", "file:///not/there"])
def test_missing_repository_is_an_error(repo: str) -> None:
    with pytest.raises(SourceError, match=rf"^{repo}: .*(no such directory|does not (appear|exist))"):
        git.resolve(repo, "main")


def test_unreachable_host_is_an_error() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, not listening: refused
        with pytest.raises(SourceError, match="reachable") as refusal:
            git.resolve(f"http://ada:hunter22@127.0.0.1:{taken.getsockname()[1]}/shop.git", "main")
    assert "hunter22" not in str(refusal.value)


@pytest.fixture
def silent_server() -> Iterator[int]:
    """Takes connections and says nothing."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield server.getsockname()[1]


def test_hanging_host_times_out(silent_server: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headway.scm.git.refs.FETCH_TIMEOUT", 0.3)
    address = f"http://127.0.0.1:{silent_server}/shop.git"
    with pytest.raises(SourceError, match=rf"^{address}: git ls-remote did not end within 0\.3 s"):
        git.resolve(address, "main")


# --- checkout ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("remote", [False, True])
def test_checkout_has_the_exact_commit_in_its_own_workspace(
    history: tuple[Repository, str, str], workspaces: Path, remote: bool
) -> None:
    repository, first, _ = history
    repo = url(repository) if remote else str(repository.path)
    made = git.checkout(repo, first, workspaces)
    workspace = Path(made.workspace)
    assert (workspace / "a").read_text() == "1"
    assert workspace.parent.parent == workspaces
    assert made.sha == first
    assert made.ref == first
    assert made.repo == repo
    assert made.tree == repository.git("rev-parse", f"{first}^{{tree}}")
    assert made.author == "Ada <ada@example.org>"
    assert made.subject == "Change"
    assert made.committed_at.astimezone(UTC).tzinfo is UTC
    assert git.inspect(workspace).sha == first


def test_checkout_does_not_follow_the_branch(repository: Repository, workspaces: Path) -> None:
    repository.commit(a="1")
    before = checkout(repository, "main", workspaces)
    after_sha = repository.commit(a="2")
    after = checkout(repository, "main", workspaces)
    assert (Path(before.workspace) / "a").read_text() == "1"
    assert (Path(after.workspace) / "a").read_text() == "2"
    assert after.sha == after_sha


def test_two_checkouts_are_isolated(repository: Repository, workspaces: Path) -> None:
    repository.commit(a="1")
    one, two = (Path(checkout(repository, "main", workspaces).workspace) for _ in range(2))
    (one / "a").write_text("changed")
    assert (two / "a").read_text() == "1"


def test_the_same_run_gets_the_same_workspace(repository: Repository, workspaces: Path) -> None:
    repository.commit(a="1")
    one, two = (git.checkout(str(repository.path), "main", workspaces, "run-1") for _ in range(2))
    assert one == two
    assert one.workspace.endswith("-run-1")


def test_the_workspace_has_the_history(history: tuple[Repository, str, str], workspaces: Path) -> None:
    repository, first, second = history
    made = checkout(repository, "main", workspaces)
    assert [commit.sha for commit in git.commits_between(Path(made.workspace), None, made.sha)] == [second, first]


def test_changes_in_a_workspace_do_not_affect_later_checkouts(repository: Repository, workspaces: Path) -> None:
    sha = repository.commit(a="1")
    made = git.checkout(str(repository.path), "main", workspaces, "run-1")
    config = Path(made.workspace) / ".git" / "config"
    config.write_text(config.read_text() + "[core]\n\tworktree = /nowhere\n[user]\n\tname = Mallory\n")
    (Path(made.workspace) / ".git" / "HEAD").write_text("0" * 40)
    again = git.checkout(str(repository.path), "main", workspaces, "run-1")
    assert again == made
    mirror = git.mirror_of(made.workspace)
    assert [one.sha for one in git.commits_between(mirror, None, sha)] == [sha]
    assert git.tree_of(mirror, sha, ["a"])


def test_commit_is_inspected_without_a_checkout(repository: Repository, workspaces: Path) -> None:
    sha = repository.commit(a="1")
    seen = git.describe(str(repository.path), sha, workspaces)
    assert seen.workspace == ""
    assert list(workspaces.glob("*/*-*")) == []
    made = checkout(repository, sha, workspaces)
    assert seen == made.model_copy(update={"workspace": ""})


def test_failed_checkout_leaves_no_files(repository: Repository, workspaces: Path) -> None:
    repository.commit(a="1")
    with pytest.raises(SourceError, match=r"has no commit 0{40}\n  hint: was it pushed"):
        checkout(repository, "0" * 40, workspaces)
    assert [path.name for path in workspaces.glob("*/*") if not path.name.startswith("mirror.")] == []


def test_server_that_refuses_fetches_by_sha(
    repository: Repository, workspaces: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = repository.commit(a="1")
    repository.commit(a="2")
    config = workspaces.with_name("config")
    config.write_text("[protocol]\nversion = 0\n")  # which only allows fetching refs
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(config))
    made = git.checkout(url(repository), wanted, workspaces)
    assert (Path(made.workspace) / "a").read_text() == "1"


def test_local_hooks_and_templates_do_not_run(
    repository: Repository, workspaces: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository.commit(a="1")
    hooks = workspaces.with_name("template") / "hooks"
    hooks.mkdir(parents=True)
    (hooks / "post-checkout").write_text(f"#!/bin/sh\ntouch {workspaces.with_name('ran')}\n")
    (hooks / "post-checkout").chmod(0o755)
    config = workspaces.with_name("config")
    config.write_text(f"[core]\nhooksPath = {hooks}\n[init]\ntemplateDir = {hooks.parent}\n")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(config))
    checkout(repository, "main", workspaces)
    assert not workspaces.with_name("ran").exists()


def test_configuration_of_the_user_changes_no_file_and_no_answer(
    repository: Repository, workspaces: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository.commit("Caf\u00e9", a="1\n2\n")
    attributes = workspaces.with_name("attributes")
    attributes.write_text("* filter=shout\n")
    config = workspaces.with_name("config")
    config.write_text(
        "[core]\nautocrlf = true\neol = crlf\nfsmonitor = false-program\n"
        f'attributesFile = {attributes}\n[filter "shout"]\nsmudge = tr 1 9\n'
        "[color]\nui = always\n[i18n]\nlogOutputEncoding = latin-1\n[log]\nshowSignature = true\n"
        "[status]\nshowUntrackedFiles = no\n"
    )
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(config))
    monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
    monkeypatch.setenv("GIT_CONFIG_KEY_0", "core.abbrev")
    monkeypatch.setenv("GIT_CONFIG_VALUE_0", "12")
    made = checkout(repository, "main", workspaces)
    assert (Path(made.workspace) / "a").read_bytes() == b"1\n2\n"
    assert made.subject == "Caf\u00e9"
    assert git.changed_paths(repository.path, made.sha, made.sha) == []
    assert git.environment()["GIT_CONFIG_VALUE_0"] == "12"
    repository.write(b="untracked")
    assert git.inspect(repository.path).untracked == ("b",)


def test_commit_subject_without_control_characters(repository: Repository, workspaces: Path) -> None:
    sha = repository.commit("Fix \x1b[2J\x1b[31mred\x07 \u202eevil")
    assert git.checkout(str(repository.path), sha, workspaces).subject == "Fix [2J [31mred evil"


def test_replaced_commit_is_not_what_is_checked_out(repository: Repository, workspaces: Path) -> None:
    """`git replace` makes git show another commit under the hash of the first."""
    sha = repository.commit(a="checked")
    git.checkout(str(repository.path), sha, workspaces)
    other = repository.commit(a="other")
    mirror = next(workspaces.glob("*/mirror.git"))
    git.checkout(str(repository.path), other, workspaces)
    subprocess.run(["git", "replace", sha, other], cwd=mirror, check=True)
    again = git.checkout(str(repository.path), sha, workspaces)
    assert (Path(again.workspace) / "a").read_text() == "checked"


def test_damaged_commit_is_not_fetched(repository: Repository, workspaces: Path) -> None:
    """A tree with an entry called `.git` would put a hook into every checkout."""
    blob = repository.git("hash-object", "-w", "--stdin")
    entry = b"100644 .git\0" + bytes.fromhex(blob)
    made = ["git", "hash-object", "-w", "-t", "tree", "--literally", "--stdin"]
    tree = (
        subprocess.run(made, cwd=repository.path, input=entry, capture_output=True, check=True).stdout.decode().strip()
    )
    sha = repository.git("commit-tree", tree, "-m", "evil")
    repository.git("update-ref", "refs/heads/evil", sha)
    with pytest.raises(SourceError, match=r"hasDotgit|\.git"):
        git.checkout(str(repository.path), "evil", workspaces)


def test_repository_with_sha_256_is_fetched_and_checked_out(workspaces: Path, tmp_path: Path) -> None:
    repository = Repository(tmp_path / "modern", object_format="sha256")
    assert git.fetch_tip(url(repository), "refs/heads/main", workspaces) is None  # no commit yet
    first = repository.commit(a="1")
    assert len(first) == 64
    tip = git.fetch_tip(url(repository), "refs/heads/main", workspaces)
    assert tip
    assert tip.sha == first
    made = checkout(repository, "main", workspaces)
    assert (Path(made.workspace) / "a").read_text() == "1"
    second = repository.commit(a="2")
    made = git.checkout(url(repository), second, workspaces)
    assert (made.sha, len(made.tree)) == (second, 64)
    assert git.changed_paths(tip.mirror, first, second) == ["a"]
    assert git.inspect(repository.path, "HEAD").sha == second


def test_submodules_are_refused(repository: Repository, workspaces: Path, tmp_path: Path) -> None:
    library = Repository(tmp_path / "library")
    library.commit(a="1")
    repository.commit(a="1")
    repository.git("-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(library.path), "vendor/lib")
    repository.commit()
    with pytest.raises(SourceError, match=r"has submodules \(vendor/lib\), which are not fetched"):
        checkout(repository, "main", workspaces)


@pytest.mark.parametrize("name", ["_dot_gitattributes", "deep__er___dot_gitattributes"])
def test_large_files_are_refused(repository: Repository, workspaces: Path, name: str) -> None:
    repository.commit(**{name: "*.bin filter=lfs diff=lfs merge=lfs -text\n"})
    with pytest.raises(SourceError, match="Git LFS, which are not fetched"):
        checkout(repository, "main", workspaces)


def _checkout_in_a_process(repo: str, workspaces: Path, results: multiprocessing.Queue[str]) -> None:
    results.put(git.checkout(repo, "main", workspaces).workspace)


def test_concurrent_checkouts_all_succeed(repository: Repository, workspaces: Path) -> None:
    repository.commit(a="1")
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    running = [
        context.Process(target=_checkout_in_a_process, args=(str(repository.path), workspaces, results))
        for _ in range(4)
    ]
    for process in running:
        process.start()
    made = {results.get(timeout=60) for _ in running}
    for process in running:
        process.join(60)
    assert len(made) == 4
    assert all((Path(workspace) / "a").read_text() == "1" for workspace in made)


def test_fetches_of_one_mirror_are_serialized(repository: Repository, workspaces: Path) -> None:
    repository.commit(a="1")
    made = Path(checkout(repository, "main", workspaces).workspace)
    with (
        filelock.FileLock(made.parent / "mirror.lock"),
        pytest.raises(SourceError, match=r"another process has been fetching for over 0\.1 s"),
    ):
        git.checkout(str(repository.path), "main", workspaces, timeout=0.1)


def test_credentials_are_not_recorded(repository: Repository, workspaces: Path) -> None:
    sha = repository.commit(a="1")
    # git takes a user in front of a file URL's path as a host it has no use for.
    made = git.checkout(f"file://ada:hunter22@{repository.path}", sha, workspaces)
    assert made.repo == f"file://{repository.path}"
    found = subprocess.run(["grep", "-r", "hunter22", workspaces], capture_output=True, text=True, check=False)
    assert found.stdout == ""


def test_old_workspaces_are_pruned(repository: Repository, workspaces: Path) -> None:
    repository.commit(a="1")
    old, kept, new = (Path(checkout(repository, "main", workspaces).workspace) for _ in range(3))
    for path in (old, kept):
        os.utime(path, (0, 0))
    assert git.prune(workspaces, older_than=3600, keep=[kept]) == [old]
    assert not old.exists()
    assert kept.exists()
    assert new.exists()
    assert Path(checkout(repository, "main", workspaces).workspace).exists()


# --- what is in a commit -----------------------------------------------------------------------------------------


def test_tree_digest_changes_only_with_its_paths(repository: Repository) -> None:
    repository.commit(src__a="1", docs__a="1", package="1")

    def trees() -> list[str]:
        asked = [["src"], ["src", "package"], ["package"], ["."]]
        return [git.tree_of(repository.path, "HEAD", paths) for paths in asked]

    before = trees()
    assert len(set(before)) == 4
    repository.write(src__a="uncommitted")
    assert trees() == before
    repository.commit(src__a="1", docs__a="2")
    assert [one == other for one, other in zip(before, trees(), strict=True)] == [True, True, True, False]
    repository.commit(src__a="2")
    assert [one == other for one, other in zip(before, trees(), strict=True)] == [False, False, True, False]


def test_tree_digest_ignores_the_spelling_of_paths(repository: Repository) -> None:
    repository.commit(src__a="1", b="1")
    assert git.tree_of(repository.path, "HEAD", ["src/", "b", "b"]) == git.tree_of(
        repository.path, "HEAD", ["b", "./src"]
    )


def test_tree_digest_of_a_missing_path(repository: Repository) -> None:
    repository.commit(a="1")
    with pytest.raises(SourceError, match=r"^inputs/paths: srk: not in the commit"):
        git.tree_of(repository.path, "HEAD", ["a", "srk"])


def test_commits_between(repository: Repository) -> None:
    first = repository.commit("One: \x1d é")
    second = repository.commit("Two")
    third = repository.commit("Three")
    between = git.commits_between(repository.path, first, third)
    assert [(commit.sha, commit.subject) for commit in between] == [(third, "Three"), (second, "Two")]
    assert between[0].author == "Ada <ada@example.org>"
    assert [commit.subject for commit in git.commits_between(repository.path, None, third, limit=1)] == ["Three"]
    assert git.commits_between(repository.path, third, first) == []


def test_commits_between_unknown_commits(repository: Repository) -> None:
    sha = repository.commit()
    with pytest.raises(SourceError, match=re.escape(f"{repository.path}: has no commit {'0' * 40}")):
        git.commits_between(repository.path, "0" * 40, sha)


@pytest.mark.parametrize("address", ["ext::touch {mark}", "git://127.0.0.1/shop", "ftp://127.0.0.1/shop", "fd::17"])
def test_url_cannot_start_a_program_or_use_another_protocol(workspaces: Path, address: str) -> None:
    mark = workspaces / "started"
    with pytest.raises(SourceError, match="not allowed"):
        git.fetch_tip(address.format(mark=mark), "refs/heads/main", workspaces, timeout=20)
    assert not mark.exists()


def test_tip_is_the_current_commit_of_the_ref(repository: Repository, workspaces: Path) -> None:
    first = repository.commit(a="1")
    tip = git.fetch_tip(str(repository.path), "refs/heads/main", workspaces)
    assert tip
    assert tip.sha == first
    second = repository.commit("Second\n\nwith a body", a="2", b="3")
    tip = git.fetch_tip(str(repository.path), "refs/heads/main", workspaces)
    assert tip
    assert tip.sha == second
    assert sorted(git.changed_paths(tip.mirror, first, second) or []) == ["a", "b"]
    assert git.changed_paths(tip.mirror, "9" * 40, second) is None
    assert git.changed_paths(tip.mirror, None, second) is None
    assert git.message_of(tip.mirror, second).strip() == "Second\n\nwith a body"
    assert git.file_of(tip.mirror, second, "a", limit=10) == "2"
    assert git.file_of(tip.mirror, second, "a", limit=0) is None
    assert git.file_of(tip.mirror, second, "c", limit=10) is None
    assert git.unknown(tip.mirror, [first, second, "9" * 40, first[:12]]) == {"9" * 40}
    assert git.unknown(tip.mirror, []) == set()
    assert git.fetch_tip(str(repository.path), "refs/heads/gone", workspaces) is None
