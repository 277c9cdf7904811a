"""Configuration from environment variables, validated at start."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

CURRENCIES = ("EUR", "USD")
LOG_LEVELS = ("debug", "info")


class ConfigError(Exception):
    """All errors in the environment variables, one per line."""


@dataclass(frozen=True)
class Config:
    port: int
    version: str
    currency: str
    log_level: str
    database_url: str = ""
    redis_url: str = ""

    @classmethod
    def read(cls, env: Mapping[str, str]) -> Config:
        faults: list[str] = []

        def choice(name: str, choices: tuple[str, ...], default: str) -> str:
            value = env.get(name, default)
            if value not in choices:
                faults.append(f"{name}: is {value!r}, expected one of {', '.join(choices)}")
            return value

        port = env.get("PORT", "")
        if not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
            faults.append(f"PORT: is {port!r}, expected the port to listen on, 1 to 65535")
        currency = choice("CURRENCY", CURRENCIES, "EUR")
        log_level = choice("LOG_LEVEL", LOG_LEVELS, "info")
        if faults:
            raise ConfigError("; ".join(faults))
        version = env.get("HEADWAY_VERSION", "dev")
        return cls(int(port), version, currency, log_level, env.get("DATABASE_URL", ""), env.get("REDIS_URL", ""))
