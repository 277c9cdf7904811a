"""Headway's own rules on the stages of a Dockerfile."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator

from headway.build.dockerfiles.contents import dev_dependencies
from headway.build.dockerfiles.context import is_secret_file
from headway.build.dockerfiles.findings import Finding, finding
from headway.build.dockerfiles.packages import builds, downloads_modules, family, tools
from headway.build.dockerfiles.parser import Dockerfile, Stage, Step, expand
from headway.build.dockerfiles.secrets import FoundSecret
from headway.build.dockerfiles.shell import commands

__all__ = ["check"]

_MOVING = {"current", "edge", "latest", "lts", "main", "mainline", "master", "nightly", "rolling", "stable", "unstable"}
_VARIANT = re.compile(r"(alpine|debian|ubuntu|slim|fpm|apache|cli|jre|jdk|runtime|nonroot|debug|full|minimal)[\d.]*")


def check(dockerfile: Dockerfile, secrets: list[FoundSecret], files: list[str]) -> list[Finding]:
    """Apply all rules that need only the Dockerfile and the names of the repository's files."""
    return [
        *_versions(dockerfile),
        *_one_stage(dockerfile),
        *_root(dockerfile),
        *(found for stage in dockerfile.stages for found in _copied_too_early(dockerfile, stage, files)),
        *_health(dockerfile),
        *_dev_dependencies(dockerfile),
        *_tools(dockerfile),
        *(finding("HW011", dockerfile.file, secret.line, secret.what, _INSTEAD) for secret in secrets),
        *_secret_files(dockerfile),
    ]


_INSTEAD = "at run time: `!secret` under env in headway.yaml; in the build: RUN --mount=type=secret,id=..."


# --- images ------------------------------------------------------------------------------------------------------


def _versions(dockerfile: Dockerfile) -> Iterator[Finding]:
    for line, image in _pulled(dockerfile):
        if what := _unversioned(image):
            fix = f"name a version or a digest: {_name_and_tag(image)[0] or '<image>'}:<version>"
            yield finding("HW001", dockerfile.file, line, what, fix)


def _pulled(dockerfile: Dockerfile) -> Iterator[tuple[int, str]]:
    """Images that are pulled, with the line that names them."""
    for stage in dockerfile.stages:
        if stage.base is None and stage.image.lower() != "scratch":
            yield stage.line, stage.image
        for step in stage.own:
            mounts = [flag.partition("=")[2] for flag in step.instruction.flags if flag.startswith("--mount=")]
            options = [option for mount in mounts for option in mount.split(",")]
            named = [option.partition("=")[2] for option in options if option.startswith("from=")]
            for name in (expand(each, step.variables) for each in (step.instruction.flag("from"), *named)):
                if name and not name.isdecimal() and dockerfile.source(stage, name) is None:
                    yield step.instruction.line, name


def _unversioned(image: str) -> str:
    """Description of the problem if an image has no fixed version; empty if it has one."""
    name, tag = _name_and_tag(image)
    if "@" in image:
        return ""
    if not name or image.endswith(":"):
        return "the image is a build argument without a default" if not name else f"{name} has no version by default"
    if not tag:
        return f"{name} has no version"
    pieces = set(tag.lower().split("-"))
    moves = pieces & _MOVING or all(_VARIANT.fullmatch(piece) for piece in pieces)
    in_the_name = re.search(r"\d", posixpath.basename(name)) and not pieces & _MOVING
    return f"{name}:{tag} is not one version" if moves and not in_the_name else ""


def _name_and_tag(image: str) -> tuple[str, str]:
    path, slash, last = image.partition("@")[0].rpartition("/")
    last, _, tag = last.partition(":")
    return f"{path}{slash}{last}", tag


def _one_stage(dockerfile: Dockerfile) -> Iterator[Finding]:
    for step in dockerfile.final.steps:
        run = commands(step)
        built = [what for what in map(builds, run) if what]
        compilers = tools(run, compilers_only=True) if len(dockerfile.stages) == 1 else []
        if what := next(iter(built or [f"installing {name}" for name in compilers]), None):
            fix = "do it in a stage of its own (FROM ... AS build), and COPY --from=build what came out of it"
            message = f"builds in the image that is shipped: {what}"
            yield finding("HW002", dockerfile.file, step.instruction.line, message, fix)
            return


# --- the final stage ---------------------------------------------------------------------------------------------


