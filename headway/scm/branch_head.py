"""The branch that an app releases, and the commit it names now."""

from __future__ import annotations

import tempfile
from pathlib import Path

from headway import config
from headway.config import FILE_NAME, Settings
from headway.domain.errors import SettingsError
from headway.scm import git

__all__ = ["FETCH_TIMEOUT", "head_of", "settings_at"]

FETCH_TIMEOUT = 60.0  # seconds for a repository to answer
SETTINGS_BYTES = 256 * 1024


def settings_at(tip: git.Tip, sha: str) -> Settings:
    """headway.yaml of a commit. Raises SettingsError, also when it has none."""
    text = git.file_of(tip.mirror, sha, FILE_NAME, limit=SETTINGS_BYTES)
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / FILE_NAME
        if text is not None:
            file.write_text(text)
        return config.load(file)


def head_of(repo: str, workspaces: Path) -> tuple[str, str, Settings]:
    """The ref that the app releases, the commit it names, and its settings.

    The default branch says which branch is released. Raises SourceError, SettingsError.
    """
    default = git.fetch_tip(repo, "HEAD", workspaces, timeout=FETCH_TIMEOUT)
    if default is None:
        raise SettingsError(f"{repo}: has no commit yet", "push something")
    branch = settings_at(default, default.sha).branch
    tip = git.fetch_tip(repo, f"refs/heads/{branch}", workspaces, timeout=FETCH_TIMEOUT)
    if tip is None:
        raise SettingsError(f"{repo}: has no branch {branch}", f"{FILE_NAME}/branch names the one that is released")
    return f"refs/heads/{branch}", tip.sha, settings_at(tip, tip.sha)
