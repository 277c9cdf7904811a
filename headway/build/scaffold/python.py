"""A Python app: pyproject.toml or requirements.txt, and its server."""

from __future__ import annotations

import ast
import os
import re
import tomllib
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from headway.build.scaffold.project import Check, PythonProject, label, mentions, read, walk
from headway.build.scaffold.versions import pick, python_range
from headway.domain.errors import NotFound, UsageError

__all__ = ["detect"]

# Newest release of each line, as of November 2026.
_PYTHONS = {"3.14": "3.14.7", "3.13": "3.13.15", "3.12": "3.12.14", "3.11": "3.11.16", "3.10": "3.10.21"}
_USUAL = "3.13"
_ASGI = {"fastapi": "FastAPI", "starlette": "Starlette", "litestar": "Litestar", "quart": "Quart"}
_WSGI = {"flask": "Flask"}
_GUNICORN = "gunicorn --bind 0.0.0.0:${PORT} --workers 2 --threads 4"
_UVICORN = "uvicorn --host 0.0.0.0 --port ${PORT}"
_SERVERS = {"gunicorn": "gunicorn==27.0.1", "uvicorn": "uvicorn==0.54.0"}
_TOOLS = ("requirements-dev.txt", "dev-requirements.txt", "requirements/dev.txt")
_MAKERS = ("create_app", "make_app", "build_app", "get_app")
_CHECKS = {
    "ruff": Check(name="lint", run="ruff check ."),
    "mypy": Check(name="typecheck", run="mypy ."),
    "pytest": Check(name="test", run="pytest"),
}
_CONFIGURED = {
    "ruff": ("ruff.toml", ".ruff.toml"),
    "mypy": ("mypy.ini", ".mypy.ini"),
    "pytest": ("pytest.ini", ".pytest.ini"),
}


def detect(tree: Path) -> PythonProject:
    """Detect a Python app. Raises NotFound without a start command, UsageError for an invalid pyproject.toml."""
    pyproject = _pyproject(tree)
    project = _table(pyproject, "project")
    listed = _requirement_files(tree)
    lines = [line for file in listed for line in _lines(file)]
    needed = _names([*_declared(pyproject), *lines])
    tools = needed | _names([*_for_development(pyproject), *(line for file in _TOOLS for line in _lines(tree / file))])
    installer = _installer(tree, pyproject, listed)
    installs = installer in ("uv", "pyproject") and "build-system" in pyproject
    version = _version(tree, pyproject)
    run, notes = _start(tree, pyproject, needed, installs=installs)
    server = _SERVERS.get(run.partition(" ")[0])
    missing = server if run.partition(" ")[0] not in needed else None
    return PythonProject(
        name=label(str(project.get("name") or _table(pyproject, "tool", "poetry").get("name") or tree.resolve().name)),
        version=version,
        run=run,
        checks=tuple(_checks(tree, pyproject, tools, "uv run --frozen " if installer == "uv" else "")),
        ignored=("build", "dist"),
        notes=(*notes, *_notes(tree, installer, missing, needed)),
        installer=installer,
        copied=tuple(_copied(tree, installer, listed)),
        # Python 3.10 has no tomllib, so its image cannot read the dependencies from pyproject.toml alone.
        source_first=_source_first(pyproject, installer, lines) or (installer == "pyproject" and version == "3.10"),
        installs=installs,
        server=missing,
        src=(tree / "src").is_dir() and not installs,
        scm=any("scm" in text or "vcs" in text for text in _texts(_table(pyproject, "build-system").get("requires"))),
        interrupted=run.startswith("python ") and not mentions(tree, "SIGTERM", ".py"),
    )


# --- dependencies ----------------------------------------------------------------------------------------------


def _pyproject(tree: Path) -> dict[str, Any]:
    file = tree / "pyproject.toml"
    if not file.is_file():
        return {}
    try:
        return tomllib.loads(read(file))
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"pyproject.toml: is not TOML: {error}", "see https://toml.io") from error


def _table(table: dict[str, Any], *keys: str) -> dict[str, Any]:
    for key in keys:
        found = table.get(key)
        table = found if isinstance(found, dict) else {}
    return table


def _texts(value: object) -> list[str]:
    return [text for text in value if isinstance(text, str)] if isinstance(value, list) else []


