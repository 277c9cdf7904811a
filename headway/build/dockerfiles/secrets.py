"""Find secrets that a Dockerfile would put into an image."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cache
from typing import NamedTuple

from detect_secrets.core.plugins.util import get_mapping_from_secret_type_to_class
from detect_secrets.plugins.base import BasePlugin
from detect_secrets.plugins.high_entropy_strings import Base64HighEntropyString, HexHighEntropyString
from detect_secrets.plugins.ip_public import IPPublicDetector
from detect_secrets.plugins.keyword import KeywordDetector

from headway.build.dockerfiles.parser import Dockerfile, Instruction, assignments

__all__ = ["FoundSecret", "find_secrets"]

# Heuristic detectors, which report checksums, addresses and command options as secrets.
_GUESSING = (Base64HighEntropyString, HexHighEntropyString, IPPublicDetector, KeywordDetector)
_COMMANDS = ("RUN", "COPY", "ADD", "CMD", "ENTRYPOINT", "HEALTHCHECK")
_NAME = re.compile(
    r"((^|[_.-])(access_key_id|api_?key|credentials?|passphrase|pass|pat|secret_key_base|secret|token)|passw(or)?d"
    r"|[_.-]key|^_auth|[a-z](Key|Secret|Token))$"
)
_PUBLIC_NAME = re.compile(r"(^|_)(public|publishable|gpg|cache|primary|foreign|partition|sort)_", re.IGNORECASE)
_HARMLESS = re.compile(
    r"|\$|`.*|\$\(.*|\$\w+|\$\{\w+\}|true|false|yes|no|on|off|0|1|(\$\{?\w+\}?|\.{0,2})/[\w./-]*",
    re.IGNORECASE | re.DOTALL,
)
_DEFAULT = re.compile(r"\$\{\w+:?-(.*)\}", re.DOTALL)
_VARIABLE = re.compile(r"\$\{?(\w+)\}?")
_PLACEHOLDER = re.compile(r"(dummy|fake|none|placeholder|unused|x+)\b.*", re.IGNORECASE)
_VALUE = r"(\"[^\"]*\"|'[^']*'|[^\s\"';&|<>()]+)"
_ASSIGNMENT = re.compile(rf"([A-Za-z_][\w.-]*)={_VALUE}")
_OPTION = re.compile(
    rf"(?<![\w-])--?(password|passwd|token|secret|secret-key|api-?key|access-token|auth-token)\s+(?!-){_VALUE}"
)
_HEADER = re.compile(r"(Authorization:\s*(?:Bearer|Basic|token))\s+([^\s\"'$]{6,})", re.IGNORECASE)
_CURL = re.compile(r"\b(curl)\b[^\n;|&]*?\s(?:-u|--user)[ =]?[\"']?[^\s:\"'$]+:([^\s\"'$]+)")
_CHPASSWD = re.compile(r"\becho\s+[\"']?([\w.-]+):([^\s\"'$]+)[\"']?\s*\|\s*chpasswd")
_RANDOM = re.compile(r"(?=.*\d)(?=.*[a-z])(?=.*[A-Z])[A-Za-z0-9+/_=-]{24,}")
_CHECKSUM = re.compile(r"sha\d*|sum|digest|hash|integrity|commit|revision|version|path", re.IGNORECASE)


class FoundSecret(NamedTuple):
    line: int
    what: str
    value: str  # empty when only known at build time


def find_secrets(dockerfile: Dockerfile) -> list[FoundSecret]:
    """Secrets in a Dockerfile, each reported once, under its most specific kind."""
    found: list[FoundSecret] = []
    for instruction in dockerfile.instructions:
        named = [*_assigned(instruction, dockerfile.file), *_written_out(instruction)]
        known = [one for one in _of_known_form(instruction) if not any(_same(one, other) for other in named)]
        found += dict.fromkeys(named + known)
    return found


def _same(one: FoundSecret, other: FoundSecret) -> bool:
    return bool(other.value) and (one.value in other.value or other.value in one.value)


def _assigned(instruction: Instruction, file: str) -> Iterator[FoundSecret]:
    name, line = instruction.name, instruction.line
    for variable, written in assignments(instruction, file).items() if name in ("ARG", "ENV") else ():
        value = _literal(written)
        if _is_secret(variable, value):
            yield FoundSecret(line, f"{name} gives {variable} a value that everybody can read", value)
        elif _is_random(variable, value):
            yield FoundSecret(line, f"{name} gives {variable} what looks like a key", value)
        elif name == "ENV" and (taken := _VARIABLE.fullmatch(value)) and _named_secret(taken[1]):
            yield FoundSecret(line, f"ENV keeps {taken[1]}, a secret of the build, in {variable}", "")


def _literal(value: str) -> str:
    """The default in `${VARIABLE:-default}`."""
    match = _DEFAULT.fullmatch(value)
    return match[1] if match else value


def _named_secret(name: str) -> bool:
    secret = _NAME.search(name) or _NAME.search(name.lower())
    return bool(secret) and not _PUBLIC_NAME.search(name)


def _is_secret(name: str, value: str) -> bool:
    return _named_secret(name) and not _HARMLESS.fullmatch(value)


def _is_random(name: str, value: str) -> bool:
    if not _RANDOM.fullmatch(value) or _CHECKSUM.search(name):
        return False
    return Base64HighEntropyString().calculate_shannon_entropy(value) > Base64HighEntropyString().entropy_limit


def _written_out(instruction: Instruction) -> Iterator[FoundSecret]:
    """Passwords in command lines and in heredocs."""
    if instruction.name not in _COMMANDS:
        return
    text = "\n".join((instruction.value, *instruction.heredocs))
    for pattern in (_ASSIGNMENT, _OPTION):
        for name, quoted in pattern.findall(text):
            value = _literal(quoted.strip("\"'"))
            if _is_secret(name.replace("-", "_"), value) and not _PLACEHOLDER.fullmatch(value):
                yield FoundSecret(instruction.line, f"{instruction.name} has a value for {name}", value)
    for pattern in (_HEADER, _CURL, _CHPASSWD):
        for where, value in pattern.findall(text):
            yield FoundSecret(instruction.line, f"{instruction.name} has a password or token: {where}", value)


def _of_known_form(instruction: Instruction) -> Iterator[FoundSecret]:
    text = "\n".join((instruction.value, *instruction.heredocs))
    for plugin in _plugins():
        for value in plugin.analyze_string(text):
            if value and not value.startswith("$"):
                what = f"{instruction.name} has what looks like a secret ({plugin.secret_type})"
                yield FoundSecret(instruction.line, what, value)


@cache
def _plugins() -> tuple[BasePlugin, ...]:
    known: Mapping[str, type[BasePlugin]] = get_mapping_from_secret_type_to_class()
    return tuple(plugin() for plugin in known.values() if not issubclass(plugin, _GUESSING))
