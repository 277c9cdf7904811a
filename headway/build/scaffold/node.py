"""A Node app: package.json and its lock file."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from headway.build.scaffold.project import Check, NodeProject, label, mentions, read
from headway.build.scaffold.versions import node_range, pick
from headway.domain.errors import NotFound, UsageError

__all__ = ["detect"]

# Newest release of each line, as of November 2026. Even-numbered lines get long-term support.
_NODES = {"26": "26.13.0", "24": "24.19.0", "22": "22.23.2", "20": "20.20.2", "18": "18.20.8"}
_LTS = "24"
_NAMES = {"hydrogen": "18", "iron": "20", "jod": "22", "krypton": "24", "lithium": "26"}
_SUFFIXES = (".js", ".mjs", ".cjs", ".ts", ".mts", ".cts", ".jsx", ".tsx")
# Lifecycle scripts that npm runs when it installs the app's dependencies.
_AT_INSTALL = ("preinstall", "install", "postinstall", "prepare")
_CHECKS = {"lint": "lint", "typecheck": "typecheck", "test": "test", "test:integration": "integration"}


class _Manager(NamedTuple):
    """Commands of a package manager: install from the lock file, and remove development dependencies."""

    install: str
    prune: str


_NPM = _Manager("npm ci", "npm prune --omit=dev")
_NPM_UNLOCKED = _Manager("npm install", "npm prune --omit=dev")
_PNPM = _Manager("pnpm install --frozen-lockfile", "pnpm prune --prod --ignore-scripts")
_YARN = _Manager("yarn install --frozen-lockfile", "yarn install --frozen-lockfile --production --ignore-scripts")
_BERRY = _Manager("yarn install --immutable", "yarn workspaces focus --all --production")


def detect(tree: Path) -> NodeProject:
    """Detect a Node app. Raises NotFound without a start command, UsageError for an invalid package.json."""
    package = _package(tree / "package.json")
    scripts = _scripts(package)
    manager, lock = _manager(tree, package)
    run = _start(tree, package, scripts)
    return NodeProject(
        name=label(str(package.get("name") or tree.resolve().name).rpartition("/")[2]),
        version=_version(tree, package),
        run=run,
        checks=tuple(_checks(scripts, manager)),
        ignored=("dist", "build", ".next", "*.tsbuildinfo") if "build" in scripts else (),
        notes=tuple(_notes(tree, package, scripts, run, lock)),
        copied=tuple(_copied(tree, lock)),
        install=manager.install,
        prune=manager.prune,
        builds="build" in scripts,
        source_first=any(name in scripts and not scripts[name].startswith("husky") for name in _AT_INSTALL),
        corepack=manager not in (_NPM, _NPM_UNLOCKED),
        berry=manager is _BERRY,
    )


def _package(file: Path) -> dict[str, Any]:
    try:
        package = json.loads(read(file))
    except (json.JSONDecodeError, RecursionError) as error:
        where = f":{error.lineno}" if isinstance(error, json.JSONDecodeError) else ""
        raise UsageError(f"package.json{where}: is not JSON: {error}", "npm says more: npm pkg get name") from error
    if not isinstance(package, dict):
        raise UsageError("package.json: is not a JSON object", "make one: npm init")
    return package


def _table(package: dict[str, Any], key: str) -> dict[str, str]:
    found = package.get(key)
    return {name: text for name, text in found.items() if isinstance(text, str)} if isinstance(found, dict) else {}


def _scripts(package: dict[str, Any]) -> dict[str, str]:
    return {name: text.strip() for name, text in _table(package, "scripts").items() if text.strip()}


# --- version and package manager -------------------------------------------------------------------------------


def _version(tree: Path, package: dict[str, Any]) -> str:
    for name in (".nvmrc", ".node-version"):
        if (tree / name).is_file() and (written := read(tree / name).strip()):
            return _tag(name, written)
    return _tag("package.json: engines.node", _table(package, "engines").get("node", "*").strip() or "*")


def _tag(where: str, written: str) -> str:
    alias = written.lower().removeprefix("lts/")
    meant = "*" if alias in ("*", "node", "stable", "current", "latest") else _NAMES.get(alias, alias)
    if tag := pick(_NODES, _LTS, node_range(meant), meant):
        return tag
    raise UsageError(f"{where}: no image of Node {written} is known", f"write one of {', '.join(_NODES)} there")


def _manager(tree: Path, package: dict[str, Any]) -> tuple[_Manager, str | None]:
    """Package manager and name of its lock file."""
    if (tree / "pnpm-lock.yaml").is_file():
        return _PNPM, "pnpm-lock.yaml"
    if (tree / "yarn.lock").is_file():
        named = re.match(r"yarn@(\d+)", str(package.get("packageManager", "")))
        berry = int(named[1]) > 1 if named else (tree / ".yarnrc.yml").is_file()
        return (_BERRY if berry else _YARN), "yarn.lock"
    for lock in ("package-lock.json", "npm-shrinkwrap.json"):
        if (tree / lock).is_file():
            return _NPM, lock
    return _NPM_UNLOCKED, None


def _copied(tree: Path, lock: str | None) -> Iterator[str]:
    yield "package.json"
    if lock:
        yield lock
    yield from (name for name in (".npmrc", ".yarnrc", ".yarnrc.yml", "pnpm-workspace.yaml") if (tree / name).is_file())
    yield from (name for name in (".yarn", "patches") if (tree / name).is_dir())


# --- start command ---------------------------------------------------------------------------------------------


def _start(tree: Path, package: dict[str, Any], scripts: dict[str, str]) -> str:
    if "start" in scripts:
        return _direct(scripts["start"], scripts) or "npm start"
    main = package.get("main")
    for file in (str(main) if main else "", "server.js", "index.js"):
        # The entry point may be an output of the build script.
        if file and ((tree / file).is_file() or (file == main and "build" in scripts)):
            return f"node {shlex.quote(file)}"
    raise NotFound(
        "package.json: has neither a start script nor a main file, so nothing says how the app is started",
        'add one: "scripts": {"start": "node server.js"}',
    )


def _direct(script: str, scripts: dict[str, str], depth: int = 0) -> str | None:
    """The command of a script, without npm, which does not forward SIGTERM; None for anything but one command.

    `A && B` counts as one command, because the shell can run A and then `exec` B.
    """
    script = re.sub(r"(^|&&\s*)cross-env\s+", r"\1", script)
    lexer = shlex.shlex(script, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    try:
        words = list(lexer)
    except ValueError:
        return None
    if "\n" in script or "`" in script or any(word and set(word) <= set("();<>|&") and word != "&&" for word in words):
        return None
    named = re.fullmatch(r"(?:npm run|pnpm(?: run)?|yarn(?: run)?) ([\w:.-]+)", script)
    if named and named[1] in scripts:
        return _direct(scripts[named[1]], scripts, depth + 1) if depth < 5 else None
    return script


# --- checks and notes ------------------------------------------------------------------------------------------


def _checks(scripts: dict[str, str], manager: _Manager) -> Iterator[Check]:
    found = {script: name for script, name in _CHECKS.items() if script in scripts}
    if "no test specified" in scripts.get("test", ""):  # the placeholder of `npm init`, which always fails
        del found["test"]
    if not found:
        return
    program = manager.install.partition(" ")[0]
    yield Check(name="install", run=manager.install)
    for script, name in found.items():
        after = "test" if script == "test:integration" and "test" in found else "install"
        yield Check(name=name, run=f"{program} run {script}", needs=(after,))


def _notes(tree: Path, package: dict[str, Any], scripts: dict[str, str], run: str, lock: str | None) -> Iterator[str]:
    program = run.split()[0]
    if lock is None:
        yield "there is no lock file, so every build may get other dependencies: commit package-lock.json"
    if lock in ("yarn.lock", "pnpm-lock.yaml") and "packageManager" not in package:
        yield "package.json has no packageManager: say which version of it the app is built with"
    if package.get("workspaces") or _has_packages(tree / "pnpm-workspace.yaml"):
        yield "there are workspaces: the Dockerfile copies only the root's package.json before it installs"
    if program in _table(package, "devDependencies"):
        yield f"{program} starts the app but is a devDependency, which the image does not have: make it a dependency"
    if program == "npm":
        yield "the start script is more than one command, so npm runs it and may not pass SIGTERM on"
    elif "prestart" in scripts:
        yield f"prestart is not run before the app starts: {scripts['prestart']}"
    if program == "node" and not mentions(tree, "SIGTERM", *_SUFFIXES):
        yield "nothing in the source handles SIGTERM, which as process 1 the app has to: process.on('SIGTERM', ...)"
    if not mentions(tree, "/health", *_SUFFIXES):
        yield "nothing in the source mentions /health, which has to answer 200 when the app can serve"


def _has_packages(workspace: Path) -> bool:
    """Whether a pnpm-workspace.yaml lists packages: pnpm also stores settings in it."""
    return workspace.is_file() and re.search("^packages:", read(workspace), re.MULTILINE) is not None
