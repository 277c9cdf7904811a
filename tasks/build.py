"""Build: from a commit to the one artifact that every environment gets."""

from __future__ import annotations

import asyncio
import hashlib
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE

from blocks import loading
from blocks.secrets import values_of
from headway.build import bundles, images, sbom
from headway.build.docker_engine import connected
from headway.config import Build, Settings
from headway.domain.errors import BuildFailed, TargetError
from headway.domain.revision import Artifact
from headway.domain.source import Source
from headway.ledger import ReleaseRecord
from headway.ledger.release_inputs import SBOM
from headway.system.output_log import output_log
from headway.system.paths import command_output, home
from headway.system.runners import runner
from tasks.release_record import ReleaseSession
from tasks.workloads import workload

__all__ = ["build"]

ARTIFACT = "artifact"  # name of this input of a release


@task(name="build", task_run_name="build", cache_policy=NO_CACHE)
async def build(release: ReleaseSession, source: Source, settings: Settings) -> Artifact:
    """Build a bundle, or an image in a registry. Environments get it by its digest.

    A run that is resumed gets the artifact that it built before. A bundle that is not on this machine is built again.
    Raises BuildFailed when that gives another digest.
    """
    ledger, record = release.ledger, release.record
    if before := await asyncio.to_thread(_built_before, release, settings):
        return before
    with release.stage("build") as stage:
        if settings.build.image:
            artifact = await _image(release, source, settings, settings.build.image)
        else:
            artifact = await _bundle(record, source, settings.build)
        stage.detail = artifact.digest[:19]
        if record.digest not in (None, artifact.digest):
            raise BuildFailed(
                f"build: {record.name} was built as {record.digest}, which is not on this machine; "
                f"building {source.sha[:7]} again gave {artifact.digest}",
                "resume it where it was built, or start another release of the commit",
            )
        ledger.inputs.fix(record.id, ARTIFACT, artifact.model_dump(mode="json"))
        ledger.releases.update(record.id, digest=artifact.digest)
        get_run_logger().info("%s, %d bytes: %s", artifact.digest, artifact.size, artifact.location)
        return artifact


def _built_before(release: ReleaseSession, settings: Settings) -> Artifact | None:
    """The artifact of this release; None if it is not built yet, or a bundle that is not on this machine."""
    record = release.record
    if stored := release.ledger.inputs.get(record.id, ARTIFACT):
        known = Artifact.model_validate(stored)
        return known if known.kind == "image" or Path(known.location).exists() else None
    if record.digest and settings.build.image:  # by 0.1.0, which stored the digest alone; remove in 0.3.0
        location = f"{settings.build.image}@{record.digest}"
        return Artifact(kind="image", digest=record.digest, location=location, size=0)
    return None


async def _bundle(record: ReleaseRecord, source: Source, how: Build) -> Artifact:
    """Build a bundle. Its digest depends on the commit and the result of `build.install`; it is stored once."""
    with output_log(command_output(record.id, "build"), get_run_logger().info) as log:
        install = workload(record.app, source, how.install, how.env, how.timeout, log) if how.install else None
        return await bundles.build(
            source, install, runner=runner(trusted=source.trusted), store=home() / "bundles", on_line=log
        )


def _lint(source: Source, settings: Settings) -> None:
    """Lint the Dockerfile and log the findings. Raises BuildFailed for those that headway.yaml does not allow."""
    from headway.build.dockerfiles import findings_for  # with hadolint and detect-secrets: slow, and only for images

    stops, others = findings_for(settings, Path(source.workspace))
    for one in others:
        get_run_logger().warning("%s. %s %s", one, one.why, one.fix)
    if stops:
        raise BuildFailed(
            "\n".join(f"{one}. {one.why} {one.fix}" for one in stops),
            "headway check shows the same before a commit; build/lint/exceptions takes rules out, with a reason",
        )


async def _image(release: ReleaseSession, source: Source, settings: Settings, repository: str) -> Artifact:
    """Build an image on the worker's engine, push it, and attach its SBOM and provenance in the registry.

    The artifact's digest is the registry's. The provenance names the release.
    """
    how, say, begun = settings.build, get_run_logger().info, datetime.now(UTC)
    ledger, record = release.ledger, release.record
    registry = await loading.load_registry(how.registry, repository)
    recipe = images.Recipe(
        repository=repository,
        dockerfile=how.dockerfile or "Dockerfile",
        args=how.args,
        platform=how.platform,
        cache=how.cache,
        domain=record.app,
    )
    secrets = await values_of(how.secrets if source.trusted else {}, "build/secrets")
    with tempfile.TemporaryDirectory(prefix="headway-build-") as place:
        tree = Path(place) / "commit"
        await bundles.export(source, tree, say)
        clean = source.model_copy(update={"workspace": str(tree)})
        await asyncio.to_thread(_lint, clean, settings)
        with output_log(command_output(record.id, "build"), say) as log:
            built = await images.build(clean, recipe, secrets=secrets, timeout=how.timeout, on_line=log)

    def publish() -> str:
        with connected("push") as engine:
            digest = registry.push(engine, built.image, repository, images.tags(source), say)
        with images.root_filesystem(built.image) as root:
            found = sbom.packages(root)
        bill = sbom.bill_of_materials(repository, digest, found)
        provenance = sbom.provenance(
            source,
            recipe,
            digest=digest,
            builder=built.builder,
            run=record.name,
            begun=begun,
            ended=datetime.now(UTC),
        )
        for kind, content in ((sbom.CYCLONEDX, bill), (sbom.IN_TOTO, provenance)):
            registry.attach(repository, digest, kind, content.encode(), kind)
        listed = {
            "mediaType": sbom.CYCLONEDX,
            "sha256": hashlib.sha256(bill.encode()).hexdigest(),
            "packages": len(found),
        }
        ledger.inputs.fix(record.id, SBOM, listed)
        say("%d packages in its bill of materials", len(found))
        return digest

    digest = await asyncio.to_thread(publish)
    try:
        await asyncio.to_thread(images.forget, repository)
    except TargetError as error:  # old images must not fail a release
        get_run_logger().warning("images of earlier releases stay until the next one: %s", error.what)
    return Artifact(kind="image", digest=digest, location=f"{repository}@{digest}", size=built.size)
