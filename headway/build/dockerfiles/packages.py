"""What shell commands install and build, from the names and options of package managers."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from typing import NamedTuple

from headway.build.dockerfiles.shell import Command

__all__ = ["Installed", "builds", "downloads_modules", "family", "installed", "removed_paths", "tools"]

NODE = ("npm", "yarn", "pnpm", "bun")
SYSTEM = ("apk", "apt", "apt-get", "aptitude", "dnf", "microdnf", "yum", "zypper")
SITE_PACKAGES = "/usr/local/lib/python"

_NODE_INSTALLS = {"add", "ci", "clean-install", "i", "ic", "install", "install-clean"}
_PRODUCTION = ("--omit=dev", "--production", "--production=true", "--prod", "-P", "--only=production", "--only=prod")
_COMPILERS = "build-base|build-essential|cargo|clang|cmake|g\\+\\+|gcc|go|golang|golang-go|llvm|make|rust|rustc"
_TOOLS = f"{_COMPILERS}|git|linux-headers|python3-dev"
_DEV = re.compile(r"(^|[-_./])(dev|develop|development|lint|test|testing|tests)([-_./]|$)", re.IGNORECASE)
_DEV_PACKAGES = re.compile("black|coverage|flake8|mypy|pylint|pytest|pytest-cov|ruff|tox")
_BUILD_PROGRAMS = re.compile(r"cmake|esbuild|g\+\+|gcc|make|rollup|tsc|tsup|webpack")
_BUILD_COMMANDS = {
    "bun": {"build"},
    "cargo": {"build", "install"},
    "dotnet": {"build", "publish"},
    "go": {"build", "install"},
    "gradle": {"assemble", "bootJar", "build"},
    "gradlew": {"assemble", "bootJar", "build"},
    "mvn": {"install", "package", "verify"},
    "mvnw": {"install", "package", "verify"},
    "next": {"build"},
    "ng": {"build"},
    "nuxt": {"build"},
    "pip": {"wheel"},
    "pnpm": {"build"},
    "poetry": {"build"},
    "uv": {"build"},
    "vite": {"build"},
    "yarn": {"build"},
}


class Installed(NamedTuple):
    """Dependencies of the app in a directory; `dev` describes the development dependencies among them, if any."""

    directory: str
    dev: str = ""
    fix: str = ""
    whole: bool = True  # replaces the content of the directory


def builds(command: Command) -> str:
    """Description of the build step that a command runs; empty when it runs none."""
    name, plain = command.name, command.plain
    if name in NODE and plain[:1] == ("run",) and len(plain) > 1 and plain[1].startswith("build"):
        return f"{name} run {plain[1]}"
    if _BUILD_PROGRAMS.fullmatch(name):
        return name
    if name == "build" or (name.startswith("python") and plain[:1] == ("setup.py",) and len(plain) > 1):
        return "python -m build" if name == "build" else "python setup.py"
    asked = plain if name in ("gradle", "gradlew", "mvn", "mvnw") else plain[:1]
    return next((f"{name} {word}" for word in asked if word in _BUILD_COMMANDS.get(name, ())), "")


def family(command: Command) -> str:
    """Ecosystem of the dependencies that a command installs; empty when it installs none."""
    name, subcommand = command.name, command.subcommand
    if name in NODE:
        return "node" if _node_install(command) else ""
    if name == "pip" and subcommand == "install":
        listed = command.values("-r", "--requirement", "-e", "--editable")
        return "python" if listed or any(word.startswith(".") for word in command.plain[1:]) else ""
    if (name, subcommand) in {("uv", "sync"), ("poetry", "install"), ("poetry", "sync"), ("pipenv", "install")}:
        return "python"
    if name in SYSTEM and subcommand in ("install", "add"):
        return "system"
    others = {("bundle", "install"): "ruby", ("composer", "install"): "php", ("cargo", "fetch"): "rust"}
    return "go" if downloads_modules(command) else others.get((name, subcommand), "")


def downloads_modules(command: Command) -> bool:
    return command.name == "go" and command.plain[:2] in (("mod", "download"), ("mod", "vendor"))


def installed(command: Command) -> Installed | None:
    """The app's dependencies that a command installs; None when it installs none."""
    if command.name in NODE:
        return _node(command)
    if command.name == "pip" and command.subcommand == "install":
        return _pip(command)
    if command.name == "uv" and command.subcommand == "sync":
        return _uv(command)
    if command.name in ("poetry", "pipenv"):
        return _poetry(command) if command.name == "poetry" else _pipenv(command)
    return None


def removed_paths(command: Command) -> list[str]:
    if command.name != "rm":
        return []
    return [command.path(word) for word in command.arguments if not word.startswith("-")]


def tools(run: Sequence[Command], *, compilers_only: bool = False) -> list[str]:
    """Build tools, such as compilers, that the commands of one RUN install and do not remove."""
    gone: set[str] = set()
    for command in run:
        if command.name in SYSTEM and command.subcommand in ("del", "purge", "remove", "autoremove"):
            gone.update(command.plain[1:])
        if command.name == "apt-mark" and command.subcommand == "auto":
            gone.add("")
    wanted = re.compile(rf"({_COMPILERS if compilers_only else _TOOLS})(-[\d.]+)?")
    return [name for command in run for name in _packages(command, gone) if wanted.fullmatch(name)]


