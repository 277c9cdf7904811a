from __future__ import annotations

import errno
import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from dockerfile_parse import DockerfileParser  # type: ignore[import-untyped]
from hypothesis import given
from hypothesis import strategies as st

from headway import config
from headway.build import scaffold
from headway.build.dockerfiles import findings_for
from headway.build.scaffold import Project
from headway.build.scaffold.project import GoProject, NodeProject, PythonProject, entry, label
from headway.build.scaffold.versions import node_range, pick, python_range
from headway.config.yaml_document import Document
from headway.domain.errors import NotFound, UsageError
from tests.standins.ports import free_port
from tests.standins.repositories import Repository

pytestmark = pytest.mark.slow

BIN = Path(sys.executable).parent
SERVER_JS = """\
const server = require('node:http').createServer((request, response) => {
  response.statusCode = request.url === '/health' ? 200 : 404;
  response.end();
});
process.on('SIGTERM', () => server.close(() => process.exit(0)));
server.listen(process.env.PORT, '127.0.0.1');
"""
MAIN_PY = """\
import http.server, os

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/health" else 404)
        self.end_headers()

http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
"""
FASTAPI = "from fastapi import FastAPI\n\napi = FastAPI()\n\n@api.get('/health')\ndef health():\n    return {}\n"
MAIN_GO = 'package main\n\n// answers /health\nfunc main() { println("hello") }\n'


def tree(place: Path, files: dict[str, str]) -> Path:
    place.mkdir(exist_ok=True)
    for name, content in files.items():
        path = place / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return place


def package(**more: Any) -> str:
    return json.dumps({"name": "shop", "scripts": {"start": "node server.js"}, **more})


def pyproject(*dependencies: str, more: str = "", build: bool = True) -> str:
    system = '[build-system]\nrequires = ["hatchling"]\nbuild-backend = "hatchling.build"\n' if build else ""
    return f'[project]\nname = "shop"\nversion = "1"\ndependencies = {json.dumps(dependencies)}\n{more}\n{system}'


NODE = {"package.json": package(), "package-lock.json": "{}", "server.js": SERVER_JS}
GO = {"go.mod": "module github.com/acme/shop\n\ngo 1.26.0\n", "go.sum": "", "cmd/shop/main.go": MAIN_GO}
PYTHON = {"pyproject.toml": pyproject(), "shop/__init__.py": "", "shop/__main__.py": MAIN_PY}
FLASK = {"requirements.txt": "flask==3.1\n", "app.py": "import flask\napp = flask.Flask(__name__)  # /health\n"}

VARIANTS: dict[str, dict[str, str]] = {
    "node": NODE,
    "node that builds": {**NODE, "package.json": package(scripts={"start": "node dist/main.js", "build": "tsc"})},
    "node with pnpm": {"package.json": package(), "pnpm-lock.yaml": "", "server.js": SERVER_JS},
    "node with yarn": {"package.json": package(), "yarn.lock": "", "server.js": SERVER_JS, ".npmrc": "a=b"},
    "node with new yarn": {
        "package.json": package(packageManager="yarn@4.9.1"),
        "yarn.lock": "",
        ".yarnrc.yml": "",
        ".yarn/releases/yarn.cjs": "",
        "server.js": SERVER_JS,
    },
    "node without a lock": {"package.json": package(), "server.js": SERVER_JS},
    "node with install scripts": {
        **NODE,
        "package.json": package(scripts={"start": "node a.js", "postinstall": "node b.js", "build": "tsc"}),
    },
    "node that starts oddly": {
        **NODE,
        "package.json": package(scripts={"start": "A='x: #y' node \"my server.js\" --port=$PORT && echo 'it: done'"}),
    },
    "node with a pipe": {**NODE, "package.json": package(scripts={"start": "node server.js | pino"})},
    "go": GO,
    "go without dependencies": {"go.mod": "module shop\n", "main.go": MAIN_GO},
    "go with vendor": {**GO, "vendor/modules.txt": ""},
    "python": PYTHON,
    "python without a package": {**PYTHON, "pyproject.toml": pyproject(build=False)},
    "python 3.10": {**PYTHON, "pyproject.toml": pyproject(more='requires-python = "==3.10.*"')},
    "python with uv": {**PYTHON, "uv.lock": "", "pyproject.toml": pyproject("gunicorn")},
    "python with a version from git": {
        **PYTHON,
        "pyproject.toml": pyproject().replace('"hatchling"]', '"hatchling", "hatch-vcs"]'),
    },
    "flask": FLASK,
    "flask with uv": {
        "pyproject.toml": pyproject("flask"),
        "uv.lock": "",
        "src/shop/__init__.py": "from flask import Flask\ndef create_app(config=None):\n    return Flask('shop')\n",
    },
    "flask, pyproject alone": {"pyproject.toml": pyproject("flask", build=False), "app.py": FLASK["app.py"]},
    "fastapi": {
        "requirements.txt": "fastapi[standard]\n-r requirements/base.txt\n",
        "requirements/base.txt": "",
        "main.py": FASTAPI,
    },
    "fastapi in src": {"requirements.txt": "fastapi\nuvicorn\n", "src/shop/api.py": FASTAPI},
    "an editable requirement": {**FLASK, "requirements.txt": "-e .\nflask\n"},
    "django": {
        "requirements.txt": "Django>=5\ngunicorn\n",
        "manage.py": "",
        "store/wsgi.py": "application = get_wsgi_application()\n",
    },
    "poetry": {
        "pyproject.toml": '[tool.poetry]\nname = "shop"\n[tool.poetry.dependencies]\npython = "^3.11"\nflask = "*"\n'
        '[build-system]\nrequires = ["poetry-core"]\nbuild-backend = "poetry.core.masonry.api"\n',
        "shop/app.py": FLASK["app.py"],
    },
}


