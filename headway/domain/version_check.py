"""Whether an instance can serve, and is the version that it should be."""

from __future__ import annotations

import re

import httpx

__all__ = ["is_release", "unhealthy"]

_COMMIT = re.compile(r"[0-9a-f]{7,64}")
_REVISION = re.compile(r"[0-9a-f]{7}-[0-9a-f]{6}")


def is_release(said: object, sha: str, revision: str) -> bool | None:
    """Whether the version that an app says it has is this commit, or this revision.

    None when it names neither: an app that has a number of its own, such as 10.4.2 or 20261102, says nothing of the
    release.
    """
    if not isinstance(said, str):
        return None
    if said == revision or (len(said) >= 7 and sha.startswith(said)):
        return True
    numbered = said.isdecimal() and len(said) < len(sha)
    return False if _REVISION.fullmatch(said) or (_COMMIT.fullmatch(said) and not numbered) else None


def unhealthy(client: httpx.Client, url: str, versions: tuple[str, str]) -> str:
    """Why the instance whose health path this is, is not ready; empty when it is. `versions`: commit and revision."""
    try:
        answer = client.get(url)
    except httpx.HTTPError as error:
        return f"{url}: {type(error).__name__}"
    if answer.status_code != httpx.codes.OK:
        return f"{url} answers {answer.status_code}"
    try:
        said = answer.json()
    except ValueError:
        return ""
    version = said.get("version") if isinstance(said, dict) else None
    sha, revision = versions
    return f"{url} answers version {version}, expected {sha}" if is_release(version, sha, revision) is False else ""
