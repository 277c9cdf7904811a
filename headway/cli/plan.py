"""`headway init`, `headway check` and `headway plan`: what can be known without changing anything."""

from __future__ import annotations

import asyncio
import hashlib
from datetime import UTC, datetime
from pathlib import Path

from headway import config
from headway.build import scaffold
from headway.build.dockerfiles import Finding
from headway.cli.output import output
from headway.domain.errors import HeadwayError, UsageError
from headway.domain.ports import Target
from headway.domain.revision import Artifact, LaunchSpec, Revision
from headway.ledger import Ledger
from headway.policy.readiness import repository_checks
from headway.policy.readiness.checklist import Result, assess
from headway.rollout import strategies
from headway.scm import git
from headway.service.prefect.connections import connections
from headway.system.paths import ledger_url

__all__ = ["check", "init", "plan"]

SIGNS = {"pass": "✓", "attested": "✓", "fail": "✗", "unknown": "?"}


def init(path: Path, *, force: bool) -> None:
    """Raises UsageError when something is there already, and NotFound when nothing is recognised."""
    project = scaffold.detect(path)
    written = scaffold.write(path, force=force)
    output.say(f"{project.name}: {project.kind} {project.version}, started with: {project.run}")
    for note in project.notes:
        output.say(f"note: {note}")
    output.say(f"written: {', '.join(written)}. Look at them, commit them, then: headway check {path}")
    output.result({"app": project.name, "kind": project.kind, "written": written, "notes": list(project.notes)})


def check(path: Path) -> None:
    """headway.yaml and the state of the repository. Raises the first fault of each, headway.yaml's all at once."""
    found = config.load(path)
    path_to_production = ", ".join(found.release_path()) or "none"
    said = [f"headway.yaml: {found.app}: {len(found.checks)} checks, environments: {path_to_production}"]
    faults: list[HeadwayError] = []
    stops: list[Finding] = []
    others: list[Finding] = []
    if found.build.image:
        from headway.build.dockerfiles import (
            findings_for,  # with hadolint and detect-secrets: slow, and only for images
        )

        try:
            stops, others = findings_for(found, path)
        except HeadwayError as fault:
            faults.append(fault)
    try:
        local = git.inspect(path)
        said.append(f"git: {local.sha[:7]} ({local.ref}), all committed")
    except HeadwayError as fault:
        faults.append(fault)
    results: list[Result] = []
    try:
        results = _readiness(path, found)
    except HeadwayError as fault:
        faults.append(fault)
    for line in said:
        output.say(line)
    for result in results:
        if result.required or result.state != "unknown":
            needed = " (needed)" if result.required else ""
            output.say(f"  {SIGNS[result.state]} {result.name:16} {result.evidence}{needed}")
    if unknown := sum(one.state == "unknown" and not one.required for one in results):
        output.say(
            f"  {SIGNS['unknown']} {unknown} more are verified in a release whose environment asks for readiness"
        )
    for one in (*stops, *others):
        output.say(f"{one.level}: {one}\n    {one.why}\n    {one.fix}")
    if faults:
        raise faults[0]
    if stops:
        raise UsageError(
            f"{stops[0].file}: {len(stops)} findings would stop a release",
            "build/lint says what does, and takes exceptions with a reason",
        )
    if any(one.name == "secrets" and one.state == "fail" for one in results):
        raise UsageError("a secret is in the repository", "take it out and make it invalid where it is from")
    findings = [one.model_dump() for one in others]
    output.result(
        {"ok": True, "app": found.app, "environments": found.release_path(), "findings": findings}
        | {"readiness": [one.row for one in results]}
    )


def _readiness(path: Path, found: config.Settings) -> list[Result]:
    """The checklist for the last environment, as far as the repository and people's words go."""
    to = found.release_path()[-1:]
    if not to:
        return []
    findings = repository_checks.examine(path, found, to[0])
    return assess(findings, found.readiness.attest, found.environment(to[0]).readiness, datetime.now(UTC).date())


def plan(environment: str, path: Path, *, diff: bool = False) -> None:
    """Print the steps, and with `diff` what the platform says would change besides.

    The artifact is not built for it: a digest made of the commit stands for it.
    """
    found = config.load(path)
    rules = found.environment(environment)
    local = git.inspect(path, "HEAD")
    digest, image = f"sha256:{hashlib.sha256(local.sha.encode()).hexdigest()}", found.build.image
    stand_in = Artifact(
        kind="image" if image else "bundle", digest=digest, location=f"{image}@{digest}" if image else "/", size=0
    )
    spec = found.launch_spec(environment, stand_in)
    target = asyncio.run(connections().load_target(spec.target))
    with Ledger.open(ledger_url()) as ledger:
        stable = ledger.live(found.app, environment)
    revision = spec.revision(found.app, local.sha)
    made = strategies.plan(
        rules,
        target.observe(found.app),
        revision,
        spec,
        stable=stable,
        capabilities=target.capabilities,
    )
    target.check(found.app, made)
    output.say(f"{made.strategy}: {made.old or 'nothing'} -> {made.new} (not built: its name will be another)")
    for index, step in enumerate(made.steps, 1):
        output.say(f"{index:3}. {step}")
    remarks = target.remarks(found.app, made)
    for remark in remarks:
        output.say(f"note: {remark}")
    lines = [str(step) for step in made.steps]
    document = made.model_dump(mode="json") | {"lines": lines, "remarks": list(remarks)}
    output.result(document | (_compared(target, revision, spec) if diff else {}))


def _compared(target: Target, revision: Revision, spec: LaunchSpec) -> dict[str, object]:
    """Said as a unified diff; for `--json` each with its lines."""
    differences = target.compare(revision, spec)
    if differences is None:
        output.say(f"{spec.target} has nothing to compare: the steps are all that changes there")
    elif not differences:
        output.say("nothing else changes")
    for one in differences or ():
        output.say("", *one.unified)
    return {"differences": [{"name": one.name, "lines": one.unified} for one in differences or ()]}