# --- package managers ----------------------------------------------------------------------------------------------


def _packages(command: Command, gone: Collection[str]) -> list[str]:
    if command.name not in SYSTEM or command.subcommand not in ("install", "add"):
        return []
    # An unknown package list, after apt-mark or from a shell variable, is taken to remove all build tools.
    if "" in gone or command.value("-t", "--virtual") in gone:
        return []
    names = [re.split(r"[=~<>:]", word)[0] for word in command.plain[1:]]
    return [name for name in names if name not in gone]


def _node_install(command: Command) -> bool:
    if command.has("-g", "--global", "--version", "-v"):
        return False
    if command.name == "yarn" and not command.plain:
        return True
    if command.plain[:2] == ("workspaces", "focus"):
        return True
    return command.subcommand in _NODE_INSTALLS and len(command.plain) == 1


def _node(command: Command) -> Installed | None:
    production = (
        command.has(*_PRODUCTION)
        or {"dev", "production", "prod"} & {*command.values("--omit"), *command.values("--only")}
        or (command.variables.get("NODE_ENV") == "production" and "dev" not in command.values("--include"))
    )
    under = command.path(command.value("--prefix", "--cwd", "-C", "--dir") or ".")
    directory = f"{under.rstrip('/')}/node_modules"
    if command.subcommand == "prune":
        return Installed(directory) if production else None
    if not _node_install(command):
        return None
    option = {"npm": "--omit=dev", "pnpm": "--prod"}.get(command.name, "--production")
    what = " ".join([command.name, *command.plain[:1]])
    return Installed(directory) if production else Installed(directory, what, f"{what} {option}")


def _pip(command: Command) -> Installed | None:
    files = command.values("-r", "--requirement")
    words = [*command.plain[1:], *command.values("-e", "--editable")]
    extras = [extra.strip() for word in words for extra in "".join(re.findall(r"\[(.*?)\]", word)).split(",")]
    dev = [file for file in files if _DEV.search(file) and not file.startswith("/dev/")]
    dev += [f"[{extra}]" for extra in extras if _DEV.fullmatch(extra)]
    dev += [f"--group {group}" for group in command.values("--group") if _DEV.search(group)]
    dev += [word for word in words if _DEV_PACKAGES.fullmatch(re.split(r"[=<>~!\[]", word)[0])]
    if not dev:
        return None
    fix = "install them where the tests run, and only requirements.txt here"
    return Installed(_pip_directory(command), f"pip install {dev[0]}", fix, whole=False)


def _pip_directory(command: Command) -> str:
    if directory := command.value("--target", "-t", "--prefix", "--root"):
        return command.path(directory)
    if command.has("--user"):
        return "/root/.local"
    if venv := re.match(r"(.+)/bin/pip$", command.program):
        return SITE_PACKAGES if venv[1] in ("/usr", "/usr/local") else command.path(venv[1])
    return _virtual_environment(command) or SITE_PACKAGES


def _virtual_environment(command: Command) -> str:
    on_path = re.match(r"([^:]*venv[^:/]*)/bin(:|$)", command.variables.get("PATH", ""))
    found = command.variables.get("VIRTUAL_ENV") or (on_path[1] if on_path else "")
    return command.path(found) if found else ""


def _uv(command: Command) -> Installed:
    under = command.path(command.value("--directory", "--project") or ".")
    directory = command.path(command.variables.get("UV_PROJECT_ENVIRONMENT") or f"{under.rstrip('/')}/.venv")
    asked = command.has("--dev", "--all-groups") or any(_DEV.search(name) for name in command.values("--group"))
    without = (
        command.has("--no-dev", "--no-default-groups")
        or "dev" in command.values("--no-group")
        or command.values("--only-group")
        or command.variables.get("UV_NO_DEV", "").lower() in ("1", "true")
    )
    clean = without and not asked
    return Installed(directory) if clean else Installed(directory, "uv sync", "uv sync --frozen --no-dev")


def _poetry(command: Command) -> Installed | None:
    if command.subcommand not in ("install", "sync"):
        return None
    local = command.variables.get("POETRY_VIRTUALENVS_IN_PROJECT", "").lower() in ("1", "true")
    directory = command.path(".venv") if local else SITE_PACKAGES
    only = "main" in command.values("--only") or any("dev" in each for each in command.values("--without"))
    if only or command.has("--no-dev"):
        return Installed(directory, whole=False)
    return Installed(directory, "poetry install", "poetry install --only main")


def _pipenv(command: Command) -> Installed | None:
    if command.subcommand not in ("install", "sync") or not command.has("--dev", "-d"):
        return None
    return Installed(SITE_PACKAGES, f"pipenv {command.subcommand} --dev", f"pipenv {command.subcommand}", whole=False)
