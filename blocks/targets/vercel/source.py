"""Source of a Vercel deployment: a commit of the linked repository, or the files of a directory."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pathspec

from headway.domain.errors import TargetError

__all__ = ["files", "git_source"]

# Never uploaded as source; Vercel's own command line excludes the same paths.
IGNORED = (
    ".git", ".hg", ".svn", ".next", ".vercel", ".now", ".cache", ".venv", "venv", "node_modules", "__pycache__",
    ".env.local", ".env.*.local", ".DS_Store", "CVS",
)  # fmt: skip


def git_source(where: str, link: Mapping[str, Any] | None, sha: str) -> dict[str, Any]:
    """Reference to the commit in the project's linked repository. Raises TargetError without one."""
    branch = (link or {}).get("productionBranch", "main")
    match link:
        case {"type": "github", "repoId": repository}:
            return {"type": "github", "repoId": repository, "ref": branch, "sha": sha}
        case {"type": "gitlab", "projectId": repository}:
            return {"type": "gitlab", "projectId": repository, "ref": branch, "sha": sha}
        case {"type": "bitbucket", "uuid": repository, "workspaceUuid": workspace}:
            return {
                "type": "bitbucket", "repoUuid": repository, "workspaceUuid": workspace, "ref": branch, "sha": sha,
            }  # fmt: skip
    raise TargetError(f"{where}: linked with no git repository", "link it in its settings, or leave out `from_git`")


def files(tree: Path) -> tuple[list[dict[str, Any]], dict[str, Path]]:
    """Files in the API's format, and paths by SHA-1. Excludes paths in .vercelignore and those never uploaded."""
    rules = [*IGNORED]
    with suppress(FileNotFoundError):
        rules += (tree / ".vercelignore").read_text().splitlines()
    ignored = pathspec.GitIgnoreSpec.from_lines(rules)
    listed: list[dict[str, Any]] = []
    by_sha: dict[str, Path] = {}
    for name in sorted(ignored.match_tree_files(tree, negate=True, follow_links=False)):
        path = tree / name
        if not path.is_file():  # a link to a directory, or a broken one
            continue
        content = path.read_bytes()
        sha = hashlib.sha1(content, usedforsecurity=False).hexdigest()
        by_sha[sha] = path
        listed.append({"file": name, "sha": sha, "size": len(content)})
    return listed, by_sha
