"""Newest commit of the branch that an app releases."""

from __future__ import annotations

import tempfile
from pathlib import Path

from headway import config
from headway.config import FILE_NAME, Settings
from headway.domain.errors import SettingsError
from headway.scm import git

__all__ = ["default_head", "head_of", "settings_at"]

FETCH_TIMEOUT = 60.0  # seconds
SETTINGS_LIMIT = 256 * 1024  # bytes


def settings_at(tip: git.Tip, sha: str) -> Settings:
    """headway.yaml of a commit. Raises SettingsError, also when the commit has none."""
    text = git.file_of(tip.mirror, sha, FILE_NAME, limit=SETTINGS_LIMIT)
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / FILE_NAME
        if text is not None:
            file.write_text(text)
        return config.load(file)


def default_head(repo: str, workspaces: Path) -> git.Tip:
    """The newest commit of the default branch. Raises SourceError, SettingsError when there is none."""
    tip = git.fetch_tip(repo, "HEAD", workspaces, timeout=FETCH_TIMEOUT)
    if tip is None:
        raise SettingsError(f"{repo}: its default branch has no commit", "push one, or set HEAD to a branch")
    return tip


def head_of(repo: str, workspaces: Path, branch: str | None = None) -> tuple[str, str, Settings]:
    """The ref that the app releases, its newest commit, and the settings of that commit.

    The released branch is `branch`, or the one that headway.yaml of the default branch names. Raises SourceError,
    SettingsError.
    """
    if branch is None:
        default = default_head(repo, workspaces)
        branch = settings_at(default, default.sha).branch
    tip = git.fetch_tip(repo, f"refs/heads/{branch}", workspaces, timeout=FETCH_TIMEOUT)
    if tip is None:
        raise SettingsError(f"{repo}: has no branch {branch}", f"set {FILE_NAME}/branch to the branch to release")
    return f"refs/heads/{branch}", tip.sha, settings_at(tip, tip.sha)