@pytest.fixture(params=VARIANTS)
def variant(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return tree(tmp_path / "shop", VARIANTS[request.param])


def written(place: Path, files: dict[str, str]) -> Path:
    scaffold.write(tree(place, files))
    return place


def dockerfile(place: Path) -> DockerfileParser:
    return DockerfileParser(path=str(place / "Dockerfile"))


def steps(place: Path, instruction: str) -> list[str]:
    """Values of these instructions, in order."""
    return [step["value"] for step in dockerfile(place).structure if step["instruction"] == instruction]


def final(place: Path) -> dict[str, str]:
    """The instructions of the last stage, by name; the last of each."""
    found: dict[str, str] = {}
    for step in dockerfile(place).structure:
        found = {} if step["instruction"] == "FROM" else found
        found[step["instruction"]] = step["value"]
    return found


def cmd(place: Path) -> list[str]:
    return list(map(str, json.loads(final(place)["CMD"])))


def probe(place: Path) -> list[str]:
    return list(map(str, json.loads(final(place)["HEALTHCHECK"].partition(" CMD ")[2])))


# --- every kind ------------------------------------------------------------------------------------------------


def test_generated_dockerfile_passes_headway_lint(variant: Path) -> None:
    scaffold.write(variant)
    found = findings_for(config.load(variant), variant)
    assert found == ([], [])


def test_generated_dockerfile_passes_hadolint(variant: Path) -> None:
    scaffold.write(variant)
    found = subprocess.run(
        [BIN / "hadolint", "--no-color", "--format", "json", "Dockerfile"],
        cwd=variant,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert json.loads(found.stdout) == []
    assert found.returncode == 0


def test_generated_dockerfile_follows_the_rules(variant: Path) -> None:
    scaffold.write(variant)
    last = final(variant)
    stages = [image.split(" AS ") for image in steps(variant, "FROM")]
    assert len(stages) > 1
    for image, *_ in stages:
        tag = image.partition(":")[2]
        assert tag == "nonroot" or (tag[:1].isdigit() and "." in tag and tag != "latest")
    assert "--mount" not in (variant / "Dockerfile").read_text()
    assert last["USER"].split(":")[0] in {"1000", "10001", "65532"}
    assert last["EXPOSE"] == "8080"
    assert "PORT=8080" in " ".join(steps(variant, "ENV"))
    assert "http://127.0.0.1:${PORT}/health" in " ".join(probe(variant)).replace("{os.environ['PORT']}", "${PORT}")
    assert cmd(variant)
    assert "LABEL" not in last


def test_dependencies_are_installed_before_the_source_is_copied(variant: Path) -> None:
    """Except for dependencies that need the source to be installed."""
    scaffold.write(variant)
    project = scaffold.detect(variant)
    everything = [f"{step['instruction']} {step['value']}" for step in dockerfile(variant).structure]
    installing = (
        "install --no-cache-dir",
        "yarn install",
        "pnpm install",
        "npm install",
        "npm ci",
        "uv sync",
        "go mod",
    )
    installed = [
        at for at, step in enumerate(everything) if step.startswith("RUN") and any(i in step for i in installing)
    ]
    first = next((at for at in installed if "corepack enable" not in everything[at]), None)
    source = everything.index("COPY . .")
    if isinstance(project, GoProject) and project.vendored:
        assert first is None
    elif isinstance(project, NodeProject | PythonProject) and project.source_first:
        assert first is not None
        assert source < first
    else:
        assert first is not None
        assert first < source


def test_the_settings_load(variant: Path) -> None:
    scaffold.write(variant)
    loaded = config.load(variant)
    assert loaded.app == "shop"
    assert loaded.build.image == "registry.example.com/shop"
    assert loaded.run == scaffold.detect(variant).run
    assert loaded.health.path == "/health"
    assert {name: place.target for name, place in loaded.environments.items()} == {
        "staging": "docker/staging",
        "production": "docker/production",
    }
    assert loaded.environments["production"].approval is not None
    assert loaded.environments["staging"].approval is None
    assert all(place.smoke[0].version for place in loaded.environments.values())
    assert loaded.resources.memory


def test_secrets_and_temporary_files_stay_out_of_the_image(variant: Path) -> None:
    scaffold.write(variant)
    ignored = (variant / ".dockerignore").read_text().splitlines()
    assert {".git", "**/.env", "**/.env.*", "**/*.pem", "**/*.key", "Dockerfile", "headway.yaml", "tests"} <= {*ignored}
    kind = scaffold.detect(variant).kind
    assert {"node": "**/node_modules", "go": "**/*_test.go", "python": "**/__pycache__"}[kind] in ignored


def test_the_same_repository_gives_the_same_files(variant: Path) -> None:
    assert scaffold.files(scaffold.detect(variant)) == scaffold.files(scaffold.detect(variant))


# --- what is seen ----------------------------------------------------------------------------------------------


def detected(place: Path, files: dict[str, str]) -> Project:
    return scaffold.detect(tree(place, files))


@pytest.mark.parametrize(
    ("files", "run"),
    [
        (NODE, "node server.js"),
        ({**NODE, "package.json": package(scripts={}, main="a b.js"), "a b.js": ""}, "node 'a b.js'"),
        ({**NODE, "package.json": package(scripts={"build": "tsc"}, main="dist/a.js")}, "node dist/a.js"),
        ({**NODE, "package.json": package(scripts={}, main="gone.js")}, "node server.js"),
        (
            {**NODE, "package.json": package(scripts={"start": "npm run serve", "serve": "cross-env A=1 node a.js"})},
            "A=1 node a.js",
        ),
        ({**NODE, "package.json": package(scripts={"start": "npm run start"})}, "npm start"),
        ({**NODE, "package.json": package(scripts={"start": "node a.js | pino"})}, "npm start"),
        ({**NODE, "package.json": package(scripts={"start": "next start -p $PORT"})}, "next start -p $PORT"),
        (GO, "/usr/local/bin/shop"),
        (PYTHON, "python -m shop"),
        (FLASK, "gunicorn --bind 0.0.0.0:${PORT} --workers 2 --threads 4 app:app"),
        (
            VARIANTS["flask with uv"],
            "gunicorn --bind 0.0.0.0:${PORT} --workers 2 --threads 4 'shop:create_app()'",
        ),
        (VARIANTS["fastapi"], "uvicorn --host 0.0.0.0 --port ${PORT} main:api"),
        (VARIANTS["fastapi in src"], "uvicorn --host 0.0.0.0 --port ${PORT} shop.api:api"),
        (
            {"requirements.txt": "fastapi", "a.py": "def make_app(): ..."},
            "uvicorn --host 0.0.0.0 --port ${PORT} --factory a:make_app",
        ),
        (VARIANTS["django"], "gunicorn --bind 0.0.0.0:${PORT} --workers 2 --threads 4 store.wsgi:application"),
        (VARIANTS["poetry"], "gunicorn --bind 0.0.0.0:${PORT} --workers 2 --threads 4 shop.app:app"),
        ({"requirements.txt": "", "main.py": "def broken("}, "python main.py"),
        ({"pyproject.toml": pyproject(more='[project.scripts]\nshop-serve = "shop:main"')}, "shop-serve"),
    ],
)
def test_start_command_is_detected(tmp_path: Path, files: dict[str, str], run: str) -> None:
    assert detected(tmp_path / "shop", files).run == run


@pytest.mark.parametrize(
    ("files", "version"),
    [
        (NODE, "24.19"),
        ({**NODE, ".nvmrc": "v20.11.1\n"}, "20.11.1"),
        ({**NODE, ".nvmrc": "lts/jod"}, "22.23"),
        ({**NODE, ".nvmrc": "lts/*"}, "24.19"),
        ({**NODE, ".nvmrc": "20"}, "20.20"),
        ({**NODE, "package.json": package(engines={"node": ">=18"})}, "24.19"),
        ({**NODE, "package.json": package(engines={"node": "^20.9.0 || ^22"})}, "22.23"),
        ({**NODE, "package.json": package(engines={"node": "~22.12.1"})}, "22.12.1"),
        ({**NODE, "package.json": package(engines={"node": ">=20 <23"})}, "22.23"),
        ({**NODE, "package.json": package(engines={"node": "18 - 20"})}, "20.20"),
        (GO, "1.26"),
        ({**GO, "go.mod": "module a/v2\n\ngo 1.18\n"}, "1.21"),
        ({**GO, "go.mod": "module a\n\ngo 1.24\n\ntoolchain go1.25.3\n"}, "1.25"),
        ({**GO, "go.mod": "module a\n"}, "1.27"),
        (PYTHON, "3.13"),
        ({**PYTHON, "pyproject.toml": pyproject(more='requires-python = ">=3.11,<3.13"')}, "3.12"),
        ({**PYTHON, "pyproject.toml": pyproject(more='requires-python = "==3.12.4"')}, "3.12.4"),
        ({**PYTHON, ".python-version": "3.11.2\n"}, "3.11"),
        (VARIANTS["poetry"], "3.13"),
    ],
)
def test_language_version_is_detected(tmp_path: Path, files: dict[str, str], version: str) -> None:
    assert detected(tmp_path / "shop", files).version == version


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({**NODE, ".nvmrc": "9"}, ".nvmrc: no image of Node 9 is known"),
        ({**NODE, "package.json": package(engines={"node": "what?"})}, "package.json: engines.node: no image of Node"),
        ({**NODE, "package.json": "{,"}, "package.json:1: is not JSON"),
        ({**NODE, "package.json": "[]"}, "package.json: is not a JSON object"),
        ({**GO, "go.mod": "go 1.26"}, "go.mod: names no module"),
        ({**PYTHON, "pyproject.toml": "[project"}, "pyproject.toml: is not TOML"),
        ({**PYTHON, "pyproject.toml": pyproject(more='requires-python = "<3.9"')}, "requires-python: no image of"),
    ],
)
def test_contradictory_metadata_is_an_error(tmp_path: Path, files: dict[str, str], said: str) -> None:
    with pytest.raises(UsageError) as caught:
        detected(tmp_path / "shop", files)
    assert said in caught.value.what
    assert "\n" not in caught.value.what
    assert caught.value.hint


