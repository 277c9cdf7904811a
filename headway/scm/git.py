"""From a repository and a ref to one commit, laid out in a workspace of its own. All of it through the `git` program.

Everything here blocks for a bounded time and raises SourceError, in which credentials of a URL are never shown.
"""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import os
import re
import shutil
import signal
import subprocess
import time
import uuid
from collections.abc import Collection, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

import filelock

from headway.domain.errors import SourceError
from headway.domain.source import Source
from headway.system import directories

__all__ = [
    "Commit",
    "LocalRepo",
    "Tip",
    "changed_paths",
    "checkout",
    "commits_between",
    "export_command",
    "fetch_tip",
    "file_of",
    "fork_point",
    "inspect",
    "message_of",
    "prune",
    "resolve",
    "tree_of",
    "unknown",
]

FETCH_TIMEOUT = 600.0
LOCAL_TIMEOUT = 120.0
FULL_SHA = re.compile(r"[0-9a-f]{40}")
UNFINISHED = ".unfinished-"

# Set when we are started from a git hook; they would redirect every git command to that repository.
_OF_ANOTHER_REPOSITORY = re.compile(
    "GIT_(DIR|WORK_TREE|INDEX_FILE|PREFIX|COMMON_DIR|NAMESPACE|OBJECT_DIRECTORY|ALTERNATE_OBJECT_DIRECTORIES"
    "|SHALLOW_FILE|GRAFT_FILE|QUARANTINE_PATH)"
)


class LocalRepo(NamedTuple):
    """A repository on this machine and the commit of it that is meant."""

    root: Path  # the top of its work tree, or the bare repository itself
    sha: str
    ref: str


class Tip(NamedTuple):
    """The commit that a ref of a repository elsewhere names now, and the mirror that has it."""

    mirror: Path
    sha: str


class Commit(NamedTuple):
    """One line of a history."""

    sha: str
    author: str
    subject: str


# --- for the command line ---------------------------------------------------------------------------------------


def inspect(path: Path, ref: str | None = None) -> LocalRepo:
    """The repository that `path` is in and the commit that is meant: `ref`, or what is checked out and all committed.

    Raises SourceError when it is no repository, has no commit, is bare or has uncommitted changes and no `ref` is
    given, or the ref is unknown.
    """
    if not path.is_dir():
        raise SourceError(f"{path}: no such directory", "name the directory of a git repository")
    bare = _git("rev-parse", "--is-bare-repository", cwd=path).strip() == "true"
    if bare:
        root = Path(_git("rev-parse", "--absolute-git-dir", cwd=path).strip())
    elif _git("rev-parse", "--is-inside-work-tree", cwd=path).strip() == "true":
        root = Path(_git("rev-parse", "--show-toplevel", cwd=path).rstrip("\n"))
    else:
        raise SourceError(f"{path}: is inside a .git directory", "name the directory of the work tree")
    if ref is not None:
        return LocalRepo(root, resolve(str(root), ref), ref)
    if bare:
        raise SourceError(f"{path}: is a bare repository: name a commit with --ref", "for example: --ref main")
    if not (sha := _commit(root, "HEAD")):
        raise SourceError(f"{root}: has no commit yet", "commit something first: git add -A && git commit")
    if changed := _git("status", "--porcelain", cwd=root).splitlines():
        shown = ", ".join(line[3:] for line in changed[:5]) + (", ..." if len(changed) > 5 else "")
        raise SourceError(
            f"{root}: has uncommitted changes: {shown}", "commit or stash them, or name the commit: --ref HEAD"
        )
    return LocalRepo(root, sha, _git("rev-parse", "--abbrev-ref", "HEAD", cwd=root).strip())


# --- from a ref to a commit --------------------------------------------------------------------------------------


def resolve(repo: str, ref: str) -> str:
    """The full sha of the commit that a branch, tag or sha names in the repository at a path or URL.

    A full sha is taken as it is. Anything that git understands works for a repository on this machine; of a remote one
    only its branches, tags and full names (`refs/...`) can be asked for. A tag goes before a branch of the same name,
    as in git. Raises SourceError for an unknown ref, naming the nearest.
    """
    if FULL_SHA.fullmatch(ref.lower()):
        return ref.lower()
    if not ref or ref.startswith("-"):
        raise SourceError(f"{_shown(repo)}: {ref!r} is no branch, tag or commit", "name a branch, a tag or a full sha")
    local = _local(repo)
    if local:
        found, names = _commit(local, ref), _local_names(local)
    else:
        refs = _remote_refs(repo)
        ways = (ref, f"refs/tags/{ref}^{{}}", f"refs/tags/{ref}", f"refs/heads/{ref}")
        found = next((refs[way] for way in ways if way in refs), None)
        names = [_short(name) for name in refs]
    if found:
        return found
    raise SourceError(f"{_shown(repo)}: no branch, tag or commit {ref!r}", _nearest(ref, names, remote=not local))


