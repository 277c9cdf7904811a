"""Field managers of server-side apply, as the API server keeps them: who set which field of an object, and how.

https://kubernetes.io/docs/reference/using-api/server-side-apply/
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, NamedTuple

__all__ = ["Conflicts", "Manager", "Owners", "applied", "managed_fields", "merged", "updated"]

Object = dict[str, Any]
IDENTITY = ("apiVersion", "kind", "metadata.name", "metadata.namespace", "metadata.uid", "metadata.resourceVersion")
ATOMIC = (("spec", "selector"),)  # is replaced as a whole: selectors of Services and of Deployments
Path = tuple[str, ...]


class Manager(NamedTuple):
    name: str
    operation: str  # Apply or Update
    subresource: str = ""

    def __str__(self) -> str:
        return f'"{self.name}"' + (f' with subresource "{self.subresource}"' if self.subresource else "")


Owners = dict[Path, set[Manager]]


class Conflicts(Exception):
    """Fields that an apply would take from others."""

    def __init__(self, found: Mapping[Path, Manager]) -> None:
        self.causes = [
            {
                "reason": "FieldManagerConflict",
                "message": f"conflict with {manager}",
                "field": "".join(f".{key}" for key in path),
            }
            for path, manager in found.items()
        ]
        number = f"{len(found)} conflict" + ("s" if len(found) > 1 else "")
        super().__init__(
            f"Apply failed with {number}: " + "; ".join(f"{one['message']}: {one['field']}" for one in self.causes)
        )


def applied(before: Object, body: Object, owners: Owners, name: str, *, force: bool) -> tuple[Object, Owners]:
    """The object and its owners after a manager applied `body`. Raises Conflicts unless it may `force` them."""
    manager, wanted, there = Manager(name, "Apply"), leaves(body), leaves(before)
    owners = {path: set(all_of_them) for path, all_of_them in owners.items()}
    foreign = {
        path: other
        for path, value in wanted.items()
        if path in there and there[path] != value
        for other in sorted(owners.get(path, set()) - {manager})[:1]
    }
    if foreign and not force:
        raise Conflicts(foreign)
    after = merged(copy.deepcopy(before), body)
    for path in [one for one, all_of_them in owners.items() if manager in all_of_them and one not in wanted]:
        owners[path].discard(manager)
        if not owners[path]:
            _remove(after, path)
            del owners[path]
    for path in wanted:
        owners[path] = {manager} | (set() if path in foreign else owners.get(path, set()))
    return after, owners


def updated(before: Object, after: Object, owners: Owners, name: str, subresource: str = "") -> Owners:
    """The owners after a manager changed the object: what it changed is its own alone."""
    there, now = leaves(before), leaves(after)
    kept = {path: set(all_of_them) for path, all_of_them in owners.items() if path in now}
    manager = Manager(name, "Update", subresource)
    return kept | {path: {manager} for path, value in now.items() if path not in there or there[path] != value}


def managed_fields(owners: Owners) -> list[Object]:
    found: dict[Manager, Object] = {}
    for path, all_of_them in owners.items():
        for manager in all_of_them:
            fields = found.setdefault(manager, {})
            for key in path:
                fields = fields.setdefault(f"f:{key}", {})
    return [
        {"manager": one.name, "operation": one.operation, "fieldsType": "FieldsV1", "fieldsV1": fields}
        | ({"subresource": one.subresource} if one.subresource else {})
        for one, fields in sorted(found.items())
    ]


def leaves(thing: object, path: Path = ()) -> dict[Path, object]:
    """Every field that is no mapping, or atomic; what identifies the object is nobody's."""
    if ".".join(path) in IDENTITY or path[:2] == ("metadata", "managedFields") or path[:1] == ("status",):
        return {}
    if isinstance(thing, dict) and path not in ATOMIC:
        below = [leaves(value, (*path, key)) for key, value in thing.items()]
        return {name: value for one in below for name, value in one.items()}
    return {path: thing}


def merged(thing: Object, change: Object, path: Path = ()) -> Object:
    """JSON merge patch, RFC 7396, with atomic fields."""
    for key, value in change.items():
        if value is None:
            thing.pop(key, None)
        elif isinstance(value, dict) and isinstance(thing.get(key), dict) and (*path, key) not in ATOMIC:
            merged(thing[key], value, (*path, key))
        else:
            thing[key] = merged({}, value) if isinstance(value, dict) else value
    return thing


def _remove(thing: Object, path: Path) -> None:
    for key in path[:-1]:
        thing = thing[key]
    del thing[path[-1]]
