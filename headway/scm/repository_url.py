"""Compare repository addresses that are written differently."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

__all__ = ["place"]

_SCP = re.compile(r"(?:[^@/:]+@)?([^/:]+):(?!//)(.+)")


def place(address: str) -> str:
    """Normalize a URL (https, ssh, with or without user and `.git`) to `github.com/acme/shop`; a path stays a path.

    Two addresses of the same repository have the same result.
    """
    if (scp := _SCP.fullmatch(address)) and "://" not in address:
        host, path = scp.groups()
    elif "://" in address:
        try:
            url = urlsplit(address)
            host, path = url.hostname or "", url.path
        except ValueError:  # for example an unbalanced bracket
            return address
        if url.scheme == "file":
            return _without_suffix(path)
    else:
        return _without_suffix(address)
    return _without_suffix(f"{host}/{path.strip('/')}").casefold()


def _without_suffix(path: str) -> str:
    return path.rstrip("/").removesuffix(".git").rstrip("/")
