"""Load YAML text to plain values with their line numbers, and report faults of the YAML itself."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from headway.config.validation import Fault, Keys, shorten
from headway.config.value_parsers import parse_secret
from headway.domain.errors import SettingsError

__all__ = ["Document", "parse", "report"]

_MAX_NODES = 20_000


class _Int(int):
    """An integer that remembers how it was written: the environment variable `007` is not `7`."""

    written: str

    def __str__(self) -> str:
        return self.written


class _Float(float):
    """A number that remembers how it was written: the environment variable `1.10` is not `1.1`."""

    written: str

    def __str__(self) -> str:
        return self.written


class Document:
    """One YAML 1.2 document.

    `value` is what it says; `faults` are duplicate keys, unknown tags and missing values. Raises
    ruamel.yaml.error.YAMLError when the text is not YAML, RecursionError when it is nested too deeply or its aliases
    multiply beyond reason.
    """

    def __init__(self, text: str) -> None:
        self.faults: list[Fault] = []
        self._lines: dict[Keys, int] = {(): 1}
        self._nodes = 0
        self._yaml = YAML(typ="safe", pure=True)
        root = self._yaml.compose(text)
        self.empty = root is None
        self.value = None if root is None else self._value(root, ())

    def line(self, keys: Keys) -> int:
        """Line, from 1, of the value under these keys, or of the nearest one above it that is written down."""
        return next(self._lines[keys[:end]] for end in range(len(keys), -1, -1) if keys[:end] in self._lines)

    def has(self, keys: Keys) -> bool:
        """Whether a value is written under these keys of mappings."""
        return keys in self._lines

    def rename(self, keys: Keys, name: str) -> None:
        """Change the last of these keys, which lead through mappings to a value."""
        parent: Any = self.value
        for key in keys[:-1]:
            parent = parent[key]
        parent[name] = parent.pop(keys[-1])
        moved = {old: line for old, line in self._lines.items() if old[: len(keys)] == keys}
        for old, line in moved.items():
            del self._lines[old]
            self._lines[*keys[:-1], name, *old[len(keys) :]] = line
        self.faults = [
            fault._replace(keys=(*keys[:-1], name, *fault.keys[len(keys) :]))
            if fault.keys[: len(keys)] == keys
            else fault
            for fault in self.faults
        ]

    def _value(self, node: Node, keys: Keys) -> object:
        self._nodes += 1
        if self._nodes > _MAX_NODES:
            raise RecursionError(f"more than {_MAX_NODES} values")
        tag = str(node.tag).removeprefix("tag:yaml.org,2002:")
        if isinstance(node, MappingNode) and tag == "map":
            return self._mapping(node, keys)
        if isinstance(node, SequenceNode) and tag == "seq":
            return [self._item(item, (*keys, index)) for index, item in enumerate(node.value)]
        if isinstance(node, ScalarNode):
            return self._scalar(str(node.value), tag, node, keys)
        self._unknown_tag(tag, keys)
        return None

    def _mapping(self, node: MappingNode, keys: Keys) -> dict[str, object]:
        values: dict[str, object] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, ScalarNode):
                self.faults.append(Fault(keys, f"has a key in line {line} that is not text"))
                continue
            key = str(key_node.value)
            if key in values:
                self.faults.append(Fault((*keys, key), f"is written twice, again in line {line}"))
                continue
            self._lines[*keys, key] = line
            values[key] = self._value(value_node, (*keys, key))
        return values

    def _item(self, node: Node, keys: Keys) -> object:
        self._lines[keys] = node.start_mark.line + 1
        return self._value(node, keys)

    def _scalar(self, text: str, tag: str, node: ScalarNode, keys: Keys) -> object:
        match tag:
            case "!secret":
                return self._secret(text, keys)
            case "null":
                # Only JSON uses null; elsewhere the value is missing.
                if not {"json", "expect_json"} & set(keys):
                    self.faults.append(Fault(keys, "has no value: give it one or remove the key"))
                return None
            case "bool":
                return text.lower() == "true"
            case "int" | "float":
                return self._number(text, tag, node, keys)
            case "str" | "timestamp" | "merge" | "value":
                return text
        self._unknown_tag(tag, keys)
        return text

    def _secret(self, text: str, keys: Keys) -> object:
        try:
            return parse_secret(text)
        except ValueError as error:
            self.faults.append(Fault(keys, str(error)))
            return None

    def _number(self, text: str, tag: str, node: ScalarNode, keys: Keys) -> object:
        number: _Int | _Float
        try:
            if tag == "int":
                number = _Int(self._yaml.constructor.construct_yaml_int(node))
            else:
                number = _Float(self._yaml.constructor.construct_yaml_float(node))
        except ValueError:  # Python refuses to read integers of thousands of digits
            self.faults.append(Fault(keys, "is not a number that can be read"))
            return None
        number.written = text
        return number

    def _unknown_tag(self, tag: str, keys: Keys) -> None:
        self.faults.append(
            Fault(keys, f"unknown tag {shorten(tag)}: there is only !secret, before the name of a secret")
        )


def parse(name: str, text: str, hint: str) -> Document:
    """The document in the text of a file of this name. Raises SettingsError with the place of the fault."""
    try:
        return Document(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{name}:{mark.line + 1}:{mark.column + 1}" if mark else name
        problem = " ".join(str(error.problem or error.context).split())
        raise SettingsError(
            f"{where}: is not YAML: {problem}", "text that begins with > % @ ` & * ! { or [ needs quotes"
        ) from error
    except YAMLError as error:
        raise SettingsError(f"{name}: is not YAML: {' '.join(str(error).split())}", hint) from error
    except RecursionError as error:
        raise SettingsError(f"{name}: is nested too deeply, or its aliases multiply", hint) from error


def report(name: str, document: Document, faults: Iterable[Fault]) -> str:
    """The faults, one a line: `NAME:LINE: path/with/slashes: message`."""
    lines = sorted((document.line(keys), "/".join(map(str, keys)), message) for keys, message in faults)
    return "\n".join(f"{name}:{line}: {where}{where and ': '}{message}" for line, where, message in lines)
