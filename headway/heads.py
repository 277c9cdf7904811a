"""What the branch that an app releases names now: for nights, and for pushes whose webhook was lost."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

from headway import settings, source
from headway.errors import HeadwayError, SettingsError
from headway.events import PushEvent
from headway.ledger import AppRecord, Delivery, Ledger
from headway.settings import FILE_NAME, Settings

__all__ = ["Poller", "head_of", "settings_at"]

FETCH = 60.0  # seconds for a repository to answer
SETTINGS_BYTES = 256 * 1024


def settings_at(tip: source.Tip, sha: str) -> Settings:
    """headway.yaml of a commit. Raises SettingsError, also when it has none."""
    text = source.file_of(tip.mirror, sha, FILE_NAME, limit=SETTINGS_BYTES)
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / FILE_NAME
        if text is not None:
            file.write_text(text)
        return settings.load(file)


def head_of(app: AppRecord, workspaces: Path) -> tuple[str, str, Settings]:
    """The ref that the app releases, the commit it names, and its settings.

    The default branch says which branch is released. Raises SourceError, SettingsError.
    """
    default = source.fetch_tip(app.repo, "HEAD", workspaces, timeout=FETCH)
    if default is None:
        raise SettingsError(f"{app.repo}: has no commit yet", "push something")
    branch = settings_at(default, default.sha).branch
    tip = source.fetch_tip(app.repo, f"refs/heads/{branch}", workspaces, timeout=FETCH)
    if tip is None:
        raise SettingsError(f"{app.repo}: has no branch {branch}", f"{FILE_NAME}/branch names the one that is released")
    return f"refs/heads/{branch}", tip.sha, settings_at(tip, tip.sha)


class Poller:
    """Enters pushes that nobody told of in the inbox, as if a webhook had come."""

    def __init__(self, ledger: Ledger, workspaces: Path, wake: asyncio.Event) -> None:
        self._ledger = ledger
        self._workspaces = workspaces
        self._wake = wake

    async def round(self) -> list[str]:
        """Returns a line for each push that was found, or repository that does not answer."""
        said: list[str] = []
        for app in await asyncio.to_thread(self._ledger.registered_apps):
            try:
                found = await asyncio.to_thread(self._look, app)
            except HeadwayError as error:
                found = error.what
            said += [f"{app.name}: {found}"] if found else []
        return said

    def _look(self, app: AppRecord) -> str:
        ref, sha, _ = head_of(app, self._workspaces)
        if self._ledger.heard_of(app.name, ref, sha):
            return ""
        event = PushEvent(places=(app.place,), ref=ref, before=None, after=sha, by="")
        self._ledger.receive([Delivery(app=app.name, delivery=f"poll-{sha}", event=event)])
        self._wake.set()
        return f"{ref} names {sha[:7]}, and no webhook said so"