def test_text_that_is_not_utf_8(tmp_path: Path) -> None:
    (tree(tmp_path, NODE) / "package.json").write_bytes(b'{"name": "caf\xe9"}')
    with pytest.raises(UsageError, match=r"^package\.json: is not UTF-8"):
        scaffold.detect(tmp_path)


@pytest.mark.parametrize(
    ("files", "hint"),
    [
        ({"README.md": ""}, "go.mod, pyproject.toml, requirements.txt, package.json"),
        ({"package.json": "{}"}, "start"),
        ({"go.mod": "module shop\n", "shop.go": "package shop\n"}, "cmd/shop"),
        ({"pyproject.toml": "[tool.ruff]\n"}, "__main__.py"),
    ],
)
def test_missing_start_command_lists_what_is_searched(tmp_path: Path, files: dict[str, str], hint: str) -> None:
    with pytest.raises(NotFound) as caught:
        detected(tmp_path / "shop", files)
    assert hint in caught.value.hint


def test_missing_directory_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such directory"):
        scaffold.detect(tmp_path / "gone")


def test_with_several_languages_the_one_with_a_start_command_is_used(tmp_path: Path) -> None:
    both = tree(tmp_path / "both", {**GO, **NODE})
    assert scaffold.detect(both).kind == "go"
    scaffold.write(both)
    assert "# Note: taken for an app in Go, not Node" in (both / "headway.yaml").read_text()

    tools = scaffold.detect(tree(tmp_path / "tools", {**NODE, "pyproject.toml": "[tool.ruff]\n"}))
    assert tools.kind == "node"
    assert "not Python: pyproject.toml, requirements.txt: nothing says how" in tools.notes[0]