def _nearest(ref: str, names: Sequence[str], *, remote: bool) -> str:
    known = sorted({name for name in names if not name.endswith("^{}")})
    near = difflib.get_close_matches(ref, known, n=3, cutoff=0.5)
    if near:
        return f"did you mean {' or '.join(near)}?"
    if remote and re.fullmatch(r"[0-9a-f]{4,39}", ref):
        return "a remote repository can only be asked for a full sha of 40 digits"
    return f"it has {', '.join(known[:5])}{' ...' if len(known) > 5 else ''}" if known else "it has no commit yet"


def _short(name: str) -> str:
    return re.sub("^refs/(heads|tags)/", "", name)


def _local(repo: str) -> Path | None:
    """The directory of a repository on this machine; None for a URL, in git's own sense of it."""
    path = Path(repo).expanduser()
    if path.is_dir():
        return path.resolve()
    if "://" in repo or re.match(r"[^/-][^/]*:", repo):
        return None
    raise SourceError(f"{_shown(repo)}: no such directory", "name the directory or the URL of a git repository")


def _local_names(repo: Path) -> list[str]:
    return [_short(name) for name in _git("for-each-ref", "--format=%(refname)", cwd=repo).splitlines()]


def _remote_refs(repo: str) -> dict[str, str]:
    rows = _git("ls-remote", "--", repo, timeout=FETCH_TIMEOUT).splitlines()
    return {name: sha for sha, name in (row.split("\t", 1) for row in rows)}


def _commit(repo: Path, ref: str) -> str | None:
    """The commit that a repository on this machine knows by this name."""
    asked = _run(["rev-parse", "--verify", "--quiet", "--end-of-options", f"{ref}^{{commit}}"], repo, LOCAL_TIMEOUT)
    # Quiet: 1 and not a word means unknown, and anything said is a trouble of another kind.
    if asked.returncode and "fatal" in asked.stderr and "Needed a single revision" not in asked.stderr:
        raise _trouble(asked, repo)
    return None if asked.returncode else asked.stdout.strip()


# --- from a commit to a workspace --------------------------------------------------------------------------------


def checkout(
    repo: str, ref: str, workspaces: Path, run: str | None = None, *, timeout: float = FETCH_TIMEOUT
) -> Source:
    """Lay out the commit that `ref` names now in a workspace of its own, and say what it is.

    The workspace is WORKSPACES/<repository>/<sha>-<run>, a git repository with that commit checked out and no branch;
    `run` (by default something unique) is who it is for, and asking again for the same run gives the same workspace.
    Whoever runs there may change it: what is in the commit is asked of the mirror, see `mirror_of`.
    Objects are fetched once into a mirror beside the workspaces, from which they borrow: do not delete it alone.
    `timeout` is for a fetch, in seconds.

    Raises SourceError when the ref or the commit is unknown, the repository does not answer, or the tree has submodules
    or files in Git LFS, which are not fetched.
    """
    sha = resolve(repo, ref)
    origin, place = _place(repo, workspaces)
    mirror = place / "mirror.git"
    workspace = place / f"{sha}-{run or uuid.uuid4().hex[:12]}"
    with _locked(place / "mirror.lock", timeout):
        _fetch(mirror, origin, sha, timeout)
        _refuse_partial_trees(mirror, sha, repo)
        if not workspace.exists():
            _lay_out(mirror, sha, workspace)
    return _described(mirror, _shown(origin), ref, sha, workspace)


def look(repo: str, sha: str, workspaces: Path, *, timeout: float = FETCH_TIMEOUT) -> Source:
    """Say what a commit is without laying it out: there is no workspace.

    Raises SourceError when the commit is unknown or the repository does not answer.
    """
    origin, place = _place(repo, workspaces)
    with _locked(place / "mirror.lock", timeout):
        _fetch(place / "mirror.git", origin, sha, timeout)
    return _described(place / "mirror.git", _shown(origin), sha, sha, None)


def mirror_of(workspace: str | Path) -> Path:
    """The repository that a workspace was laid out of: nobody else writes there."""
    return Path(workspace).parent / "mirror.git"


