"""`headway plan`."""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path
from typing import Annotated

import typer

from headway import config
from headway.cli.help_text import examples
from headway.cli.options import EnvironmentArgument, Json, PathArgument
from headway.cli.output import output
from headway.domain.errors import ServiceUnavailable
from headway.domain.ports import Target
from headway.domain.revision import Artifact, LaunchSpec, Revision
from headway.ledger import Ledger
from headway.rollout.planning import plan_for, plan_without_target
from headway.scm import git
from headway.service.prefect.client import answers
from headway.service.prefect.connections import connections, target_classes
from headway.system.paths import ledger_url

__all__ = ["plan"]

OFFLINE = "no Prefect server answers: planned from the ledger, without asking {} what it runs"


@examples(
    "headway plan production           # the steps of a release of HEAD",
    "headway plan production --diff    # and what changes on the platform",
)
def plan(
    environment: EnvironmentArgument,
    path: PathArgument = Path(),
    diff: Annotated[bool, typer.Option("--diff", help="Print too what would change on the platform")] = False,
    _json: Json = False,
) -> None:
    """Print the steps of a release of HEAD without changing anything.

    Without a Prefect server, the plan starts from what the ledger says is live.
    """
    settings = config.load(path)
    rules = settings.environment(environment)
    local = git.inspect(path, "HEAD")
    spec = settings.launch_spec(environment, _unbuilt_artifact(local.sha, settings.build.image))
    revision = spec.revision(settings.app, local.sha)
    target = asyncio.run(connections().load_target(spec.target)) if answers() else None
    if diff and target is None:
        raise ServiceUnavailable("--diff needs the Prefect server, which has the target's settings", "headway up")
    with Ledger.open(ledger_url()) as ledger:
        stable = ledger.rollouts.live(settings.app, environment)
        live = ledger.revisions.find(settings.app, stable, environment=environment) if stable else None
    if target is None:
        capabilities = target_classes()[spec.target.partition("/")[0]].model_construct().capabilities
        made, remarks = plan_without_target(capabilities, rules, revision, spec, live), [OFFLINE.format(spec.target)]
    else:
        planned = plan_for(target, rules, revision, spec, stable=stable)
        made, remarks = planned.plan, list(planned.remarks)
    output.say(f"{made.strategy}: {made.old or 'nothing'} -> {made.new} (not built: a release makes another id)")
    for index, step in enumerate(made.steps, 1):
        output.say(f"{index:3}. {step}")
    for remark in remarks:
        output.say(f"note: {remark}")
    lines = [str(step) for step in made.steps]
    document = made.model_dump(mode="json") | {"lines": lines, "remarks": remarks}
    output.result(document | (_differences(target, revision, spec) if diff and target else {}))


def _unbuilt_artifact(sha: str, image: str | None) -> Artifact:
    """An artifact whose digest is made of the commit id, because the real one is known after the build only."""
    digest = f"sha256:{hashlib.sha256(sha.encode()).hexdigest()}"
    return Artifact(
        kind="image" if image else "bundle", digest=digest, location=f"{image}@{digest}" if image else "/", size=0
    )


def _differences(target: Target, revision: Revision, spec: LaunchSpec) -> dict[str, object]:
    """Print unified diffs; return them for `--json`, each as lines."""
    differences = target.compare(revision, spec)
    if differences is None:
        output.say(f"{spec.target} has nothing to compare: only the steps change it")
    elif not differences:
        output.say("nothing else changes")
    for one in differences or ():
        output.say("", *one.unified)
    return {"differences": [{"name": one.name, "lines": one.unified} for one in differences or ()]}
