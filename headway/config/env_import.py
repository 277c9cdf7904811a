"""Import of an env schema from a .env.example file, a JSON Schema or a pydantic-settings class."""

from __future__ import annotations

import io
import json
import re
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from dotenv import dotenv_values
from pydantic import ValidationError

from headway.config import Variable
from headway.config.env_schema import is_given
from headway.domain.errors import UsageError
from headway.system.command_runner import clean_environment

__all__ = ["env_schema", "env_section"]

_SECRET = re.compile(
    r"(SECRET|TOKEN|PASSWORD|PASSWD|PASSPHRASE|CREDENTIALS?|DSN|(API|PRIVATE|ACCESS|SIGNING|AUTH|SECRET)_?KEY)$"
)
_CLASS = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
_PROGRAM = """
import importlib, json, sys
module, name = sys.argv[1].split(":")
found = getattr(importlib.import_module(module), name)
print(json.dumps({"prefix": found.model_config.get("env_prefix", ""), **found.model_json_schema()}))
"""
_GUESSES = (
    ("integer", r"-?\d+"),
    ("number", r"-?\d+\.\d+"),
    ("boolean", "true|false"),
    ("url", r"[A-Za-z][A-Za-z0-9+.-]*://\S+"),
)
_FORMATS = (
    ("email", "email"),
    ("uri", "url"),
    ("-dsn", "url"),
    ("json-string", "json"),
)  # end of the JSON Schema format, our type


def env_schema(what: str, tree: Path) -> dict[str, Variable]:
    """The variables of `what`: a file of this tree, or `module:Class`, imported by the `python3` on the PATH.

    Raises UsageError when it is none of these, or has a value that an env schema cannot have.
    """
    file = tree / what
    if file.is_file() and file.suffix == ".json":
        found = dict(_of_schema(_json(file.read_text(), what)))
    elif file.is_file():
        found = dict(_of_dotenv(file.read_text()))
    elif _CLASS.fullmatch(what):
        found = dict(_of_schema(_json(_imported(what, tree), what)))
    else:
        raise UsageError(f"{what}: no such file in {tree}", "name a .env.example, a JSON Schema, or module:Class")
    return {name: _variable(what, name, body) for name, body in found.items() if not is_given(name)}


def env_section(variables: Mapping[str, Variable]) -> str:
    """The variables as the `env` section of headway.yaml."""
    lines = (
        f"  {name}: {json.dumps(one.model_dump(mode='json', exclude_unset=True), ensure_ascii=False)}"
        for name, one in variables.items()
    )
    return "\n".join(["env:", *lines])


def _variable(what: str, name: str, body: Mapping[str, Any]) -> Variable:
    try:
        return Variable.model_validate(body)
    except ValidationError as error:
        fault = error.errors()[0]
        where = "/".join(map(str, (name, *fault["loc"])))
        raise UsageError(f"{what}: {where}: {fault['msg']}", "correct it in the source") from error


def _json(text: str, what: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError as error:
        raise UsageError(f"{what}: is not JSON: {error}", "a JSON Schema with `properties`") from error
    if not isinstance(found, dict) or not isinstance(found.get("properties"), dict):
        raise UsageError(f"{what}: has no properties", "a JSON Schema of an object with a property for each variable")
    return found


def _imported(what: str, tree: Path) -> str:
    command = ["python3", "-c", _PROGRAM, what]
    try:
        done = subprocess.run(
            command, cwd=tree, env=clean_environment(), capture_output=True, text=True, timeout=60, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UsageError(f"{what}: python3 cannot be run: {type(error).__name__}", "is python3 on the PATH?") from error
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no output"])[-1]
        raise UsageError(
            f"{what}: {last}", "python3 on the PATH has to import it: activate the app's virtual environment first"
        )
    return done.stdout


def _of_dotenv(text: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """The value of a secret is an example, any other value is the default."""
    for name, value in dotenv_values(stream=io.StringIO(text), interpolate=False).items():
        secret = bool(_SECRET.search(name.upper())) or bool(value and re.match(r"\w+://[^/@\s]*:[^/@\s]*@", value))
        kind = next((kind for kind, form in _GUESSES if value and re.fullmatch(form, value)), "string")
        body: dict[str, Any] = {"type": kind} if kind != "string" else {}
        if secret:
            body = {"type": "url", "secret": True} if kind == "url" else {"secret": True}
        elif value:
            body["default"] = value
        yield name, body


def _of_schema(schema: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Variables as pydantic-settings names them: the prefix, then the field, in capitals."""
    required = set(schema.get("required", ()))
    for name, form in schema["properties"].items():
        variable = f"{schema.get('prefix', '')}{name}".upper()
        yield variable, _of_property(_resolved(form, schema), required=name in required)


def _resolved(form: Mapping[str, Any], schema: Mapping[str, Any]) -> dict[str, Any]:
    """The schema with its references resolved, and the first choice that is not null in place of `anyOf`."""
    found = dict(form)
    for _ in range(10):
        inner: Mapping[str, Any] = {}
        choices = [one for one in found.get("anyOf", found.get("allOf", ())) if one.get("type") != "null"]
        if "$ref" in found:
            inner = schema.get("$defs", {}).get(str(found.pop("$ref")).rpartition("/")[2], {})
        elif choices:
            inner = choices[0]
            found = {key: value for key, value in found.items() if key not in ("anyOf", "allOf")}
        if not inner:
            break
        found = {**inner, **found}
    return found


def _of_property(form: Mapping[str, Any], *, required: bool) -> dict[str, Any]:
    body: dict[str, Any] = {}
    kind = form.get("type")
    if "enum" in form:
        body |= {"type": "enum", "choices": [str(choice) for choice in form["enum"]]}
    elif kind in ("integer", "number", "boolean"):
        body["type"] = kind
    elif kind in ("object", "array"):
        body["type"] = "json"
    elif known := next((ours for theirs, ours in _FORMATS if str(form.get("format")).endswith(theirs)), None):
        body["type"] = known
    elif "pattern" in form:
        body |= {"type": "regex", "pattern": form["pattern"]}
    body |= {ours: str(form[theirs]) for ours, theirs in (("min", "minimum"), ("max", "maximum")) if theirs in form}
    if "minLength" in form and body.get("type", "regex") == "regex":
        body["min_length"] = form["minLength"]
    if form.get("format") == "password" or form.get("writeOnly"):
        body["secret"] = True
    elif form.get("default") is not None:
        default = form["default"]
        body["default"] = default if isinstance(default, str) else json.dumps(default)
    if not required and "default" not in body:
        body["required"] = False
    if form.get("deprecated"):
        body["deprecated"] = str(form.get("description") or "deprecated in the schema")
    return body
