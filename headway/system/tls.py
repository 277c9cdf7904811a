"""Trusted certificates, loaded only for https.

Loading takes about 15 ms of CPU time: too much for health checks of loopback ports every 100 ms during a switch.
"""

from __future__ import annotations

import ssl
from functools import cache
from pathlib import Path

import certifi

__all__ = ["for_url", "one_authority"]

END = "-----END CERTIFICATE-----\n"


def for_url(url: str) -> ssl.SSLContext | bool:
    """httpx's `verify` for this address: the certificates that the machine trusts, loaded once; False without TLS."""
    return _trusted() if url.startswith("https://") else False


@cache
def _trusted() -> ssl.SSLContext:
    # httpx ignores SSL_CERT_FILE with trust_env=False.
    return ssl.create_default_context()


def one_authority(file: Path) -> Path:
    """Write a file with a single authority, for programs that load certificates without needing any.

    Prefect's client loads every certificate each time it is made, about six times a flow run, also for an API without
    TLS.
    """
    first, end, _ = certifi.contents().partition(END)
    file.write_text(first + end)
    return file
