"""State of the configured dependencies: PostgreSQL and Redis."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from shop.config import Config

TIMEOUT = 2  # seconds that a dependency has to respond


def checks(config: Config) -> dict[str, dict[str, Any]]:
    """Name -> status (ok or down), latency_ms and, if down, the kind of error. Contains no password."""
    known: dict[str, tuple[str, Callable[[str], None]]] = {
        "database": (config.database_url, ask_postgres),
        "redis": (config.redis_url, ask_redis),
    }
    return {name: check(ask, url) for name, (url, ask) in known.items() if url}


def check(ask: Callable[[str], None], url: str) -> dict[str, Any]:
    begun = time.monotonic()
    try:
        ask(url)
    except Exception as error:  # noqa: BLE001 - the shop keeps serving, whatever the error
        return {"status": "down", "latency_ms": took(begun), "error": type(error).__name__}
    return {"status": "ok", "latency_ms": took(begun)}


def took(begun: float) -> float:
    return round(1000 * (time.monotonic() - begun), 1)


def ask_postgres(url: str) -> None:
    import psycopg  # optional: pip install shop[database]

    with psycopg.connect(url, connect_timeout=TIMEOUT) as connection:
        connection.execute("SELECT 1")


def ask_redis(url: str) -> None:
    import redis  # likewise

    client = redis.Redis.from_url(url, socket_timeout=TIMEOUT, socket_connect_timeout=TIMEOUT)
    try:
        client.ping()
    finally:
        client.close()