def _place(repo: str, workspaces: Path) -> tuple[str, Path]:
    """Where a repository is, in full, and the directory of its mirror and workspaces."""
    local = _local(repo)
    origin = str(local) if local else repo
    place = workspaces / _directory_name(origin)
    place.mkdir(parents=True, exist_ok=True)
    return origin, place


def _directory_name(origin: str) -> str:
    name = re.sub(r"[^A-Za-z0-9_-]+", "-", origin.rstrip("/").removesuffix(".git").rsplit("/", 1)[-1]).strip("-")
    return f"{name[:40] or 'repo'}-{hashlib.sha256(origin.encode()).hexdigest()[:10]}"


@contextlib.contextmanager
def _locked(path: Path, timeout: float) -> Iterator[None]:
    """One process at a time; the kernel opens the lock of one that died."""
    try:
        with filelock.FileLock(path, timeout=timeout):
            yield
    except filelock.Timeout as error:
        raise SourceError(
            f"{path.parent}: another process has been fetching for over {timeout:g} s", "try again when it is done"
        ) from error


FETCH = ("fetch", "--quiet", "--no-tags", "--no-write-fetch-head", "--no-recurse-submodules")


def _make_mirror(mirror: Path) -> None:
    if not (mirror / "HEAD").exists():
        _git("init", "--quiet", "--bare", "--template=", str(mirror))
        # Workspaces borrow objects that no ref of the mirror may name any more.
        _git("config", "gc.auto", "0", cwd=mirror)


def _fetch(mirror: Path, origin: str, sha: str, timeout: float) -> None:
    _make_mirror(mirror)
    if _commit(mirror, sha):
        return
    exact = _run([*FETCH, "--", origin, f"+{sha}:refs/headway/{sha}"], mirror, timeout)
    if exact.returncode and not re.search("not our ref|unadvertised object|upload-pack: not", exact.stderr):
        raise _trouble(exact, origin)
    if exact.returncode:
        # The server gives nothing but what a ref names: so fetch all those, and look whether it was among them.
        every = ["+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*"]
        _git(*FETCH, "--", origin, *every, cwd=mirror, timeout=timeout)
        if not _commit(mirror, sha):
            raise SourceError(f"{_shown(origin)}: has no commit {sha}", "was it pushed, and to this repository?")
        _git("update-ref", f"refs/headway/{sha}", sha, cwd=mirror)


def _refuse_partial_trees(mirror: Path, sha: str, repo: str) -> None:
    """What git would leave out without a word: an empty directory for a submodule, a pointer for a file in LFS."""
    entries = _git("ls-tree", "-r", "-z", sha, cwd=mirror).split("\0")
    if modules := [entry.split("\t", 1)[1] for entry in entries if entry.startswith("160000 ")]:
        raise SourceError(
            f"{_shown(repo)}: {sha[:7]} has submodules ({', '.join(modules[:3])}), which are not fetched",
            "keep their files in the repository (git subtree), or install them as packages",
        )
    filters = _run(["grep", "-l", "filter=lfs", sha, "--", ":(glob)**/.gitattributes"], mirror, LOCAL_TIMEOUT)
    if filters.returncode == 0:
        raise SourceError(
            f"{_shown(repo)}: {sha[:7]} keeps files in Git LFS, which are not fetched",
            "keep them in the repository, or fetch them in build/install from where they are",
        )


def _lay_out(mirror: Path, sha: str, workspace: Path) -> None:
    unfinished = workspace.with_name(f"{UNFINISHED}{uuid.uuid4().hex[:12]}")
    try:
        _git("init", "--quiet", "--template=", str(unfinished))
        alternates = unfinished / ".git" / "objects" / "info" / "alternates"
        alternates.parent.mkdir(exist_ok=True)
        alternates.write_text(f"{mirror / 'objects'}\n")
        _git("-c", "core.hooksPath=/dev/null", "checkout", "--quiet", "--detach", sha, cwd=unfinished)
        unfinished.rename(workspace)
    finally:
        directories.remove(unfinished)


def _described(mirror: Path, repo: str, ref: str, sha: str, workspace: Path | None) -> Source:
    fields = _git("show", "--no-patch", "--format=%T%x00%an <%ae>%x00%s%x00%cI", sha, cwd=mirror)
    tree, author, subject, committed = fields.rstrip("\n").split("\0")
    return Source(
        repo=repo,
        ref=ref,
        sha=sha,
        tree=tree,
        author=author,
        subject=subject,
        committed_at=datetime.fromisoformat(committed),
        workspace=str(workspace or ""),
    )


