"""Certificates are loaded where there is TLS. It takes some 15 ms of a processor, which a poll of a loopback port every
100 ms cannot spare while users are being switched.
"""

from __future__ import annotations

import ssl
from functools import cache
from pathlib import Path

import certifi

__all__ = ["for_url", "one_authority"]

END = "-----END CERTIFICATE-----\n"


def for_url(url: str) -> ssl.SSLContext | bool:
    """What httpx takes as `verify` for this address: the certificates that the machine trusts, loaded once."""
    return _trusted() if url.startswith("https://") else False


@cache
def _trusted() -> ssl.SSLContext:
    # httpx by itself does not look at SSL_CERT_FILE when it is told to leave the environment's proxies alone.
    return ssl.create_default_context()


def one_authority(file: Path) -> Path:
    """Write a file for whoever must load certificates and has no use for any: Prefect's client loads all it is given,
    each time it is made, and a flow run makes half a dozen, for an API without TLS on this machine too.
    """
    first, end, _ = certifi.contents().partition(END)
    file.write_text(first + end)
    return file
