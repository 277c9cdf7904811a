"""Strict validation with the published schemas of Kubernetes, without a cluster."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any, NamedTuple

from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError, best_match
from kubernetes_validate.utils import all_versions, schema_contents
from referencing import Registry, Resource

from headway.config.validation import nearest, shorten

__all__ = ["LATEST", "faults", "unknown"]

LATEST: str = all_versions()[-1]


class _Schemas(NamedTuple):
    kinds: Mapping[tuple[str, str], str]  # (apiVersion, kind) -> name of its definition
    registry: Any
    address: str


@cache
def _schemas(version: str) -> _Schemas:
    content = schema_contents(f"kubernetes-json-schema/v{version}-local-strict/_definitions.json", version)
    definitions = Resource.from_contents(content)
    kinds = {
        (f"{one['group']}/{one['version']}".lstrip("/"), one["kind"]): name
        for name, definition in content["$defs"].items()
        for one in definition.get("x-kubernetes-group-version-kind", [])
    }
    return _Schemas(kinds, definitions @ Registry(), content["$id"])


def unknown(thing: Mapping[str, Any]) -> str:
    """Why this kind does not exist; empty if it does, or if it may be a custom resource (CRD)."""
    known = _schemas(LATEST).kinds
    api_version, kind = thing["apiVersion"], thing["kind"]
    own = {one.partition("/")[0] if "/" in one else "" for one, _ in known}
    group = api_version.rpartition("/")[0]
    if (api_version, kind) in known or group not in own:
        return ""
    versions = sorted(version for version, other in known if other == kind)
    if versions:
        return f"{kind} is not in {api_version}: it is in {', '.join(versions)}"
    near = nearest(kind, (other for version, other in known if version == api_version))
    return f"there is no {kind} in {api_version}{near}"


def faults(thing: Mapping[str, Any], version: str = LATEST) -> list[str]:
    """All schema errors of an object in a version of Kubernetes such as `1.36.2`, each with its path.

    Versions newer than the schemas, and custom resources, are not validated.
    """
    minor = _minor(version)
    schemas = next((_schemas(one) for one in all_versions() if _minor(one) == minor), None)
    name = schemas and schemas.kinds.get((thing["apiVersion"], thing["kind"]))
    if schemas is None or name is None:
        return []
    validator = Draft202012Validator({"$ref": f"{schemas.address}#/$defs/{name}"}, registry=schemas.registry)
    return sorted(_words(error) for error in _leaves(validator.iter_errors(thing)))


def _minor(version: str) -> tuple[str, ...]:
    return tuple(version.split(".")[:2])


def _leaves(errors: Iterator[ValidationError]) -> Iterator[ValidationError]:
    """The error of the alternative that matches best."""
    for error in errors:
        yield best_match([error]) or error


def _words(error: ValidationError) -> str:
    path = "/".join(map(str, error.absolute_path))
    if error.validator == "additionalProperties" and isinstance(error.schema, dict):
        known = error.schema.get("properties", {})
        keys = [key for key in error.instance if key not in known]
        message = ", ".join(f"unknown key {shorten(key)!r}{nearest(key, known)}" for key in keys)
    elif error.validator == "type":
        kinds = error.validator_value if isinstance(error.validator_value, list) else [error.validator_value]
        message = f"expected {' or '.join(kind for kind in kinds if kind != 'null')}"
    else:
        message = shorten(error.message)
    return f"{path}: {message}" if path else message
