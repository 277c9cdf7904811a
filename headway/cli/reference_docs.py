"""Write the generated reference pages, the JSON Schema and the OpenAPI document: `make reference`."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from headway.cli import command_docs
from headway.config import FILE_NAME, schema
from headway.config.platforms import platform
from headway.config.value_parsers import format_duration
from headway.domain.traffic import Capability
from headway.rollout import strategies
from headway.service.prefect.connections import target_classes

__all__ = ["files", "main"]

_DOCS = Path(__file__).parents[2] / "docs" / "reference"
_DURATIONS = ("Duration", "Timeout")

_TOP = f"""# {FILE_NAME}

<!-- Generated from headway/config by `make reference`. -->

The file is at the root of a repository. It says how the app is checked, what is built and where it runs. A minimal
file:

```yaml
app: shop
run: python -m shop
checks:
  unit: pytest
environments:
  production: {{target: process/production}}
```

The file is YAML 1.2 in UTF-8. Unknown keys, duplicate keys and keys without a value are errors. `headway check` reports
all errors at once, each with its line. [headway.schema.json](headway.schema.json) is the JSON Schema of the file. To
let your editor complete and validate it, start the file with this line:

```yaml
# yaml-language-server: $schema=docs/reference/headway.schema.json
```
"""


_TARGETS = """# Targets

<!-- Generated from blocks/targets by `make reference`. -->

The table shows what each kind of target can do when its block has only the required settings; [Targets and
Envoy](../concepts/targets.md#what-a-target-can-do) explains the rows. Headway refuses a strategy that a target cannot
carry out before it changes anything, and names those that are possible.
"""


def files() -> dict[str, str]:
    """File name -> content of everything that is generated."""
    whole = schema()
    return {
        "headway-yaml.md": "\n".join(_page(whole)),
        "headway.schema.json": json.dumps(whole, indent=2) + "\n",
        "targets.md": "\n".join(_targets()),
        **command_docs.files(),
    }


def main() -> None:
    """Write the generated files into docs/reference/ of the checkout. Raises OSError when that is not possible."""
    _DOCS.mkdir(parents=True, exist_ok=True)
    for name, content in files().items():
        fresh = _DOCS / f".{name}.new"
        fresh.write_text(content, encoding="utf-8")
        fresh.replace(_DOCS / name)


def _page(whole: dict[str, Any]) -> Iterator[str]:
    definitions = whole["$defs"]
    yield _TOP
    yield "## The whole file\n"
    yield from _section(whole, definitions)
    sections: list[str] = []
    values: list[str] = []
    for name in _mentioned(whole, definitions):
        (sections if "properties" in definitions[name] and "title" in definitions[name] else values).append(name)
    for name in sections:
        yield f"## {name}\n"
        yield from _section(definitions[name], definitions)
    yield "## How values are written\n"
    for name in values:
        if "description" in definitions[name]:
            yield f"### {name}\n\n{definitions[name]['description']}\n"


def _section(part: dict[str, Any], definitions: dict[str, Any]) -> Iterator[str]:
    yield f"{part['description']}\n"
    if not part.get("properties"):
        yield "It has no settings.\n"
        return
    yield "| key | value | default | meaning |"
    yield "|---|---|---|---|"
    for key, value in part["properties"].items():
        default = "**required**" if key in part.get("required", ()) else _default(value)
        yield f"| `{key}` | {_form(value, definitions)} | {default} | {value['description']} |".replace("  ", " ")
    yield ""


def _targets() -> Iterator[str]:
    """Capabilities and settings of every platform."""
    known = dict(sorted(target_classes().items()))
    yield _TARGETS
    yield f"| | {' | '.join(f'[{kind}](#{kind})' for kind in known)} |"
    yield f"|---|{'---|' * len(known)}"
    able = {kind: block.model_construct().capabilities for kind, block in known.items()}
    for capability in Capability:
        yield f"| {capability.value} | {' | '.join('yes' if capability in able[kind] else '' for kind in known)} |"
    yield f"| strategies | {' | '.join(', '.join(strategies.possible(able[kind])) for kind in known)} |"
    yield f"| runs | {' | '.join(_runs(kind) for kind in known)} |\n"
    for kind, block in known.items():
        described = block.model_json_schema()
        yield f"## {kind}\n\n{inspect.getdoc(block)}\n"
        yield f"A block of the type {block.get_block_type_name()}:\n"
        yield "| setting | default | meaning |"
        yield "|---|---|---|"
        for name, field in described["properties"].items():
            default = "**required**" if name in described.get("required", ()) else _default(field)
            yield f"| `{name}` | {default} | {field['description']} |".replace("  ", " ")
        yield ""


def _runs(kind: str) -> str:
    return ", ".join(f"{name}s" for name in sorted(platform(kind).artifacts))


def _mentioned(whole: dict[str, Any], definitions: dict[str, Any]) -> list[str]:
    """Definitions in reading order: those of a section before those of the next one."""
    met: dict[str, None] = {}

    def visit(part: dict[str, Any]) -> None:
        for name in re.findall(r'"#/\$defs/(\w+)"', json.dumps(part)):
            if name not in met:
                met[name] = None
                visit(definitions[name])

    visit({"properties": whole["properties"]})
    return list(met)


def _form(part: dict[str, Any], definitions: dict[str, Any]) -> str:
    """What may be written there, in a few words."""
    if "$ref" in part:
        name = part["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})" if "description" in definitions[name] else "anything"
    if "anyOf" in part:
        return " or ".join(_form(form, definitions) for form in part["anyOf"])
    if "enum" in part:
        return ", ".join(f"`{choice}`" for choice in part["enum"])
    match part.get("type"):
        case "array":
            return f"list of {_form(part['items'], definitions)}"
        case "object":
            inner = part.get("additionalProperties") or next(iter(part["patternProperties"].values()))
            return f"name: {_form(inner, definitions)}"
        case "boolean":
            return "`true`, `false`"
        case "string":
            return "text"
        case kind:
            return str(kind)


def _default(part: dict[str, Any]) -> str:
    default = part.get("default")
    if default is None or isinstance(default, list):
        return ""
    if part.get("$ref", "").rpartition("/")[2] in _DURATIONS:
        return f"`{format_duration(default)}`"
    return f"`{json.dumps(default)}`" if not isinstance(default, str) else f"`{default}`"


if __name__ == "__main__":
    main()
