"""Secrets by name: what headway.yaml calls `!secret shop-prod/database-url`.

Looked for in the environment of the worker (HEADWAY_SECRET_SHOP_PROD_DATABASE_URL), then in the Prefect Secret block
`shop-prod`, a JSON object with the key `database-url`; a name without a slash is a Secret block with one value.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

from prefect.blocks.system import Secret

from headway.errors import NotFound
from headway.model import LaunchSpec, SecretRef

__all__ = ["resolve", "values_of"]


async def resolve(spec: LaunchSpec) -> LaunchSpec:
    """The spec with the values of its secrets in place. Raises NotFound naming every secret that cannot be found."""
    values = await values_of(spec.env, f"environments/{spec.environment}/env")
    secret = tuple(variable for variable, value in spec.env.items() if isinstance(value, SecretRef))
    return spec.model_copy(update={"env": values, "secrets": secret})


async def values_of(named: Mapping[str, str | SecretRef], where: str) -> dict[str, str]:
    """Each with its value. Raises NotFound, which begins with `where`, naming every secret that cannot be found."""
    values: dict[str, str] = {}
    missing: list[str] = []
    for name, value in named.items():
        if not isinstance(value, SecretRef):
            values[name] = value
        elif (found := await _look_up(value.secret)) is not None:
            values[name] = found
        else:
            missing.append(
                f"{name} (!secret {value.secret}: neither ${_variable(value.secret)} nor a Secret block has it)"
            )
    if missing:
        raise NotFound(
            f"{where}: {'; '.join(missing)}",
            "make a Secret block in the Prefect UI under Blocks, or set the variable where the worker runs",
        )
    return values


async def _look_up(name: str) -> str | None:
    if (value := os.environ.get(_variable(name))) is not None:
        return value
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


def _variable(name: str) -> str:
    return "HEADWAY_SECRET_" + re.sub(r"\W", "_", name).upper()
