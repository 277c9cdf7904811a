"""Secrets by name: what headway.yaml calls `!secret shop-prod/database-url`.

Looked for in the environment of the worker (HEADWAY_SECRET_SHOP_PROD_DATABASE_URL), then in the file
`shop-prod/database-url` of the directory that HEADWAY_SECRETS names, then in the Prefect Secret block `shop-prod`, a
JSON object with the key `database-url`; a name without a slash is a Secret block with one value.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prefect.blocks.system import Secret

from headway.domain.errors import NotFound
from headway.domain.revision import LaunchSpec, SecretRef

__all__ = ["look_up", "resolve", "values_of"]


async def resolve(spec: LaunchSpec) -> LaunchSpec:
    """The spec with the values of its secrets in place. Raises NotFound naming every secret that cannot be found."""
    values = await values_of(spec.env, f"environments/{spec.environment}/env")
    secret = (*spec.secrets, *(variable for variable, value in spec.env.items() if isinstance(value, SecretRef)))
    return spec.model_copy(update={"env": values, "secrets": secret})


async def values_of(named: Mapping[str, str | SecretRef], where: str) -> dict[str, str]:
    """Each with its value. Raises NotFound, which begins with `where`, naming every secret that cannot be found."""
    values, missing = await look_up(named)
    if missing:
        raise NotFound(
            f"{where}: {'; '.join(f'{name} ({why})' for name, why in missing.items())}",
            "make a Secret block in the Prefect UI under Blocks, or set the variable where the worker runs",
        )
    return values


async def look_up(named: Mapping[str, str | SecretRef]) -> tuple[dict[str, str], dict[str, str]]:
    """The values that can be had; and for each secret that cannot, why."""
    values: dict[str, str] = {}
    missing: dict[str, str] = {}
    for name, value in named.items():
        if not isinstance(value, SecretRef):
            values[name] = value
        elif (found := await _look_up(value.secret)) is not None:
            values[name] = found
        else:
            missing[name] = f"!secret {value.secret}: neither ${_variable(value.secret)} nor a Secret block has it"
    return values, missing


async def _look_up(name: str) -> str | None:
    if (value := os.environ.get(_variable(name))) is not None:
        return value
    if (file := _file(name)) is not None:
        return file
    block, _, key = name.partition("/")
    try:
        secret: Secret[Any] = await Secret.aload(block)
    except ValueError:
        return None
    content = secret.get()
    if not key:
        return content if isinstance(content, str) else None
    value = content.get(key) if isinstance(content, dict) else None
    return None if value is None else str(value)


def _file(name: str) -> str | None:
    """As Docker and Kubernetes lay secrets out: a file each. Names have no `..`: headway.yaml takes no other."""
    directory = os.environ.get("HEADWAY_SECRETS")
    if not directory or ".." in name.split("/"):
        return None
    try:
        return (Path(directory) / name).read_text().removesuffix("\n")
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise NotFound(
            f"!secret {name}: its file in {directory} cannot be read: {type(error).__name__}",
            "it is text that the worker may read",
        ) from error


def _variable(name: str) -> str:
    return "HEADWAY_SECRET_" + re.sub(r"\W", "_", name).upper()
