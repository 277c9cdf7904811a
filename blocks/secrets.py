"""Values of the secrets that headway.yaml names, such as `!secret shop-production/database-url`.

The secret stores are searched one after the other, the lowest `order` first: environment variables, files,
Prefect's Secret blocks, then those of other packages. The first value is used.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

from headway.domain.errors import NotFound
from headway.domain.ports import SecretStore
from headway.domain.revision import LaunchSpec, SecretRef
from headway.system.extensions import extensions

__all__ = ["look_up", "resolve", "stores", "values_of"]


@cache
def stores() -> tuple[SecretStore, ...]:
    """Every installed secret store, in search order."""
    found: list[SecretStore] = [store() for store in extensions("headway.secret_stores").values()]
    return tuple(sorted(found, key=lambda store: store.order))


async def resolve(spec: LaunchSpec) -> LaunchSpec:
    """The spec with the values of its secrets. Raises NotFound, which names every secret that cannot be found."""
    values = await values_of(spec.env, f"environments/{spec.environment}/env")
    secret = (*spec.secrets, *(variable for variable, value in spec.env.items() if isinstance(value, SecretRef)))
    return spec.model_copy(update={"env": values, "secrets": secret})


async def values_of(variables: Mapping[str, str | SecretRef], where: str) -> dict[str, str]:
    """Each variable with its value. Raises NotFound, which begins with `where` and names every missing secret."""
    values, missing = await look_up(variables)
    if missing:
        raise NotFound(
            f"{where}: {'; '.join(f'{name} ({reason})' for name, reason in missing.items())}",
            "make a Secret block in the Prefect UI under Blocks, or set the variable where the worker runs",
        )
    return values


async def look_up(variables: Mapping[str, str | SecretRef]) -> tuple[dict[str, str], dict[str, str]]:
    """Values that were found; and for each missing secret, where it was searched."""
    values: dict[str, str] = {}
    missing: dict[str, str] = {}
    for name, value in variables.items():
        if not isinstance(value, SecretRef):
            values[name] = value
        elif (found := await _find(value.secret)) is not None:
            values[name] = found
        else:
            places = ", ".join(store.location(value.secret) for store in stores())
            missing[name] = f"!secret {value.secret}: not found in {places}"
    return values, missing


async def _find(name: str) -> str | None:
    for store in stores():
        if (value := await store.get(name)) is not None:
            return value
    return None
