"""Export of environment variables in the formats of other tools. Secrets are written as references."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Literal, TypeAlias

from headway.domain.errors import UsageError
from headway.domain.revision import SecretRef

__all__ = ["FORMATS", "Format", "differences", "render"]

Format: TypeAlias = Literal["dotenv", "docker", "k8s"]
FORMATS: tuple[Format, ...] = ("dotenv", "docker", "k8s")
Variables: TypeAlias = Mapping[str, str | SecretRef]


def render(variables: Variables, form: Format) -> str:
    """The variables as a .env file, a file for docker's --env-file, or the `env` of a Kubernetes container.

    In a file for docker a secret is a name alone, whose value docker takes from its own environment. Raises UsageError
    for a value that the format cannot hold.
    """
    if form == "k8s":
        return "\n".join(
            ["env:", *(f"  - {json.dumps(_of_a_container(name, variables[name]))}" for name in sorted(variables))]
        )
    line = _dotenv if form == "dotenv" else _docker
    return "\n".join(line(name, variables[name]) for name in sorted(variables))


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


def differences(one: Variables, other: Variables) -> list[tuple[str, str, str]]:
    """(variable, value in one, value in other) of variables that differ; secrets by name, a missing variable as `-`."""
    return [
        (name, _shown(one.get(name)), _shown(other.get(name)))
        for name in sorted(one.keys() | other.keys())
        if one.get(name) != other.get(name)
    ]


def _shown(value: str | SecretRef | None) -> str:
    if value is None:
        return "-"
    return f"!secret {value.secret}" if isinstance(value, SecretRef) else json.dumps(value, ensure_ascii=False)