def test_go_program_named_like_the_module_is_built(tmp_path: Path) -> None:
    files = {**GO, "cmd/a/main.go": MAIN_GO, "cmd/lib/lib.go": "package lib\n"}
    found = detected(tmp_path / "x", files)
    assert any("of ./cmd/a, ./cmd/shop it is ./cmd/shop" in note for note in found.notes)
    place = tree(tmp_path / "x", files)
    scaffold.write(place)
    assert any(step.endswith("-o /out/shop ./cmd/shop") for step in steps(place, "RUN"))


def checks(place: Path) -> dict[str, tuple[str, tuple[str, ...]]]:
    scaffold.write(place, force=True)
    return {name: (check.run, check.needs) for name, check in config.load(place).checks.items()}


def test_the_checks_of_node(tmp_path: Path) -> None:
    names = ("lint", "typecheck", "test", "test:integration", "format")
    files = {**NODE, "package.json": package(scripts={"start": "node a.js", **dict.fromkeys(names, "x")})}
    assert checks(tree(tmp_path, files)) == {
        "install": ("npm ci", ()),
        "lint": ("npm run lint", ("install",)),
        "typecheck": ("npm run typecheck", ("install",)),
        "test": ("npm run test", ("install",)),
        "integration": ("npm run test:integration", ("test",)),
    }
    unwritten = {"start": "node a.js", "test": 'echo "Error: no test specified" && exit 1'}
    assert checks(tree(tmp_path, {"package.json": package(scripts=unwritten)})) == {}