def prune(workspaces: Path, *, older_than: float, keep: Collection[Path] = ()) -> list[Path]:
    """Remove the workspaces made more than `older_than` seconds ago but for those in `keep`; returns what went.

    Mirrors stay: they are what makes the next checkout quick.
    """
    kept = {path.resolve() for path in keep}
    before = time.time() - older_than
    old = [
        path
        for path in sorted(workspaces.glob("*/*"))
        if path.is_dir() and path.name != "mirror.git" and path.resolve() not in kept and path.stat().st_mtime < before
    ]
    for path in old:
        directories.remove(path)
    return old


# --- what a push brings ------------------------------------------------------------------------------------------


def fetch_tip(repo: str, ref: str, workspaces: Path, *, timeout: float = FETCH_TIMEOUT) -> Tip | None:
    """Fetch the commit that a ref such as refs/heads/main names now into the mirror from which `checkout` takes it.

    None when the repository has no such ref. Raises SourceError when it does not answer within `timeout` seconds.
    """
    origin, place = _place(repo, workspaces)
    mirror = place / "mirror.git"
    ours = f"refs/headway/tip/{hashlib.sha256(ref.encode()).hexdigest()[:16]}"
    with _locked(place / "mirror.lock", timeout):
        _make_mirror(mirror)
        done = _run([*FETCH, "--", origin, f"+{ref}:{ours}"], mirror, timeout)
        if done.returncode and "couldn't find remote ref" in done.stderr:
            return None
        if done.returncode:
            raise _trouble(done, origin)
        sha = _commit(mirror, ours)
        if not sha:
            raise SourceError(f"{_shown(origin)}: {ref} names no commit", "tag a commit")
        _git("update-ref", f"refs/headway/{sha}", sha, cwd=mirror)  # the tip moves on, what it was stays
    return Tip(mirror, sha)


def unknown(repo: Path, shas: Collection[str]) -> set[str]:
    """Those that are no commit, or tag of one, in this repository."""
    names = list(shas)
    asked = "".join(f"{sha}^{{commit}}\n" for sha in names)
    told = _git("cat-file", "--batch-check", cwd=repo, words=asked).splitlines()
    return {sha for sha, line in zip(names, told, strict=True) if line.endswith((" missing", " ambiguous"))}


def message_of(repo: Path, sha: str) -> str:
    """The whole message of a commit. Raises SourceError."""
    return _git("show", "--no-patch", "--format=%B", sha, cwd=repo)


def file_of(repo: Path, sha: str, path: str, *, limit: int) -> str | None:
    """The text of a file in a commit; None when it has no such file, or one of more than `limit` bytes."""
    name = f"{sha}:{path}"
    asked = _run(["cat-file", "-s", name], repo, LOCAL_TIMEOUT)
    if asked.returncode or int(asked.stdout) > limit:
        return None
    return _git("cat-file", "blob", name, cwd=repo)


def changed_paths(repo: Path, old: str | None, new: str) -> list[str] | None:
    """Files that differ between two commits; None when `old` is not known here, so that anything may have changed."""
    if old is None or not FULL_SHA.fullmatch(old) or not _commit(repo, old):
        return None
    return [path for path in _git("diff", "--name-only", "--no-renames", "-z", old, new, cwd=repo).split("\0") if path]


def fork_point(repo: Path, base: str, head: str) -> str | None:
    """The newest commit that two histories have in common; None when there is none."""
    asked = _run(["merge-base", base, head], repo, LOCAL_TIMEOUT)
    return asked.stdout.strip() or None if not asked.returncode else None


# --- what is in a commit -----------------------------------------------------------------------------------------


def tree_of(repo: Path, sha: str, paths: Sequence[str]) -> str:
    """One hash (hex) over the git objects of these files and directories in a commit.

    It changes when, and only when, a committed file among them does. Raises SourceError for a path that is not there.
    """
    found = {}
    for path in sorted({os.path.normpath(path) for path in paths}):
        name = f"{sha}^{{tree}}" if path == "." else f"{sha}:{path}"
        asked = _run(["rev-parse", "--verify", "--quiet", "--end-of-options", name], repo, LOCAL_TIMEOUT)
        if asked.returncode:
            raise SourceError(
                f"inputs/paths: {path}: not in the commit", "they are files and directories that are committed"
            )
        found[path] = asked.stdout.strip()
    return hashlib.sha256(repr(sorted(found.items())).encode()).hexdigest()


