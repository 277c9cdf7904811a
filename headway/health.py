"""Whether an instance can serve, and is the version that it should be."""

from __future__ import annotations

import httpx

__all__ = ["unhealthy"]


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
    if version in (None, sha, revision) or (isinstance(version, str) and len(version) >= 7 and sha.startswith(version)):
        return ""
    return f"{url} answers version {version}, expected {sha}"
