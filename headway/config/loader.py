"""Reads headway.yaml: YAML in, Settings out, or every fault with its line. And its JSON Schema, for editors."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from headway.config.platforms import platform
from headway.config.renamed_keys import rename_keys
from headway.config.settings import FILE_NAME, Settings
from headway.config.validation import Fault, Keys, fault
from headway.config.yaml_document import Document, parse, report
from headway.domain.errors import SettingsError
from headway.domain.revision import Manifest
from headway.system import untrusted_files

__all__ = ["load", "schema"]

_MAX_BYTES = 256 * 1024
_REFERENCE = "docs/reference/headway-yaml.md lists every key"
_MINIMUM_HINT = f"""{_REFERENCE}; the least that works:
app: shop
run: python -m shop
checks:
  unit: pytest
environments:
  production: {{target: process/production}}"""


def load(path: Path) -> Settings:
    """Read and validate headway.yaml; `path` is the file alone, or the repository that holds it.

    Of a repository the Kubernetes manifests that it names are read too: without them there is no launch spec. Raises
    SettingsError with every fault that can be found at once, one a line: `headway.yaml:LINE: path/with/slashes:
    message`, then, when there is none, `k8s/web.yaml#DOCUMENT: message`. The old name of a renamed key is a warning, in
    `Settings.warnings`.
    """
    alone = path.suffix in (".yaml", ".yml") and not path.is_dir()
    file = path if alone else path / FILE_NAME
    document = _parse(file, _read_text(file))
    warnings = tuple(f"{file.name}:{warning}" for warning in rename_keys(document))
    settings, faults = _validate(document)
    if settings is None or faults:
        raise SettingsError(report(file.name, document, faults), _REFERENCE)
    settings = settings.with_warnings(warnings)
    return settings if alone else _with_manifests(settings, path)


def _with_manifests(settings: Settings, root: Path) -> Settings:
    read: dict[str, tuple[Manifest, ...]] = {}
    checked: dict[tuple[str, str], tuple[Manifest, ...]] = {}  # by platform and path
    faults: list[str] = []
    for name, environment in settings.environments.items():
        where, form = settings.manifests_of(name), platform(environment.kind).manifests
        if where is None or form is None:
            continue
        if (environment.kind, where) not in checked:
            found = checked[environment.kind, where] = form.read(root, where)
            faults += form.faults(settings.app, settings.build.image or "", found)
        read[name] = checked[environment.kind, where]
    if faults:
        raise SettingsError("\n".join(faults), "see docs/guides/use-your-own-manifests.md")
    return settings.with_manifests(read) if read else settings


def _parse(file: Path, text: str) -> Document:
    document = parse(file.name, text, _REFERENCE)
    if document.empty:
        raise SettingsError(f"{file.name}:1: is empty", _MINIMUM_HINT)
    return document


def _validate(document: Document) -> tuple[Settings | None, list[Fault]]:
    """Faults of the YAML first: what pydantic says about the same keys only follows from them."""
    try:
        return Settings.model_validate(document.value), document.faults
    except ValidationError as error:
        known = {keys for keys, _ in document.faults}
        found = (fault(details, _known_keys) for details in error.errors(include_url=False))
        return None, [*document.faults, *(one for one in found if one.keys not in known)]


def _read_text(file: Path) -> str:
    try:
        if not file.parent.is_dir():
            raise SettingsError(f"{file.parent}: no such directory", "name the directory of the repository")
        if not os.path.lexists(file):
            raise SettingsError(f"{file.parent}: no {file.name}", _MINIMUM_HINT)
        return untrusted_files.read(file, file.parent, _MAX_BYTES).decode("utf-8-sig")
    except untrusted_files.NotReadable as refused:
        raise SettingsError(f"{file.name}: {refused}", _REFERENCE) from refused
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise SettingsError(f"{file.name}:{line}: is not UTF-8 text", "save the file as UTF-8") from error
    except OSError as error:
        raise SettingsError(f"{file}: cannot be read: {error.strerror}", "check its owner and permissions") from error


def _known_keys(keys: Keys) -> set[str]:
    """What may be written under these keys, read from the schema."""
    whole = schema()
    here = [whole]
    for key in keys:
        here = [form for part in here for form in _forms(_below(part, key), whole["$defs"])]
    return {name for part in here for name in part.get("properties", {})}


def _below(part: JsonSchemaValue, key: str | int) -> JsonSchemaValue:
    if key in part.get("properties", {}):
        return dict(part["properties"][key])
    if isinstance(key, int):
        return dict(part.get("items", {}))
    return dict(next(iter(part.get("patternProperties", {}).values()), {}))


def _forms(part: JsonSchemaValue, definitions: JsonSchemaValue) -> Iterator[JsonSchemaValue]:
    if "$ref" in part:
        yield from _forms(definitions[part["$ref"].rpartition("/")[2]], definitions)
    elif "anyOf" in part:
        for form in part["anyOf"]:
            yield from _forms(form, definitions)
    else:
        yield part


# --- the JSON Schema -------------------------------------------------------------------------------------------


class _EditorSchema(GenerateJsonSchema):
    """Without the noise pydantic adds for its own purposes: a title for each field, null for each optional one."""

    def field_title_should_be_set(self, schema: Any) -> bool:  # noqa: ARG002
        return False

    def nullable_schema(self, schema: core_schema.NullableSchema) -> JsonSchemaValue:
        return self.generate_inner(schema["schema"])

    def dict_schema(self, schema: core_schema.DictSchema) -> JsonSchemaValue:
        json_schema = super().dict_schema(schema)
        if "patternProperties" in json_schema:
            json_schema["additionalProperties"] = False
        return json_schema

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        json_schema = super().default_schema(schema)
        # A section that is left out has the defaults of its own keys.
        if isinstance(json_schema.get("default"), dict | None):
            json_schema.pop("default", None)
        return json_schema


def schema() -> dict[str, Any]:
    """JSON Schema (2020-12) of headway.yaml for editors, short forms included."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **Settings.model_json_schema(schema_generator=_EditorSchema),
        "title": FILE_NAME,
    }