def commits_between(repo: Path, old: str | None, new: str, limit: int = 20) -> list[Commit]:
    """The last `limit` commits of `new` that `old` does not have, newest first; None: all of its history.

    Raises SourceError when the repository does not have one of them.
    """
    for sha in filter(None, (old, new)):
        if not _commit(repo, sha):
            raise SourceError(f"{repo}: has no commit {sha}", "was the history rewritten since it was released?")
    span = [new, f"^{old}"] if old else [new]
    rows = _git("log", "-z", f"--max-count={limit}", "--format=%H%x1f%an <%ae>%x1f%s", *span, "--", cwd=repo)
    return [Commit(*row.split("\x1f", 2)) for row in rows.split("\0") if row]


def export_command(mirror: Path, sha: str, into: Path, index: Path) -> tuple[list[list[str]], dict[str, str]]:
    """The commands that write the files of a commit, and no .git, `into` a directory, and the environment they want."""
    git = ["git", f"--git-dir={mirror}", f"--work-tree={into}"]
    write = [*git, "checkout-index", "--all", "--force"]
    return [[*git, "read-tree", sha], write], {**_environment(), "GIT_INDEX_FILE": str(index)}


# --- the git program ---------------------------------------------------------------------------------------------


def _git(*arguments: str, cwd: Path | None = None, timeout: float = LOCAL_TIMEOUT, words: str = "") -> str:
    finished = _run(list(arguments), cwd, timeout, words)
    if finished.returncode:
        raise _trouble(finished, cwd or arguments[-1])
    return finished.stdout


def _run(arguments: list[str], cwd: Path | None, timeout: float, words: str = "") -> subprocess.CompletedProcess[str]:
    """Raises SourceError when git is not there or takes longer than `timeout` seconds; all its helpers end with it."""
    git = shutil.which("git")
    if git is None:
        raise SourceError("git: not installed, or not on PATH", "install it: apt-get install git")
    process = subprocess.Popen(
        [git, *arguments],
        cwd=cwd,
        env=_environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        errors="replace",
        start_new_session=True,
    )
    try:
        output, errors = process.communicate(words, timeout=timeout)
    except subprocess.TimeoutExpired as error:
        raise SourceError(
            f"{_shown(str(cwd or arguments[-1]))}: git {arguments[0]} did not end within {timeout:g} s",
            "is the repository reachable from here?",
        ) from error
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
    return subprocess.CompletedProcess(arguments, process.returncode, output, errors)


def _environment() -> dict[str, str]:
    ours = {name: value for name, value in os.environ.items() if not _OF_ANOTHER_REPOSITORY.fullmatch(name)}
    return {
        "GIT_SSH_COMMAND": "ssh -o BatchMode=yes",
        **ours,
        # Nobody is there to answer a question, and messages are told apart by their words.
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_ASKPASS": "true",
        "GCM_INTERACTIVE": "never",
        "GIT_OPTIONAL_LOCKS": "0",
        "GIT_LFS_SKIP_SMUDGE": "1",
        # No address makes git start a program of somebody's choice (ext::), or speak to whoever stands in between.
        "GIT_ALLOW_PROTOCOL": "file:http:https:ssh",
        "LC_ALL": "C",
    }


_HINTS = {
    "dubious ownership": "another user's; if you trust it: git config --global --add safe.directory {where}",
    "not a git repository": "make it one (git init), or name the directory or URL of one",
    "does not appear to be a git repository": "name the directory or URL of a git repository",
    "must be run in a work tree": "name the directory of a work tree",
    "Authentication failed|could not read (Username|Password)|Permission denied|access rights|prompts disabled": (
        "give this machine access: a deploy key, or a git credential helper"
    ),
    "Could not resolve host|unable to access|Connection (refused|timed out|reset)|Could not connect": (
        "is the host reachable from here, and spelled right?"
    ),
    "No space left on device|Disk quota exceeded": "make room on the disk and try again",
    r"\.lock': File exists": "a git process died there; when none is running, remove the file that it names",
    "unable to read|bad object|missing blob|corrupt": "a git object is missing or damaged: git fsck says which",
}


def _trouble(finished: subprocess.CompletedProcess[str], where: object) -> SourceError:
    """What git said, in one line."""
    said = _shown(finished.stderr.strip()) or f"exit code {finished.returncode}"
    hint = next((hint for words, hint in _HINTS.items() if re.search(words, said)), "git's own words are above")
    lines = [
        re.sub(r"^(fatal|error): ", "", line)
        for line in said.splitlines()
        if not line.startswith(("hint:", "warning:"))
    ]
    place = _shown(str(where))
    return SourceError(f"{place}: {'; '.join(lines[:2])}", hint.format(where=place))


def _shown(text: str) -> str:
    """Without the credentials of URLs."""
    return re.sub(r"(\w+://)[^/@\s]+@", r"\1", text)
