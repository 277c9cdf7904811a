"""Environment variables with the addresses under which people reach Headway."""

from __future__ import annotations

__all__ = ["LISTEN", "URL"]

URL = "HEADWAY_URL"  # public, such as https://headway.example.com
LISTEN = "HEADWAY_LISTEN"  # HOST:PORT that the door listens on
