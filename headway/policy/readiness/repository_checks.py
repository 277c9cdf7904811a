"""Readiness checks of a repository and its headway.yaml, without running anything."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from headway.build.secret_scan import find_secrets
from headway.config import Environment, Settings
from headway.config.platforms import platform
from headway.domain.errors import HeadwayError
from headway.domain.readiness import Finding, failed, passed
from headway.domain.revision import Artifact

__all__ = ["examine"]

RUNBOOKS = ("RUNBOOK*", "runbook*", "docs/RUNBOOK*", "docs/runbook*", "docs/operations*", "doc/runbook*")
UNPINNED = ("HW001", "DL3006", "DL3007")


def examine(tree: Path, settings: Settings, environment: str) -> dict[str, Finding]:
    """The items that the repository shows, for one environment. Raises what `find_secrets` raises."""
    configured = settings.environment(environment)
    found = {
        "tests": _tests(settings),
        "secrets": _secrets(tree, settings),
        "configuration": _configuration(settings),
        "limits": _limits(settings),
        "scaling": _scaling(configured),
        "metrics": _metrics(configured),
        "runbook": _runbook(tree),
    }
    if settings.build.image:
        found["image"] = _image(tree, settings)
    if findings := platform(configured.kind).readiness_findings:
        found |= findings(settings.app, settings.launch_spec(environment, _placeholder_image(settings)))
    return found


def _placeholder_image(settings: Settings) -> Artifact:
    """An image that does not exist: the checks read everything but the image."""
    digest = f"sha256:{'0' * 64}"
    return Artifact(kind="image", digest=digest, location=f"{settings.build.image}@{digest}", size=0)


def _tests(settings: Settings) -> Finding:
    counted = [name for name, check in settings.checks.items() if check.reports]
    if counted:
        return passed(f"checks with a report: {', '.join(counted)}")
    if settings.checks:
        return passed(f"checks: {', '.join(settings.checks)}; none reports how many tests there were")
    return failed("headway.yaml has no checks")


def _secrets(tree: Path, settings: Settings) -> Finding:
    found = find_secrets(tree, settings.secret_scan.exceptions)
    return failed(_some(map(str, found))) if found else passed("none found in what is committed")


def _configuration(settings: Settings) -> Finding:
    return passed(f"env: {len(settings.env)} variables") if settings.env else failed("headway.yaml has no env schema")


def _limits(settings: Settings) -> Finding:
    missing = [name for name in ("cpu", "memory") if getattr(settings.resources, name) is None]
    return failed(f"resources: no {' and no '.join(missing)}") if missing else passed("resources: cpu and memory")


def _scaling(configured: Environment) -> Finding:
    """The minimum counts, because an autoscaler may go down to it."""
    fewest = configured.instances.min
    return passed(f"{fewest} instances") if fewest > 1 else failed("one instance")


def _metrics(configured: Environment) -> Finding:
    if configured.strategy.analyses:
        return passed("every rollout is analysed")
    return failed(f"strategy {configured.strategy.kind} without an analysis")


def _runbook(tree: Path) -> Finding:
    files = sorted(str(file.relative_to(tree)) for pattern in RUNBOOKS for file in tree.glob(pattern))
    return passed(files[0]) if files else failed(f"no {RUNBOOKS[0]} and no {RUNBOOKS[3]}")


def _image(tree: Path, settings: Settings) -> Finding:
    from headway.build.dockerfiles import findings_for  # with hadolint and detect-secrets: slow, and only for images

    try:
        stops, others = findings_for(settings, tree)
    except HeadwayError as error:
        return failed(error.what)
    loose = [str(one) for one in (*stops, *others) if one.rule in UNPINNED]
    return failed(_some(loose)) if loose else passed("base images are pinned")


def _some(lines: Iterable[str]) -> str:
    first, *rest = lines
    return f"{first} and {len(rest)} more" if rest else first