def test_the_checks_of_go_and_python(tmp_path: Path) -> None:
    assert checks(tree(tmp_path / "go", GO)) == {"vet": ("go vet ./...", ()), "test": ("go test ./...", ())}
    assert checks(tree(tmp_path / "none", PYTHON)) == {}
    configured = {**FLASK, "ruff.toml": "", "mypy.ini": "", "requirements-dev.txt": "pytest>=8  # tests\n"}
    assert checks(tree(tmp_path / "pip", configured)) == {
        "lint": ("ruff check .", ()),
        "typecheck": ("mypy .", ()),
        "test": ("pytest", ()),
    }
    grouped = pyproject(more='[dependency-groups]\ndev = ["pytest"]\n[tool.mypy]\nfiles = ["shop"]\n')
    assert checks(tree(tmp_path / "uv", {**PYTHON, "pyproject.toml": grouped, "uv.lock": ""})) == {
        "typecheck": ("uv run --frozen mypy", ()),
        "test": ("uv run --frozen pytest", ()),
    }


@pytest.mark.parametrize(
    ("remote", "image"),
    [
        ("git@github.com:Acme/Shop.git", "ghcr.io/acme/shop"),
        ("https://ada:hunter22@github.com/acme/shop", "ghcr.io/acme/shop"),
        ("ssh://git@gitlab.com:22/acme/web/shop.git", "registry.gitlab.com/acme/web/shop"),
        ("https://github.com/acme/sh op", "registry.example.com/shop"),
        ("https://github.com/acme/-shop", "registry.example.com/shop"),
        ("/srv/git/shop.git", "registry.example.com/shop"),
        ("https://[", "registry.example.com/shop"),
    ],
)
def test_image_repository_follows_the_git_repository(tmp_path: Path, remote: str, image: str) -> None:
    repository = Repository(tmp_path / "shop")
    tree(repository.path, NODE)
    repository.git("config", "remote.origin.url", remote)
    scaffold.write(repository.path)
    assert config.load(repository.path).build.image == image
    assert ("to be replaced" in (repository.path / "headway.yaml").read_text()) == image.startswith("registry.example")


def test_notes_list_manual_steps(tmp_path: Path) -> None:
    scripts = {"start": "tsx a.ts", "prestart": "migrate"}
    files = {"package.json": package(scripts=scripts, devDependencies={"tsx": "4"}), "a.ts": ""}
    notes = "\n".join(detected(tmp_path / "a", files).notes)
    for said in ("no lock file", "tsx starts the app but is a devDependency", "prestart is not run", "/health"):
        assert said in notes
    assert "nothing in the source handles SIGTERM" in "".join(
        detected(tmp_path / "b", {**NODE, "server.js": "// /health"}).notes
    )
    assert detected(tmp_path / "c", NODE).notes == ()
    assert "gunicorn==" in "".join(detected(tmp_path / "d", FLASK).notes)


