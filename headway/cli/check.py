"""`headway check`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from headway import config
from headway.build.dockerfiles import Finding
from headway.cli.help_text import examples
from headway.cli.options import Json, PathArgument
from headway.cli.output import output
from headway.cli.work_tree import committed
from headway.domain.errors import HeadwayError, UsageError
from headway.policy.readiness import repository_checks
from headway.policy.readiness.checklist import Result, assess

__all__ = ["check"]

SIGNS = {"pass": "✓", "attested": "✓", "fail": "✗", "unknown": "?"}


@examples(
    "headway check",
    "headway check services/shop --json",
)
def check(path: PathArgument = Path(), _json: Json = False) -> None:
    """Check headway.yaml and the repository without deploying.

    The checks are: headway.yaml, the Dockerfile, uncommitted changes, committed secrets, and the production readiness
    checklist as far as the repository answers it.
    """
    settings = config.load(path)
    environments = settings.release_path()
    faults: list[HeadwayError] = []
    blocking: list[Finding] = []
    advice: list[Finding] = []
    results: list[Result] = []
    named = ", ".join(environments) or "none"
    output.say(f"headway.yaml: {settings.app}: {len(settings.checks)} checks, environments: {named}")
    with _collected_in(faults):
        blocking, advice = _dockerfile_findings(settings, path)
    with _collected_in(faults):
        local = committed(path)
        output.say(f"git: {local.sha[:7]} ({local.ref}), all changes committed")
    with _collected_in(faults):
        results = _readiness(settings, path)
    output.say(*(f"warning: {warning}" for warning in settings.warnings))
    _say_readiness(results)
    _say_findings([*blocking, *advice])
    _raise_first(faults, blocking, results)
    output.result(
        {
            "ok": True,
            "app": settings.app,
            "environments": environments,
            "warnings": settings.warnings,
            "findings": [one.model_dump() for one in advice],
            "readiness": [one.row for one in results],
        }
    )


@contextmanager
def _collected_in(faults: list[HeadwayError]) -> Iterator[None]:
    """Collect an error, so that the checks after it run too."""
    try:
        yield
    except HeadwayError as fault:
        faults.append(fault)


def _dockerfile_findings(settings: config.Settings, path: Path) -> tuple[list[Finding], list[Finding]]:
    """Findings that stop a release, and the others; none for an app without an image."""
    if not settings.build.image:
        return [], []
    from headway.build.dockerfiles import findings_for  # imports hadolint and detect-secrets, which is slow

    return findings_for(settings, path)


def _readiness(settings: config.Settings, path: Path) -> list[Result]:
    """The checklist for the last environment, as far as the repository and attestations answer it."""
    to = settings.release_path()[-1:]
    if not to:
        return []
    findings = repository_checks.examine(path, settings, to[0])
    required = settings.environment(to[0]).readiness
    return assess(findings, settings.readiness.attest, required, datetime.now(UTC).date())


def _say_readiness(results: Sequence[Result]) -> None:
    for result in results:
        if result.required or result.state != "unknown":
            required = " (required)" if result.required else ""
            output.say(f"  {SIGNS[result.state]} {result.name:16} {result.evidence}{required}")
    if unknown := sum(one.state == "unknown" and not one.required for one in results):
        output.say(f"  {SIGNS['unknown']} {unknown} more are verified by a release to an environment with `readiness`")


def _say_findings(findings: Sequence[Finding]) -> None:
    for one in findings:
        output.say(f"{one.level}: {one}\n    {one.why}\n    {one.fix}")


def _raise_first(faults: Sequence[HeadwayError], blocking: Sequence[Finding], results: Sequence[Result]) -> None:
    if faults:
        raise faults[0]
    if blocking:
        raise UsageError(
            f"{blocking[0].file}: {len(blocking)} findings would stop a release",
            "correct them, or add exceptions with a reason to build/lint/exceptions",
        )
    if any(one.name == "secrets" and one.state == "fail" for one in results):
        raise UsageError("a secret is in the repository", "remove it from the repository and revoke it")
