"""When two ways to write a repository's address mean the same repository."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

__all__ = ["place"]

_SCP = re.compile(r"(?:[^@/:]+@)?([^/:]+):(?!//)(.+)")


def place(address: str) -> str:
    """`github.com/acme/shop` of any URL of it, over https or ssh, with or without user and `.git`; a path as it is."""
    if (scp := _SCP.fullmatch(address)) and "://" not in address:
        host, path = scp.groups()
    elif "://" in address:
        try:
            url = urlsplit(address)
            host, path = url.hostname or "", url.path
        except ValueError:  # a bracket that is never closed, say
            return address
        if url.scheme == "file":
            return _without_ending(path)
    else:
        return _without_ending(address)
    return _without_ending(f"{host}/{path.strip('/')}").casefold()


def _without_ending(path: str) -> str:
    return path.rstrip("/").removesuffix(".git").rstrip("/")