def test_a_server_that_is_not_named_is_installed(tmp_path: Path) -> None:
    scaffold.write(tree(tmp_path, FLASK))
    assert any("pip install --no-cache-dir gunicorn==" in step for step in steps(tmp_path, "RUN"))
    scaffold.write(tree(tmp_path, {"requirements.txt": "flask\ngunicorn\n"}), force=True)
    assert not any("gunicorn" in step for step in steps(tmp_path, "RUN"))


def test_variant_sets_its_environment(tmp_path: Path) -> None:
    def told(variant: str) -> str:
        scaffold.write(tree(tmp_path / variant, VARIANTS[variant]))
        return " ".join(steps(tmp_path / variant, "ENV"))

    assert "PYTHONPATH=/app/src" in told("fastapi in src")
    assert "PYTHONPATH" not in told("flask with uv")
    assert "SETUPTOOLS_SCM_PRETEND_VERSION" in told("python with a version from git")
    assert "YARN_NODE_LINKER=node-modules" in told("node with new yarn")
    assert "YARN_NODE_LINKER" not in told("node with yarn")


@pytest.mark.parametrize(
    ("script", "first"), [("husky || true", "package.json package-lock.json ./"), ("prisma generate", ". .")]
)
def test_source_is_copied_early_only_for_install_scripts_that_need_it(tmp_path: Path, script: str, first: str) -> None:
    scripts = {"start": "node server.js", "prepare": script}
    place = written(tmp_path, {**NODE, "package.json": package(scripts=scripts)})
    assert steps(place, "COPY")[0] == first


def test_python_without_a_sigterm_handler_is_stopped_by_sigint(tmp_path: Path) -> None:
    scaffold.write(tree(tmp_path, PYTHON))
    assert final(tmp_path)["STOPSIGNAL"] == "SIGINT"
    scaffold.write(tree(tmp_path, {"shop/stop.py": "signal.signal(signal.SIGTERM, stop)"}), force=True)
    assert "STOPSIGNAL" not in final(tmp_path)


# --- odd names and commands ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("Größe & Co", "groe-co"),
        ("my_shop.web", "my-shop-web"),
        ("42", "app"),
        ("店", "app"),
        ("a" * 80, "a" * 63),
        ("9lives-", "lives"),
    ],
)
def test_a_name_becomes_a_label(text: str, name: str) -> None:
    assert label(text) == name


@pytest.mark.parametrize(
    "name", ["My Shop: \"the\" 'best' #1", "@acme/a b", "true", "null", "${x}", "{{ a }}", "é\n# b"]
)
def test_odd_names(tmp_path: Path, name: str) -> None:
    scaffold.write(tree(tmp_path, {**NODE, "package.json": package(name=name)}))
    assert config.load(tmp_path).app == label(name.rpartition("/")[2])


def printed(place: Path, start: str) -> list[str]:
    """Arguments that `node` gets when the image's CMD runs this start script."""
    scaffold.write(tree(place, {**NODE, "package.json": package(scripts={"start": start})}), force=True)
    node = place / "bin" / "node"
    node.parent.mkdir(exist_ok=True)
    node.write_text(f"#!{sys.executable}\nimport json, os, sys\nprint(json.dumps([os.getpid(), *sys.argv[1:]]))\n")
    node.chmod(0o755)
    environment = {"PATH": f"{node.parent}:{os.environ['PATH']}", "PORT": "8123"}
    with subprocess.Popen(cmd(place), cwd=place, env=environment, stdout=subprocess.PIPE, text=True) as process:
        output, _ = process.communicate(timeout=60)
    told = json.loads(output.splitlines()[-1])
    assert told[0] == process.pid
    return list(told[1:])


@pytest.mark.parametrize(
    ("start", "told"),
    [
        ("node server.js", ["server.js"]),
        ("node 'my server.js' --a=\"b: c\"", ["my server.js", "--a=b: c"]),
        ("NODE_ENV=production A='b c' node a.js", ["a.js"]),
        ("node a.js --port $PORT", ["a.js", "--port", "8123"]),
        ("node a.js \"--port=${PORT}\" '${PORT}'", ["a.js", "--port=8123", "${PORT}"]),
        ("echo first && A=1 node a.js", ["a.js"]),
        ("node -e 'a && b'", ["-e", "a && b"]),
        ("node a.js {{b}} %d # no", ["a.js", "{{b}}", "%d"]),
        ("node a.js \\\\ é", ["a.js", "\\", "é"]),
    ],
)
def test_app_is_process_1_for_any_command(tmp_path: Path, start: str, told: list[str]) -> None:
    assert printed(tmp_path, start) == told
    assert config.load(tmp_path).run == start


