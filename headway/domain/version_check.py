"""Health check of an instance: does it answer, and with the right version?"""

from __future__ import annotations

import re
from collections.abc import Iterator

import httpx

from headway.domain.refusal import Refusal
from headway.domain.revision import REVISION_HEADER

__all__ = ["is_release", "unhealthy", "version_errors"]

EXCERPT = 200  # characters of a body
_COMMIT = re.compile(r"[0-9a-f]{7,64}")
_REVISION = re.compile(r"[0-9a-f]{7}-[0-9a-f]{6}")


def is_release(reported: object, sha: str, revision: str) -> bool | None:
    """Whether the version that an app reports is this commit, or this revision.

    None when it names neither: an app with a version number of its own, such as 10.4.2 or 20261102, does not tell.
    """
    if not isinstance(reported, str):
        return None
    if reported == revision or (len(reported) >= 7 and sha.startswith(reported)):
        return True
    numbered = reported.isdecimal() and len(reported) < len(sha)
    return False if _REVISION.fullmatch(reported) or (_COMMIT.fullmatch(reported) and not numbered) else None


def unhealthy(client: httpx.Client, url: str, versions: tuple[str, str], *, host: str | None = None) -> Refusal | None:
    """Request an instance's health URL. Returns why it is not ready. `versions`: its commit and its revision id.

    `host`: the header Host that is sent; None: that of the URL.
    """
    try:
        answer = client.get(url, headers={"host": host} if host else None)
    except httpx.TimeoutException:
        return Refusal(f"{url}: no answer within {client.timeout.read:g} s")
    except httpx.HTTPError as error:
        return Refusal(f"{url}: {type(error).__name__}")
    if answer.status_code != httpx.codes.OK:
        return Refusal(f"{url} answers {answer.status_code} to Host: {answer.request.headers['host']}{_said(answer)}")
    sha, revision = versions
    version = _version(answer)
    if is_release(version, sha, revision) is False:
        return Refusal(f"{url} answers version {version}, expected {sha}")
    return None


def _said(answer: httpx.Response) -> str:
    """Where a redirect leads, and the beginning of the body."""
    text = f", to {answer.headers['location']}" if "location" in answer.headers else ""
    body = " ".join(answer.text.split())[:EXCERPT]
    return text + (f": {body}" if body else "")


def version_errors(answer: httpx.Response, versions: tuple[str, str]) -> Iterator[str]:
    """Errors if another commit or revision answered, or the response does not identify it.

    The proxy names the revision in a header, the app its version in the JSON of the body.
    """
    sha, revision = versions
    version = _version(answer)
    same = is_release(version, sha, revision)
    header = answer.headers.get(REVISION_HEADER)
    if header is None and same is None:
        yield f"cannot tell which version answers: neither a header {REVISION_HEADER} nor a JSON `version`" + (
            f" with a commit: it says {version}" if version is not None else ""
        )
    if header is not None and header != revision:
        yield f"expected revision {revision}, {REVISION_HEADER} says {header}"
    if same is False:
        yield f"expected version {sha}, it says {version}"


def _version(answer: httpx.Response) -> object:
    try:
        content = answer.json()
    except ValueError:
        return None
    return content.get("version") if isinstance(content, dict) else None