def _declared(pyproject: dict[str, Any]) -> list[str]:
    project, poetry = _table(pyproject, "project"), _table(pyproject, "tool", "poetry", "dependencies")
    return [*_texts(project.get("dependencies")), *poetry]


def _for_development(pyproject: dict[str, Any]) -> list[str]:
    """Requirements of dependency groups and extras."""
    extras = _table(pyproject, "project", "optional-dependencies")
    groups = _table(pyproject, "dependency-groups")
    poetry = _table(pyproject, "tool", "poetry", "group")
    return [
        *(text for group in (*extras.values(), *groups.values()) for text in _texts(group)),
        *(name for group in poetry for name in _table(poetry, group, "dependencies")),
    ]


def _requirement_files(tree: Path) -> list[Path]:
    """requirements.txt and the files that it includes."""
    found, waiting = list[Path](), [tree / "requirements.txt"]
    while waiting:
        file = waiting.pop(0)
        if file in found or not file.is_file():
            continue
        found.append(file)
        named = re.findall(r"^\s*(?:-r|--requirement|-c|--constraint)[ =]*([\w./-]+)", read(file), re.MULTILINE)
        meant = (Path(os.path.normpath(file.parent / name)) for name in named)
        waiting += [each for each in meant if each.is_relative_to(tree)]
    return found


def _lines(file: Path) -> list[str]:
    """Lines of a file; none if it does not exist."""
    if not file.is_file():
        return []
    joined = read(file).replace("\\\n", " ")
    return [re.sub(r"\s+(#|--hash|--config).*", "", line).strip() for line in joined.splitlines()]


def _names(requirements: list[str]) -> set[str]:
    """Canonical package names, including servers that a framework installs as an extra."""
    names: set[str] = set()
    for text in requirements:
        try:
            requirement = Requirement(text)
        except InvalidRequirement:
            continue
        names.add(canonicalize_name(requirement.name))
        if requirement.name == "fastapi" and requirement.extras & {"standard", "all"}:
            names.add("uvicorn")
    return names


# --- version and installer -------------------------------------------------------------------------------------


def _version(tree: Path, pyproject: dict[str, Any]) -> str:
    file = tree / ".python-version"
    if file.is_file() and (asked := re.match(r"\s*(3\.\d+)(?:\.\d+)?\s*$", read(file), re.MULTILINE)):
        return _tag(".python-version", f"=={asked[1]}.*")
    project = _table(pyproject, "project").get("requires-python")
    poetry = _table(pyproject, "tool", "poetry", "dependencies").get("python")
    return _tag("pyproject.toml: requires-python", str(project or poetry or ">=3"))


def _tag(where: str, written: str) -> str:
    if tag := pick(_PYTHONS, _USUAL, python_range(written), written):
        return tag
    raise UsageError(f"{where}: no image of Python {written} is known", f"allow one of {', '.join(_PYTHONS)}")


def _installer(
    tree: Path, pyproject: dict[str, Any], listed: Sequence[Path]
) -> Literal["uv", "requirements", "pyproject", "none"]:
    if (tree / "uv.lock").is_file() and pyproject:
        return "uv"
    if listed:
        return "requirements"
    return "pyproject" if {"project", "build-system"} & pyproject.keys() else "none"


def _copied(tree: Path, installer: str, listed: Sequence[Path]) -> Iterator[str]:
    match installer:
        case "uv":
            yield from ("pyproject.toml", "uv.lock")
        case "requirements":
            yield from (file.relative_to(tree).as_posix() for file in listed)
        case "pyproject":
            yield "pyproject.toml"


def _source_first(pyproject: dict[str, Any], installer: str, lines: list[str]) -> bool:
    """Whether installing dependencies needs the source: they are local paths, or metadata that the build computes."""
    if installer == "requirements":
        return any(re.match(r"(-e|--editable)\b|\.{1,2}(/|$)|file:", line) for line in lines)
    project = _table(pyproject, "project")
    return installer == "pyproject" and (not project or "dependencies" in _texts(project.get("dynamic")))


# --- start command ---------------------------------------------------------------------------------------------