def test_a_note_stays_a_comment(tmp_path: Path) -> None:
    scripts = {"start": "node a.js", "prestart": "true\napp: other\u2028app: other"}
    assert config.load(written(tmp_path, {**NODE, "package.json": package(scripts=scripts)})).app == "shop"


@pytest.mark.parametrize("text", ["a: b", "a:", "a #b", "true", "No", "1", "- a", "a b:c", "!a", "*a", "'", '"', " a "])
def test_yaml_special_text_is_quoted(text: str) -> None:
    assert Document(f"run: {scaffold._yaml(text)} # a comment\n").value == {"run": text}


@given(st.text(st.characters(codec="utf-8"), min_size=1))
def test_any_text_is_read_back_from_yaml(text: str) -> None:
    document = Document(f"run: {scaffold._yaml(text)} # a comment\n")
    assert document.value == {"run": text}
    assert not document.faults


@given(st.lists(st.text(st.characters(codec="utf-8")), min_size=1))
def test_any_arguments_are_read_back_from_cmd(words: list[str]) -> None:
    line = scaffold._argv(words)
    assert len(line.splitlines()) == 1
    assert json.loads(line) == words


@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1), min_size=1))
def test_quoted_command_is_split_into_words(words: list[str]) -> None:
    run = shlex.join(["printf", "%s\\0", *words])
    said = subprocess.run(entry(run), capture_output=True, check=True, timeout=60).stdout
    assert said.decode() == "".join(f"{word}\0" for word in words)


@pytest.mark.parametrize("text", ["^1.2.3", "~1.2", "1.x", ">=1.2 <2", "1.2 - 1.4", "=1.2.3", "> 1.1", "*", ""])
def test_npm_ranges_that_allow_a_version(text: str) -> None:
    assert pick({"1": "1.2.3"}, "1", node_range(text), text) == "1.2"


@pytest.mark.parametrize("text", ["^2", "~1.3", "<1.2.3", ">1.2", "<=1.1", "1.3.x", "a", "1.2.3.4.5", "^0.2.3"])
def test_npm_ranges_that_exclude_a_version(text: str) -> None:
    assert pick({"1": "1.2.3"}, "1", node_range(text), "") is None


def test_unreadable_python_version_range() -> None:
    assert python_range("three") == []


# --- writing ---------------------------------------------------------------------------------------------------

WRITTEN = ["Dockerfile", ".dockerignore", "headway.yaml"]


def content(place: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in place.iterdir() if path.is_file()}


def test_written_files_are_listed(tmp_path: Path) -> None:
    tree(tmp_path, NODE)
    assert scaffold.write(tmp_path) == WRITTEN
    assert content(tmp_path) == {**NODE, **scaffold.files(scaffold.detect(tmp_path))}
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*NODE, *WRITTEN])


def test_nothing_is_overwritten_unless_forced(tmp_path: Path) -> None:
    tree(tmp_path, {**NODE, "Dockerfile": "FROM mine", "headway.yaml": "app: mine"})
    before = content(tmp_path)
    with pytest.raises(
        UsageError, match=r"^Dockerfile, headway\.yaml: are there already, so nothing was written"
    ) as no:
        scaffold.write(tmp_path)
    assert "--force" in no.value.hint
    assert content(tmp_path) == before
    assert scaffold.write(tmp_path, force=True) == WRITTEN
    assert config.load(tmp_path).app == "shop"


@pytest.mark.parametrize("force", [False, True])
def test_path_that_is_not_a_file_is_an_error(tmp_path: Path, force: bool) -> None:
    tree(tmp_path / "a", NODE)
    (tmp_path / "a" / ".dockerignore").symlink_to(tmp_path / "precious")
    with pytest.raises(UsageError, match=r"^\.dockerignore: is a symbolic link, so nothing was written"):
        scaffold.write(tmp_path / "a", force=force)
    assert not (tmp_path / "precious").exists()
    (tmp_path / "precious").write_text("mine")
    with pytest.raises(UsageError, match=r"^\.dockerignore: is a symbolic link, so nothing was written"):
        scaffold.write(tmp_path / "a", force=force)
    assert (tmp_path / "a" / ".dockerignore").is_symlink()
    (tree(tmp_path / "b", NODE) / "headway.yaml").mkdir()
    with pytest.raises(UsageError, match=r"^headway\.yaml: is not a file, so nothing was written"):
        scaffold.write(tmp_path / "b", force=force)
    assert not (tmp_path / "b" / "Dockerfile").exists()


