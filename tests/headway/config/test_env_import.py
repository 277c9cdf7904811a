"""Import of an env schema from existing files, and export of an environment for other tools."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from dotenv import dotenv_values
from ruamel.yaml import YAML

from headway import config
from headway.config.env_export import differences, render
from headway.config.env_import import env_schema, env_section
from headway.domain.errors import UsageError
from headway.domain.revision import SecretRef

EXAMPLE = """
# what the shop needs
PORT=3000
DATABASE_URL=postgres://shop:change-me@localhost/shop
STRIPE_SECRET_KEY=
LOG_LEVEL=info
WORKERS=4
RATE=0.5
DEBUG=false
SITE=https://example.com
ADMIN=
"""


def made(tree: Path, what: str) -> dict[str, dict[str, Any]]:
    """The imported schema as written to headway.yaml, loaded by the settings loader."""
    text = env_section(env_schema(what, tree))
    (tree / "headway.yaml").write_text(f"app: shop\n{text}\n")
    read = config.load(tree)
    return {name: one.model_dump(mode="json", exclude_unset=True) for name, one in read.env.items()}


def test_an_example_of_a_dotenv_file(tmp_path: Path) -> None:
    (tmp_path / ".env.example").write_text(EXAMPLE)
    assert made(tmp_path, ".env.example") == {
        "DATABASE_URL": {"type": "url", "secret": True},
        "STRIPE_SECRET_KEY": {"secret": True},
        "LOG_LEVEL": {"default": "info"},
        "WORKERS": {"type": "integer", "default": "4"},
        "RATE": {"type": "number", "default": "0.5"},
        "DEBUG": {"type": "boolean", "default": "false"},
        "SITE": {"type": "url", "default": "https://example.com"},
        "ADMIN": {},
    }


def test_a_json_schema(tmp_path: Path) -> None:
    schema = {
        "properties": {
            "mail_from": {"type": "string", "format": "email"},
            "workers": {"type": "integer", "minimum": 1, "maximum": 8, "default": 2},
            "level": {"$ref": "#/$defs/Level"},
            "token": {"type": "string", "writeOnly": True, "minLength": 32},
            "features": {"anyOf": [{"type": "array"}, {"type": "null"}], "default": None},
            "code": {"type": "string", "pattern": "^[a-z]+$"},
            "old": {"type": "string", "deprecated": True, "description": "use code"},
        },
        "required": ["mail_from", "level", "token", "code"],
        "$defs": {"Level": {"enum": ["low", "high"]}},
    }
    (tmp_path / "schema.json").write_text(json.dumps(schema))
    assert made(tmp_path, "schema.json") == {
        "MAIL_FROM": {"type": "email"},
        "WORKERS": {"type": "integer", "min": "1", "max": "8", "default": "2"},
        "LEVEL": {"type": "enum", "choices": ["low", "high"]},
        "TOKEN": {"min_length": 32, "secret": True},
        "FEATURES": {"type": "json", "required": False},
        "CODE": {"type": "regex", "pattern": "^[a-z]+$"},
        "OLD": {"required": False, "deprecated": "use code"},
    }


def test_a_class_of_pydantic_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=":")
    (tmp_path / "config.py").write_text(
        "from pydantic import Field, PostgresDsn, SecretStr\n"
        "from pydantic_settings import BaseSettings, SettingsConfigDict\n\n"
        "class Config(BaseSettings):\n"
        "    model_config = SettingsConfigDict(env_prefix='shop_')\n"
        "    key: SecretStr = Field(min_length=16)\n"
        "    database: PostgresDsn\n"
        "    workers: int = Field(2, ge=1)\n"
        "    nickname: str | None = None\n"
    )
    assert made(tmp_path, "config:Config") == {
        "SHOP_KEY": {"min_length": 16, "secret": True},
        "SHOP_DATABASE": {"type": "url"},
        "SHOP_WORKERS": {"type": "integer", "min": "1", "default": "2"},
        "SHOP_NICKNAME": {"required": False},
    }
    with pytest.raises(UsageError, match="No module named 'nowhere'"):
        env_schema("nowhere:Config", tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "fault"),
    [
        ("schema.json", "{", "is not JSON"),
        ("schema.json", "[]", "has no properties"),
        ("schema.json", '{"properties": {"a": {"type": "string", "pattern": "["}}}', "A/pattern: is not a regular"),
        ("nothing.txt", None, "no such file"),
    ],
)
def test_import_of_an_invalid_schema_is_an_error(tmp_path: Path, name: str, content: str | None, fault: str) -> None:
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(UsageError, match=fault):
        env_schema(name, tmp_path)


TOLD: dict[str, str | SecretRef] = {
    "A": 'with "quotes" and \\ and $HOME',
    "B": "two\nlines",
    "C": SecretRef(secret="shop-prod/key"),
    "D": "",
}


def test_exported_dotenv_file_has_the_given_values() -> None:
    text = render(TOLD, "dotenv")
    read = dotenv_values(stream=io.StringIO(text), interpolate=False)
    assert read == {"A": TOLD["A"], "B": TOLD["B"], "D": ""}
    assert "# C= is the secret shop-prod/key" in text


def test_the_env_of_a_container() -> None:
    assert YAML(typ="safe").load(render(TOLD, "k8s"))["env"] == [
        {"name": "A", "value": TOLD["A"]},
        {"name": "B", "value": TOLD["B"]},
        {"name": "C", "valueFrom": {"secretKeyRef": {"name": "shop-prod", "key": "key"}}},
        {"name": "D", "value": ""},
    ]


def test_an_env_file_of_docker() -> None:
    with pytest.raises(UsageError, match="B: docker's --env-file cannot hold"):
        render(TOLD, "docker")
    assert render({"A": "x y", "C": TOLD["C"]}, "docker") == "A=x y\nC"


def test_differences() -> None:
    staging: dict[str, str | SecretRef] = {"A": "1", "B": "same", "C": SecretRef(secret="shop-staging/c")}
    production: dict[str, str | SecretRef] = {"B": "same", "C": SecretRef(secret="shop-production/c"), "D": "2"}
    assert differences(staging, production) == [
        ("A", '"1"', "-"),
        ("C", "!secret shop-staging/c", "!secret shop-production/c"),
        ("D", "-", '"2"'),
    ]


def test_on_the_command_line(tmp_path: Path) -> None:
    (tmp_path / "headway.yaml").write_text(
        "app: shop\nrun: x\nenv: {LEVEL: {default: info}, KEY: {secret: true}}\nenvironments:\n"
        "  staging: {target: process/s}\n  production: {target: process/p, env: {LEVEL: debug}}\n"
    )

    def run(*arguments: str) -> str:
        command = [str(Path(sys.executable).with_name("headway")), "env", *arguments, str(tmp_path)]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    assert run("diff", "staging", "production").splitlines() == [
        "       staging                   production",
        "KEY    !secret shop-staging/key  !secret shop-production/key",
        'LEVEL  "info"                    "debug"',
    ]
    assert run("render", "production") == '# KEY= is the secret shop-production/key\nLEVEL="debug"\n'
    assert "secretKeyRef" in run("render", "production", "--format", "k8s")
    assert "LEVEL=debug" in run("render", "production", "--format", "docker")
    (tmp_path / ".env.example").write_text("PORT=3000\nWORKERS=4\nAPI_TOKEN=change-me\n")
    assert run("import", ".env.example").splitlines() == [
        "env:",
        '  WORKERS: {"type": "integer", "default": "4"}',
        '  API_TOKEN: {"secret": true}',
    ]
