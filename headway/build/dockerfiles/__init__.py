"""Lint Dockerfiles before the image is built.

hadolint checks single instructions. Headway's own rules look at stages, the .dockerignore and headway.yaml:

    HW001  base image without a version          HW008  no HEALTHCHECK
    HW002  no separate build stage               HW009  development dependencies in the final image
    HW003  runs as root                          HW010  compilers or git in the final image
    HW004  source copied before dependencies     HW011  a secret in the Dockerfile
    HW005  no .dockerignore, and it is needed    HW012  a secret file is copied
    HW006  .git, node_modules, tests in context  HW013  no limits on cpu and memory
    HW007  secret files in the build context
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from headway.build.dockerfiles import context, hadolint, policy
from headway.build.dockerfiles.findings import Finding, finding
from headway.build.dockerfiles.parser import parse
from headway.build.dockerfiles.secrets import find_secrets
from headway.config import Settings
from headway.config.platforms import platform
from headway.domain.errors import NotFound, UsageError
from headway.system.redaction import Masker

__all__ = ["Finding", "findings_for", "lint"]

LEVELS = ("error", "warning", "info")  # most severe first

# Findings of hadolint that make one of Headway's own on the same line redundant.
_COVERED_BY_HADOLINT = {"HW001": ("DL3006", "DL3007")}
_COVERED_BY_HEADWAY = {"DL3002": "HW003", "DL3064": "HW011"}
_NO_EXCEPTIONS: Mapping[str, str] = MappingProxyType({})


def lint(
    tree: Path,
    dockerfile: str = "Dockerfile",
    *,
    limits: bool = True,
    health_check: bool = True,
    exceptions: Mapping[str, str] = _NO_EXCEPTIONS,
) -> list[Finding]:
    """All findings, sorted by file, line and rule. No finding contains a secret's value.

    `limits`: whether headway.yaml limits cpu and memory. `health_check`: whether a target uses the image's HEALTHCHECK.
    `exceptions`: rules to skip, each with the reason.
    Raises NotFound when there is no Dockerfile, and UsageError when it cannot be read.
    """
    text = _read(tree, dockerfile)
    parsed = parse(text, dockerfile)
    files = context.files_of(tree)
    secrets = find_secrets(parsed)
    theirs = hadolint.check(text, dockerfile, demanding=hadolint.UNREADABLE not in exceptions)
    found = [
        *_without_duplicates(theirs, policy.check(parsed, secrets, files)),
        *context.check(tree, parsed, files),
    ]
    if not limits:
        fix = "under resources, cpu: 1 and memory: 512MiB"
        found.append(finding("HW013", "headway.yaml", None, "no limits on cpu and memory", fix))
    mask = Masker(leak.value for leak in secrets)
    masked = [each.model_copy(update={"what": mask(each.what), "fix": mask(each.fix)}) for each in found]
    skipped = {*exceptions, *(() if health_check else ("HW008",))}
    kept = [each for each in masked if each.rule not in skipped]
    return sorted(kept, key=lambda each: (each.file, each.line or 0, each.rule, each.what))


def findings_for(settings: Settings, tree: Path) -> tuple[list[Finding], list[Finding]]:
    """Findings on the Dockerfile that headway.yaml names: first those that stop a release, then the others.

    Raises what `lint` raises.
    """
    wanted = settings.build.lint
    found = lint(
        tree,
        settings.build.dockerfile or "Dockerfile",
        limits=bool(settings.resources.cpu and settings.resources.memory),
        health_check=any(platform(place.kind).image_health_check for place in settings.environments.values()),
        exceptions=wanted.exceptions,
    )
    worst = LEVELS[: LEVELS.index(wanted.fails) + 1] if wanted.fails != "never" else ()
    return [one for one in found if one.level in worst], [one for one in found if one.level not in worst]


def _read(tree: Path, dockerfile: str) -> str:
    path = tree / dockerfile
    if not path.is_file():
        raise NotFound(f"{dockerfile}: not in the repository", "write one, or say where it is in headway.yaml")
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(f"{dockerfile}: is not text in UTF-8", "save it as UTF-8") from error


def _without_duplicates(theirs: list[Finding], ours: list[Finding]) -> list[Finding]:
    known = {(each.rule, each.line) for each in theirs}
    ours = [
        each for each in ours if not any((rule, each.line) in known for rule in _COVERED_BY_HADOLINT.get(each.rule, ()))
    ]
    own = {(each.rule, each.line) for each in ours}
    theirs = [each for each in theirs if (_COVERED_BY_HEADWAY.get(each.rule), each.line) not in own]
    return theirs + ours
