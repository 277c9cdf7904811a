"""Lint, types, tests: commands of the app's that say yes or no, side by side where they can be."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from prefect import get_run_logger, task
from prefect.artifacts import acreate_markdown_artifact

from headway.build import test_reports
from headway.config import Check
from headway.domain.errors import CheckFailed, CommandFailed
from headway.domain.source import CheckReport, Failure, Source
from headway.ledger import ReleaseRecord
from headway.scm import git
from headway.system import command_runner
from tasks.release_record import ledger, stage
from tasks.run_results import once_per_run

__all__ = ["run_check"]


@task(
    task_run_name="{name}",
    persist_result=True,
    cache_policy=once_per_run("name"),
    retry_delay_seconds=1,
    retry_jitter_factor=1,
)
async def run_check(release: ReleaseRecord, source: Source, name: str, check: Check) -> CheckReport:
    """Run one check in the workspace, or take the word of the release in which the same inputs passed.

    Raises CheckFailed. It is tried again only as often as headway.yaml says: a test that fails has failed.
    """
    with stage(release, name) as going_on:
        key = await _cache_key(source, check) if source.trusted else None  # strangers vouch for nobody else's commits
        if key and (known := ledger().checks.passed(key)):
            going_on.state, going_on.detail = "cached", f"same inputs passed in {known.release}"
            get_run_logger().info("not run: the same inputs passed in %s", known.release)
            return known.report.model_copy(update={"cached_from": known.release})
        report = await _run(release, source, name, check)
        going_on.detail = report.message
        if not report.passed:
            names = "".join(
                f"\n  {failure.name}: {failure.message.splitlines()[0]}"
                for failure in report.failures[:10]
                if failure.message
            )
            raise CheckFailed(f"{name}: {report.message}{names}", f"its output is in the log of task {name}")
        if key:
            ledger().checks.save(key, release.id, report)
        return report


async def _run(release: ReleaseRecord, source: Source, name: str, check: Check) -> CheckReport:
    workspace = Path(source.workspace)
    try:
        finished = await command_runner.run(
            check.run,
            cwd=workspace,
            env={**command_runner.clean_environment(source), **check.env},
            timeout=check.timeout,
            on_line=get_run_logger().info,
            name=name,
        )
    except CommandFailed as failed:
        raise CheckFailed(failed.what, failed.hint) from failed
    passed = finished.exit_code == 0
    tests, failures = _tests(workspace, check, required=passed)
    coverage = test_reports.coverage(workspace / check.coverage) if check.coverage and passed else None
    report = CheckReport(
        name=name,
        passed=passed,
        seconds=finished.seconds,
        tests=tests,
        failures=failures,
        coverage=coverage,
        message=_summary(finished.exit_code, tests, failures, finished.tail),
    )
    if report.tests is not None or report.coverage is not None:
        before = ledger().checks.last_coverage(release.app, name)
        if report.coverage is not None:
            ledger().checks.save_coverage(release.id, name, report.coverage)
        await acreate_markdown_artifact(
            key=f"{release.app}-{name}".replace("_", "-").lower(),
            markdown=test_reports.summary_markdown(report, before),
            description=f"{name} of {release.name}",
        )
    return report


def _tests(workspace: Path, check: Check, *, required: bool) -> tuple[int | None, tuple[Failure, ...]]:
    """What the JUnit report says.

    A command that failed may have died before it wrote one: its exit code says enough then.
    """
    if not check.reports:
        return None, ()
    try:
        return test_reports.junit(workspace, check.reports)
    except CheckFailed as missing:
        if required:
            raise
        get_run_logger().warning("%s", missing.what)
        return None, ()


def _summary(exit_code: int, tests: int | None, failures: tuple[object, ...], tail: tuple[str, ...]) -> str:
    if failures:
        return f"{len(failures)} of {tests} tests failed"
    if exit_code:
        last = next((line for line in reversed(tail) if line.strip()), "it printed nothing")
        return f"exit code {exit_code}: {last.strip()}"
    return f"{tests} tests passed" if tests is not None else ""


async def _cache_key(source: Source, check: Check) -> str | None:
    """What the check's outcome depends on, hashed: its paths' git trees, its command and environment, its tools'
    versions.
    """
    if check.inputs is None:
        return None
    workspace = Path(source.workspace)
    versions = []
    for tool in check.inputs.tools:
        said: list[str] = []
        asked = await command_runner.run(
            tool, cwd=workspace, env=command_runner.clean_environment(), timeout=60.0, on_line=said.append
        )
        if asked.exit_code:
            raise CheckFailed(
                f"inputs/tools: `{tool}` ended with {asked.exit_code}", "name commands that print a version"
            )
        versions.append((tool, said))
    tree = git.tree_of(git.mirror_of(workspace), source.sha, check.inputs.paths)
    return hashlib.sha256(json.dumps([tree, check.run, sorted(check.env.items()), versions]).encode()).hexdigest()
