"""What an environment tells the app, written for other tools. Secrets stay names."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Literal, TypeAlias

from headway.domain.errors import UsageError
from headway.domain.revision import SecretRef

__all__ = ["FORMATS", "Format", "differences", "render"]

Format: TypeAlias = Literal["dotenv", "docker", "k8s"]
FORMATS: tuple[Format, ...] = ("dotenv", "docker", "k8s")
Told: TypeAlias = Mapping[str, str | SecretRef]


def render(told: Told, form: Format) -> str:
    """`dotenv`: a .env file. `docker`: an --env-file; a name alone takes the value from where docker runs. `k8s`: the
    `env` of a container. Raises UsageError for what the format cannot hold.
    """
    if form == "k8s":
        return "\n".join(["env:", *(f"  - {json.dumps(_of_a_container(name, told[name]))}" for name in sorted(told))])
    line = _dotenv if form == "dotenv" else _docker
    return "\n".join(line(name, told[name]) for name in sorted(told))


def _dotenv(name: str, value: str | SecretRef) -> str:
    if isinstance(value, SecretRef):
        return f"# {name}= is the secret {value.secret}"
    escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'{name}="{escaped}"'


def _docker(name: str, value: str | SecretRef) -> str:
    if isinstance(value, SecretRef):
        return name
    if "\n" in value:
        raise UsageError(f"{name}: docker's --env-file cannot hold a value of several lines", "use --format dotenv")
    return f"{name}={value}"


def _of_a_container(name: str, value: str | SecretRef) -> dict[str, object]:
    if not isinstance(value, SecretRef):
        return {"name": name, "value": value}
    secret, _, key = value.secret.partition("/")
    return {"name": name, "valueFrom": {"secretKeyRef": {"name": secret, "key": key or "value"}}}


def differences(one: Told, other: Told) -> list[tuple[str, str, str]]:
    """(variable, in the one, in the other) where the two are not told the same; secrets by name, nothing as `-`."""
    return [
        (name, _shown(one.get(name)), _shown(other.get(name)))
        for name in sorted(one.keys() | other.keys())
        if one.get(name) != other.get(name)
    ]


def _shown(value: str | SecretRef | None) -> str:
    if value is None:
        return "-"
    return f"!secret {value.secret}" if isinstance(value, SecretRef) else json.dumps(value, ensure_ascii=False)
