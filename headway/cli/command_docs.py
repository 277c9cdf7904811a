"""Reference pages made from the code: the commands (from Typer) and the HTTP API (from OpenAPI)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import typer
from typer.cli import get_docs_for_click

from headway.cli.help_text import epilog, examples_of
from headway.cli.main import app as commands

__all__ = ["files"]

_GENERATED = "<!-- Generated from the code by `make reference`. -->"
_CLI = f"""# Command line

{_GENERATED}

Commands read the addresses of the running Headway from [`HEADWAY_HOME`](environment-variables.md). `--json` prints one
JSON document instead of text. [Exit codes](exit-codes.md) are the same for all commands.
"""
_HTTP = f"""# HTTP API

{_GENERATED}

`headway up` and `headway serve` respond on port 4300. [openapi.json](openapi.json) describes the same as OpenAPI 3.1;
a running Headway serves it at `/openapi.json`. The body of an error has `error`, which says what happened, and `hint`,
which says what to do.
"""


def files() -> dict[str, str]:
    """File name -> content of the pages about the command line and the HTTP API."""
    described = _openapi()
    return {
        "cli.md": _cli(),
        "http-api.md": "\n".join(_http(described)),
        "openapi.json": json.dumps(described, indent=2) + "\n",
    }


def _cli() -> str:
    group = typer.main.get_command(commands)
    _unabridged(group)
    written = get_docs_for_click(obj=group, ctx=typer.Context(group, info_name="headway"), name="headway")
    _, _, of_commands = written.partition("\n")  # our own title
    return f"{_CLI}{of_commands.rstrip()}\n"


def _unabridged(group: Any) -> None:
    """Lists of commands show the whole first sentence, not its first 45 characters; commands show their examples."""
    for command in getattr(group, "commands", {}).values():
        command.short_help = (command.help or "").partition("\n")[0]
        if shown := examples_of(command):
            command.epilog = epilog(shown)
        _unabridged(command)


def _openapi() -> dict[str, Any]:
    from headway.service.api.app import app  # a slow import that no command needs

    return app.openapi()


def _http(described: Mapping[str, Any]) -> Iterator[str]:
    yield _HTTP
    for path, methods in described["paths"].items():
        for method, operation in methods.items():
            yield f"## {method.upper()} {path}\n"
            yield from _operation(operation, described)


def _operation(operation: Mapping[str, Any], described: Mapping[str, Any]) -> Iterator[str]:
    yield f"{operation['summary']}. {operation['description']}\n"
    if parameters := operation.get("parameters"):
        yield "| parameter | in | value | |"
        yield "|---|---|---|---|"
        for one in parameters:
            needed = "**required**" if one["required"] else "optional"
            yield f"| `{one['name']}` | {one['in']} | {_value(one['schema'])} | {needed} |"
        yield ""
    if body := operation.get("requestBody"):
        yield f"Request body, as JSON{': ' + body['description'] if 'description' in body else ''}.\n"
        yield from _fields(body["content"]["application/json"]["schema"])
    yield "| status | meaning | body |"
    yield "|---|---|---|"
    for status, response in sorted(operation["responses"].items()):
        if status != "422":  # FastAPI adds it to every operation; ours answer 400
            shape = _resolved(response["content"]["application/json"]["schema"], described)
            yield f"| {status} | {response['description']} | {', '.join(f'`{name}`' for name in shape['properties'])} |"
    yield ""
    ok = next(response for status, response in sorted(operation["responses"].items()) if status < "300")
    yield "Body on success:\n"
    yield from _answer(_resolved(ok["content"]["application/json"]["schema"], described))


def _resolved(schema: Mapping[str, Any], described: Mapping[str, Any]) -> Mapping[str, Any]:
    found: Mapping[str, Any] = described["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    return found


def _fields(schema: Mapping[str, Any]) -> Iterator[str]:
    yield "| field | value | default | meaning |"
    yield "|---|---|---|---|"
    for name, field in schema["properties"].items():
        default = "**required**" if name in schema.get("required", ()) else f"`{json.dumps(field.get('default'))}`"
        yield f"| `{name}` | {_value(field)} | {default} | {field.get('description', '')} |"
    yield ""


def _answer(schema: Mapping[str, Any]) -> Iterator[str]:
    yield "| field | value | meaning |"
    yield "|---|---|---|"
    for name, field in schema["properties"].items():
        yield f"| `{name}` | {_value(field)} | {field.get('description', '')} |"
    yield ""


def _value(schema: Mapping[str, Any]) -> str:
    if "enum" in schema:
        return ", ".join(f"`{choice}`" for choice in schema["enum"])
    if "anyOf" in schema:
        return " or ".join(_value(form) for form in schema["anyOf"])
    if schema["type"] == "array":
        return f"list of {_value(schema['items'])}"
    return str(schema["type"])