def test_full_disk_leaves_existing_files_unchanged(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    tree(tmp_path, {**NODE, "Dockerfile": "FROM mine"})
    write = Path.write_text

    def full(path: Path, text: str, **options: Any) -> int:
        if path.name == "headway.yaml":
            write(path, text[:10], **options)
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(path, text, **options)

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(UsageError, match="cannot be written: No space left on device"):
        scaffold.write(tmp_path, force=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*NODE, "Dockerfile"])
    assert (tmp_path / "Dockerfile").read_text() == "FROM mine"


# --- what is written, run --------------------------------------------------------------------------------------


def environment() -> dict[str, str]:
    """With a free port, and a proxy that the health check must not ask."""
    proxy = dict.fromkeys(("http_proxy", "HTTP_PROXY"), "http://127.0.0.1:9")
    return {"PATH": f"{BIN}:{os.environ['PATH']}", "PORT": str(free_port()), **proxy}


@contextmanager
def running(command: list[str], place: Path, env: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    # Where the tests are a shell's background job SIGINT is ignored, and so would it be by the app.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        process = subprocess.Popen(command, cwd=place, env=env)
    finally:
        signal.signal(signal.SIGINT, before)
    try:
        yield process
    finally:
        process.kill()
        process.wait(timeout=60)


def healthy(place: Path, env: dict[str, str]) -> bool:
    """Result of the image's HEALTHCHECK."""
    return not subprocess.run(probe(place), env=env, capture_output=True, timeout=60, check=False).returncode


def wait_until_healthy(place: Path, env: dict[str, str]) -> None:
    deadline = time.monotonic() + 60
    while not healthy(place, env):
        assert time.monotonic() < deadline
        time.sleep(0.1)


RUNS = {
    "node": NODE,
    "node with a shell": {
        **NODE,
        "package.json": package(scripts={"start": "true && A=1 node ./server.js --x=$PORT"}),
    },
    "python": PYTHON,
    "fastapi": {"requirements.txt": "fastapi\nuvicorn\n", "shop/main.py": FASTAPI},
}


@pytest.fixture(params=RUNS)
def runnable(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    if request.param.startswith("node") and not shutil.which("node"):
        pytest.skip("node is not installed")
    place = tree(tmp_path / "shop", RUNS[request.param])
    scaffold.write(place)
    return place


def test_image_serves_passes_its_health_check_and_stops_on_sigterm(runnable: Path) -> None:
    env = environment()
    assert not healthy(runnable, env)
    with running(cmd(runnable), runnable, env) as process:
        wait_until_healthy(runnable, env)
        process.send_signal(signal.Signals[final(runnable).get("STOPSIGNAL", "SIGTERM")])
        process.wait(timeout=60)
        assert not healthy(runnable, env)


@pytest.mark.parametrize("status", [200, 204, 404, 500])
def test_only_200_is_healthy(runnable: Path, status: int) -> None:
    (runnable / "answer.py").write_text(MAIN_PY.replace("200 if", f"{status} if"))
    env = environment()
    with running([sys.executable, "answer.py"], runnable, env):
        deadline = time.monotonic() + 60
        while not listens(int(env["PORT"])):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert healthy(runnable, env) is (status == 200)


def listens(port: int) -> bool:
    with socket.socket() as asking:
        return not asking.connect_ex(("127.0.0.1", port))


def test_the_go_program_builds(tmp_path: Path) -> None:
    if not shutil.which("go"):
        pytest.skip("go is not installed")
    # Debian's Go is older than the one an app has, and refuses what it does not know.
    place = tree(tmp_path / "shop", {**GO, "go.mod": "module github.com/acme/shop\n\ngo 1.19\n"})
    scaffold.write(place)
    (build,) = (step for step in steps(place, "RUN") if "go build" in step)
    made = build.replace("/out/shop", str(tmp_path / "made"))
    subprocess.run(["sh", "-c", made], cwd=place, check=True, timeout=300, env={**os.environ, "GOTOOLCHAIN": "local"})
    assert subprocess.run([tmp_path / "made"], check=True, timeout=60).returncode == 0