def _root(dockerfile: Dockerfile) -> Iterator[Finding]:
    final = dockerfile.final
    last = _last(final, "USER")
    if last is None:
        _, tag = _name_and_tag(final.root.image)
        if "nonroot" in tag or "unprivileged" in final.root.image:
            return
        yield finding("HW003", dockerfile.file, final.line, "the app runs as root: no USER", _USER_FIX)
    elif re.fullmatch("root|0+", "".join(last.words[:1]).partition(":")[0]):
        yield finding("HW003", dockerfile.file, last.instruction.line, "the app runs as root", _USER_FIX)


_USER_FIX = "in the last stage, after everything is installed: USER 10001:10001"


def _health(dockerfile: Dockerfile) -> Iterator[Finding]:
    last = _last(dockerfile.final, "HEALTHCHECK")
    fix = "in the last stage: HEALTHCHECK CMD [...] with a command that fails when the app cannot serve"
    if last is None:
        yield finding("HW008", dockerfile.file, dockerfile.final.line, "no HEALTHCHECK in the final stage", fix)
    elif last.instruction.value.strip().upper() == "NONE":
        yield finding("HW008", dockerfile.file, last.instruction.line, "HEALTHCHECK is turned off", fix)


def _last(stage: Stage, name: str) -> Step | None:
    return next((step for step in reversed(stage.steps) if step.instruction.name == name), None)


def _dev_dependencies(dockerfile: Dockerfile) -> Iterator[Finding]:
    for carried in dev_dependencies(dockerfile):
        by = f", by the COPY in line {carried.copied}" if carried.copied else ""
        what = f"{carried.what.dev} brings development dependencies into the final image{by}"
        yield finding("HW009", dockerfile.file, carried.line, what, carried.what.fix)


def _tools(dockerfile: Dockerfile) -> Iterator[Finding]:
    for step in dockerfile.final.steps:
        if names := sorted(set(tools(commands(step)))):
            what = f"the final image has {', '.join(names)}"
            fix = "install them in a build stage, or remove them in the same RUN"
            yield finding("HW010", dockerfile.file, step.instruction.line, what, fix)


# --- files -------------------------------------------------------------------------------------------------------


def _copied_too_early(dockerfile: Dockerfile, stage: Stage, files: list[str]) -> Iterator[Finding]:
    """Copies of the whole directory before the first install of an ecosystem's dependencies."""
    installed = {kind for step in (stage.base.steps if stage.base else ()) for kind in _families(step, files)}
    copies: list[Step] = []
    for step in stage.own:
        if _copies_everything(step):
            copies.append(step)
        for kind, command in _families(step, files).items():
            if kind not in installed:
                for copy in copies:
                    what = f"everything is copied before {command} in line {step.instruction.line}"
                    yield finding("HW004", dockerfile.file, copy.instruction.line, what, _COPY_FIX[kind])
                copies = []
            installed.add(kind)


_COPY_FIX = {
    **dict.fromkeys(("php", "ruby", "rust", "system"), "install first, then COPY . ."),
    "go": "COPY go.mod go.sum ./, RUN go mod download, then COPY . .",
    "node": "COPY package*.json ./, install, then COPY . .",
    "python": "COPY requirements.txt (or pyproject.toml and the lock file), install, then COPY . .",
}


def _copies_everything(step: Step) -> bool:
    if step.instruction.name not in ("COPY", "ADD") or step.instruction.flag("from"):
        return False
    return any(posixpath.normpath(path) in (".", "/", "*") for path in step.words[:-1])


def _families(step: Step, files: list[str]) -> dict[str, str]:
    """Ecosystems whose dependencies a RUN installs, each with the command."""
    found: dict[str, str] = {}
    cached = any(flag.startswith("--mount=type=cache") for flag in step.instruction.flags)
    for command in commands(step):
        kind = family(command)
        if not kind and command.name == "go" and builds(command) and not cached and "go.sum" in files:
            kind = "go"  # it downloads missing modules
        if kind:
            shown = "go mod download" if downloads_modules(command) else f"{command.name} {command.subcommand}".strip()
            found.setdefault(kind, shown)
    return found


def _secret_files(dockerfile: Dockerfile) -> Iterator[Finding]:
    fix = "leave it out of the image; a build gets it with RUN --mount=type=secret,id=...,target=..."
    for instruction in dockerfile.instructions:
        if instruction.name in ("COPY", "ADD"):
            for path in filter(is_secret_file, instruction.words[:-1]):
                what = f"{instruction.name} puts {path} into the image"
                yield finding("HW012", dockerfile.file, instruction.line, what, fix)
