"""Checks: the app's lint, type and test commands."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from functools import partial
from pathlib import Path

from prefect import get_run_logger, task
from prefect.artifacts import acreate_markdown_artifact
from prefect.cache_policies import NO_CACHE

from headway.build import test_reports
from headway.config import Check
from headway.domain.errors import CheckFailed, CommandFailed
from headway.domain.source import CheckReport, Failure, Source
from headway.scm import git
from headway.system.output_log import output_log
from headway.system.paths import command_output
from headway.system.runners import runner
from tasks.release_record import ReleaseSession
from tasks.workloads import workload

__all__ = ["run_check"]

TOOL_TIMEOUT = 60.0  # seconds, to print a version


@task(
    task_run_name="{name}",
    cache_policy=NO_CACHE,
    retry_delay_seconds=1,
    retry_jitter_factor=1,
)
async def run_check(release: ReleaseSession, source: Source, name: str, check: Check) -> CheckReport:
    """Run one check in the workspace, or reuse its report from a release in which it passed with the same inputs.

    A check that passed before the run was resumed is not run again. Raises CheckFailed. It is retried only as often as
    headway.yaml says.
    """
    if before := release.passed_stage(name):
        return CheckReport(name=name, passed=True, seconds=before.seconds, message=before.detail)
    checks = release.ledger.checks
    with release.stage(name) as stage:
        key = await _cache_key(release, source, check) if source.trusted else None  # results of forks are not reused
        if key and (known := checks.passed(key)):
            stage.state, stage.detail = "cached", f"same inputs passed in {known.release}"
            get_run_logger().info("not run: the same inputs passed in %s", known.release)
            return known.report.model_copy(update={"cached_from": known.release})
        report = await _run(release, source, name, check)
        stage.detail = report.message
        if not report.passed:
            names = "".join(
                f"\n  {failure.name}: {failure.message.splitlines()[0]}"
                for failure in report.failures[:10]
                if failure.message
            )
            raise CheckFailed(f"{name}: {report.message}{names}", f"its output is in the log of task {name}")
        if key:
            checks.save(key, release.record.id, report)
        return report


async def _run(release: ReleaseSession, source: Source, name: str, check: Check) -> CheckReport:
    workspace, app = Path(source.workspace), release.record.app
    try:
        with output_log(command_output(release.record.id, name), get_run_logger().info) as log:
            command = workload(app, source, check.run, check.env, check.timeout, log)
            finished = await runner(trusted=source.trusted).run(
                replace(command, name=name, network=check.network != "none", hosts=_hosts(check))
            )
    except CommandFailed as failed:
        raise CheckFailed(failed.what, failed.hint) from failed
    passed = finished.exit_code == 0
    tests, failures = _tests(workspace, check, required=passed)
    coverage = test_reports.coverage(workspace / check.coverage, workspace) if check.coverage and passed else None
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
        checks, record = release.ledger.checks, release.record
        before = checks.last_coverage(record.app, name)
        if report.coverage is not None:
            checks.save_coverage(record.id, name, report.coverage)
        await acreate_markdown_artifact(
            key=f"{record.app}-{name}".replace("_", "-").lower(),
            markdown=test_reports.summary_markdown(report, before),
            description=f"{name} of {record.name}",
        )
    return report


def _hosts(check: Check) -> tuple[str, ...] | None:
    return None if isinstance(check.network, str) else check.network


def _tests(workspace: Path, check: Check, *, required: bool) -> tuple[int | None, tuple[Failure, ...]]:
    """Number of tests and failures of the JUnit report; None without one.

    A missing report is an error only if `required`: a command that failed may not have written it.
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


async def _cache_key(release: ReleaseSession, source: Source, check: Check) -> str | None:
    """Hash of what the result depends on: git trees of its paths, command, environment, versions of its tools."""
    if check.inputs is None:
        return None
    versions = []
    for tool in check.inputs.tools:
        printed = hashlib.sha256()
        say = partial(_add_line, printed)
        finished = await runner(trusted=source.trusted).run(
            workload(release.record.app, source, tool, {}, TOOL_TIMEOUT, say)
        )
        if finished.exit_code:
            raise CheckFailed(
                f"inputs/tools: `{tool}` ended with {finished.exit_code}", "name commands that print a version"
            )
        versions.append((tool, printed.hexdigest()))
    tree = git.tree_of(git.mirror_of(source.workspace), source.sha, check.inputs.paths)
    # The key includes app and repository: the same files can pass in another app without a meaning for this one.
    inputs = [
        release.record.app,
        source.public_repo,
        tree,
        check.run,
        check.network,
        sorted(check.env.items()),
        versions,
    ]
    return hashlib.sha256(json.dumps(inputs).encode()).hexdigest()


def _add_line(printed: hashlib._Hash, line: str) -> None:
    printed.update(f"{line}\n".encode(errors="replace"))
