"""Choose a language version that a repository accepts and that has an official image."""

from __future__ import annotations

import re
from collections.abc import Mapping

from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.version import InvalidVersion

__all__ = ["node_range", "pick", "python_range"]

_COMPARATOR = re.compile(r"(\^|~>?|>=|<=|>|<|=)?\s*v?(\d+|[xX*])(?:\.(\d+|[xX*]))?(?:\.(\d+|[xX*]))?(?:[-+][\w.+-]*)?")


def pick(known: Mapping[str, str], preferred: str, ranges: list[SpecifierSet], written: str) -> str | None:
    """Tag of the image: the preferred line if it is in range, else the newest of `known` in range, else None.

    `known` maps each release line (Node `24`, Python `3.13`) to its newest release, newest line first. An exact patch
    version is used as written if it belongs to one of these lines.
    """
    for line in (preferred, *known):
        if any(allowed.contains(known[line]) for allowed in ranges):
            return ".".join(known[line].split(".")[:2])
    exact = re.search(r"\d+\.\d+(?:\.\d+)?", written)
    if exact and any(f"{exact[0]}.".startswith(f"{line}.") for line in known):
        return exact[0] if any(allowed.contains(exact[0]) for allowed in ranges) else None
    return None


def python_range(text: str) -> list[SpecifierSet]:
    """Parse `requires-python`, or Poetry's syntax for it; empty when invalid."""
    try:
        return [SpecifierSet(text)]
    except InvalidSpecifier:
        return node_range(text.replace(",", " "))


def node_range(text: str) -> list[SpecifierSet]:
    """Parse the alternatives of an npm version range; empty when invalid."""
    try:
        return [_alternative(part.strip()) for part in text.split("||")]
    except (InvalidSpecifier, InvalidVersion, ValueError):
        return []


def _alternative(text: str) -> SpecifierSet:
    text = re.sub(r"(\S+)\s+-\s+(\S+)", r">=\1 <=\2", text)
    rest = _COMPARATOR.sub("", text)
    if rest.strip():
        raise ValueError(f"cannot read {rest}")
    parts = (_specifier(match[1] or "=", match.groups()[1:]) for match in _COMPARATOR.finditer(text))
    return SpecifierSet(",".join(part for part in parts if part))


def _specifier(operator: str, places: tuple[str | None, ...]) -> str:
    numbers: list[int] = []
    for place in places:
        if place is None or not place.isdigit():
            break
        numbers.append(int(place))
    if not numbers:
        return ""
    version, whole = ".".join(map(str, numbers)), len(numbers) == 3
    match operator:
        case "^":
            first = next((at for at, number in enumerate(numbers) if number), len(numbers) - 1)
            return f">={version},<{_next(numbers[: first + 1])}"
        case "~" | "~>":
            return f">={version},<{_next(numbers[:2])}"
        case "=":
            return f"=={version}" if whole else f"=={version}.*"
        case ">" if not whole:
            return f">={_next(numbers)}"
        case "<=" if not whole:
            return f"<{_next(numbers)}"
    return f"{operator}{version}"


def _next(numbers: list[int]) -> str:
    return ".".join(map(str, [*numbers[:-1], numbers[-1] + 1]))