def _start(tree: Path, pyproject: dict[str, Any], needed: set[str], *, installs: bool) -> tuple[str, list[str]]:
    """The start command, and notes on what was guessed."""
    if "django" in needed and (file := next((file for file in walk(tree, ".py") if file.name == "wsgi.py"), None)):
        return f"{_GUNICORN} {_module(tree, file)}:application", []
    for server, frameworks in ((_UVICORN, _ASGI), (_GUNICORN, _WSGI)):
        wanted = {name for package, name in frameworks.items() if package in needed}
        if wanted and (found := _application(tree, wanted)):
            target, factory = found
            if not factory:
                return f"{server} {target}", []
            return (f"{server} --factory {target}" if server is _UVICORN else f"{server} '{target}()'"), []
    return _program(tree, pyproject, installs=installs)


def _program(tree: Path, pyproject: dict[str, Any], *, installs: bool) -> tuple[str, list[str]]:
    name = str(_table(pyproject, "project").get("name") or tree.resolve().name).replace("-", "_").lower()
    packages = [_module(tree, file.parent) for file in walk(tree, ".py") if file.name == "__main__.py"]
    packages = [package for package in packages if package]
    if packages:
        chosen = name if name in packages else packages[0]
        notes = [f"of {', '.join(packages)} it is {chosen} that is started"] if len(packages) > 1 else []
        return f"python -m {chosen}", notes
    scripts = list(_table(pyproject, "project", "scripts"))
    if scripts and installs and re.fullmatch(r"[\w.-]+", scripts[0], re.ASCII):
        return scripts[0], []
    for file in ("main.py", "app.py", "server.py"):
        if (tree / file).is_file():
            return f"python {file}", []
    raise NotFound(
        "pyproject.toml, requirements.txt: nothing says how the app is started",
        f"Headway looks for an app of {', '.join([*_ASGI, *_WSGI, 'django'])}, a package with __main__.py, or main.py",
    )


def _application(tree: Path, wanted: set[str]) -> tuple[str, bool] | None:
    """MODULE:NAME of the app object, and False; or of a factory function without arguments, and True."""
    parsed = [(file, body) for file in walk(tree, ".py") if (body := _body(file))]
    for file, body in parsed:
        for name in (name for statement in body for name in _assigned(statement, wanted)):
            return f"{_module(tree, file)}:{name}", False
    for file, body in parsed:
        for made in body:
            if isinstance(made, ast.FunctionDef) and made.name in _MAKERS and not _required(made):
                return f"{_module(tree, file)}:{made.name}", True
    return None


def _body(file: Path) -> list[ast.stmt]:
    """Top-level statements of a file; none if it cannot be parsed."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.parse(file.read_bytes()).body
    except (SyntaxError, ValueError, RecursionError):
        return []


def _assigned(statement: ast.stmt, wanted: set[str]) -> Iterator[str]:
    if not isinstance(statement, ast.Assign | ast.AnnAssign) or not isinstance(statement.value, ast.Call):
        return
    called = statement.value.func
    if (called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", None)) in wanted:
        targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
        yield from (target.id for target in targets if isinstance(target, ast.Name))


def _required(made: ast.FunctionDef) -> bool:
    arguments = made.args
    return len(arguments.posonlyargs) + len(arguments.args) > len(arguments.defaults) or None in arguments.kw_defaults


def _module(tree: Path, path: Path) -> str:
    parts = path.relative_to(tree).with_suffix("").parts
    return ".".join(part for part in parts[parts[:1] == ("src",) :] if part != "__init__")


# --- checks and notes ------------------------------------------------------------------------------------------


def _checks(tree: Path, pyproject: dict[str, Any], needed: set[str], runner: str) -> Iterator[Check]:
    for tool, check in _CHECKS.items():
        files = any((tree / name).is_file() for name in _CONFIGURED[tool])
        section = _table(pyproject, "tool", tool)
        if files or section or tool in needed:
            configured = tool == "mypy" and ("files" in section or "packages" in section)
            yield check.model_copy(update={"run": runner + ("mypy" if configured else check.run)})


def _notes(tree: Path, installer: str, server: str | None, needed: set[str]) -> Iterator[str]:
    if server:
        yield f"{server} is not among the dependencies: the Dockerfile installs it, better to add it there"
    if installer == "pyproject":
        yield "there is no lock file, so every build may get other dependencies: make one with uv lock"
    if "django" in needed:
        yield "ALLOWED_HOSTS has to allow 127.0.0.1, by which the app is asked for its health"
    if not mentions(tree, "/health", ".py") and not mentions(tree, "health/", ".py"):
        yield "nothing in the source mentions /health, which has to answer 200 when the app can serve"
