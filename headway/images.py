"""The artifact of a target with containers: an image, built once from a commit."""

from __future__ import annotations

import asyncio
import re
import shlex
import shutil
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import docker
from docker.errors import APIError
from pydantic import Field

from headway import commands
from headway.engine import connected
from headway.errors import BuildFailed
from headway.masking import Masker
from headway.model import Frozen, Source

__all__ = ["Built", "Recipe", "build", "root_filesystem", "tags"]

LAST = 5  # lines of the build's log in an error
ASKED = 20.0  # seconds for `docker buildx version`


class Built(Frozen):
    """An image on the engine that built it; in no registry yet."""

    image: str  # its id
    size: int  # bytes
    builder: str  # who built it, in words


class Recipe(Frozen):
    """What is asked for: the same commit and recipe make the same image, where the Dockerfile allows that."""

    repository: str
    dockerfile: str = "Dockerfile"
    args: dict[str, str] = Field(default_factory=dict)
    platform: str | None = None
    cache: bool = True


def tags(source: Source) -> tuple[str, ...]:
    """What people find it by; what is deployed is the digest. The commit, and the branch if it came from one."""
    branch = re.sub(r"[^A-Za-z0-9_.-]+", "-", source.ref).lstrip("-.")[:128]
    return (source.sha, branch) if branch and branch != source.sha else (source.sha,)


async def build(
    source: Source,
    recipe: Recipe,
    *,
    version: str,
    secrets: Mapping[str, str],
    timeout: float,  # noqa: ASYNC109 - of the builder, which has to end with it
    on_line: Callable[[str], None],
) -> Built:
    """Build the commit with BuildKit when there is one, else with the engine's own builder; the log says with which.

    `secrets` are mounted while it builds, and get into no layer. Raises BuildFailed: the Dockerfile, no room, no time;
    TargetError when the engine does not answer.
    """
    if not (Path(source.workspace) / recipe.dockerfile).is_file():
        raise BuildFailed(f"build/dockerfile: no {recipe.dockerfile} in the commit", "`headway init` writes one")
    masked = Masker(secrets.values())
    told: list[str] = []

    def say(line: str) -> None:
        told.append(masked(line))
        on_line(told[-1])

    buildkit = await asyncio.to_thread(_buildkit)
    say(f"builder: {buildkit or 'the engine itself (no docker buildx here)'}")
    labels = _labels(source, version)
    if buildkit:
        image = await _with_buildkit(source, recipe, labels, secrets, timeout, say)
    elif secrets:
        raise BuildFailed(
            f"build/secrets: only BuildKit keeps secrets out of an image, and there is none: {', '.join(secrets)}",
            "install docker-buildx where the worker runs",
        )
    else:
        image = await asyncio.to_thread(_with_the_engine, source, recipe, labels, timeout, say, told)
    with connected("build") as engine:
        size = int(engine.api.inspect_image(image)["Size"])
    return Built(image=image, size=size, builder=buildkit or "the engine's own")


@contextmanager
def root_filesystem(image: str) -> Iterator[tarfile.TarFile]:
    """All files of an image of the engine. Raises TargetError."""
    with connected("look into the image") as engine, tempfile.TemporaryFile() as exported:
        container = engine.api.create_container(image, ["nothing"])["Id"]  # it is never started
        try:
            for piece in engine.api.export(container):
                exported.write(piece)
        finally:
            engine.api.remove_container(container, v=True)
        exported.seek(0)
        with tarfile.open(fileobj=exported) as root:
            yield root


def _labels(source: Source, version: str) -> dict[str, str]:
    """Of the OCI image specification. The time is the commit's: the same commit makes the same image."""
    return {
        "org.opencontainers.image.created": source.committed_at.isoformat(),
        "org.opencontainers.image.revision": source.sha,
        "org.opencontainers.image.source": source.public_repo,
        "org.opencontainers.image.version": version,
    }


def _arguments(source: Source, recipe: Recipe) -> dict[str, str]:
    return {"SOURCE_DATE_EPOCH": str(int(source.committed_at.timestamp())), **recipe.args}


# --- BuildKit --------------------------------------------------------------------------------------------------


def _buildkit() -> str | None:
    """What `docker buildx version` says."""
    if shutil.which("docker") is None:
        return None
    try:
        told = subprocess.run(
            ["docker", "buildx", "version"], capture_output=True, text=True, timeout=ASKED, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return f"BuildKit, {told.stdout.strip()}"


async def _with_buildkit(
    source: Source,
    recipe: Recipe,
    labels: Mapping[str, str],
    secrets: Mapping[str, str],
    timeout: float,  # noqa: ASYNC109 - see `build`
    on_line: Callable[[str], None],
) -> str:
    with tempfile.TemporaryDirectory(prefix="headway-build-") as place:
        name = Path(place) / "image"
        finished = await commands.run(
            shlex.join(_command(source, recipe, labels, list(secrets), name)),
            cwd=Path(source.workspace),
            env={**commands.clean_environment(), **secrets},
            timeout=timeout,
            on_line=on_line,
            secrets=secrets.values(),
            name="build",
        )
        if finished.exit_code:
            raise _failed(finished.tail)
        return name.read_text().strip()


def _command(
    source: Source, recipe: Recipe, labels: Mapping[str, str], secrets: Sequence[str], name: Path
) -> list[str]:
    """`docker buildx build ...`; secrets by name: their values are in its environment."""
    words = ["docker", "buildx", "build", "--progress", "plain", "--load", "--iidfile", str(name)]
    words += ["--file", recipe.dockerfile]
    words += [word for tag in tags(source) for word in ("--tag", f"{recipe.repository}:{tag}")]
    words += [word for key, value in labels.items() for word in ("--label", f"{key}={value}")]
    words += [word for key, value in _arguments(source, recipe).items() for word in ("--build-arg", f"{key}={value}")]
    words += [word for key in secrets for word in ("--secret", f"id={key},env={key}")]
    words += ["--platform", recipe.platform] if recipe.platform else []
    if recipe.cache:
        words += ["--cache-to", "type=inline", "--cache-from", f"{recipe.repository}:{tags(source)[-1]}"]
    return [*words, "."]


# --- the engine's own builder ----------------------------------------------------------------------------------


def _with_the_engine(
    source: Source,
    recipe: Recipe,
    labels: Mapping[str, str],
    timeout: float,
    on_line: Callable[[str], None],
    told: Sequence[str],
) -> str:
    end = time.monotonic() + timeout
    image = ""
    with connected("build", timeout=timeout) as engine:
        going = engine.api.build(
            path=source.workspace,
            dockerfile=recipe.dockerfile,
            tag=f"{recipe.repository}:{source.sha}",
            buildargs=_arguments(source, recipe),
            labels=dict(labels),
            platform=recipe.platform,
            cache_from=_cached(engine, source, recipe),
            nocache=not recipe.cache,
            rm=True,
            forcerm=True,
            decode=True,
        )
        for event in going:
            for line in str(event.get("stream", "")).splitlines():
                if line.strip():
                    on_line(line.rstrip())
            image = event.get("aux", {}).get("ID", image)
            if "error" in event:
                raise _failed([*told, str(event["error"])])
            if time.monotonic() > end:
                raise BuildFailed(f"build: no end after {timeout:g} s", "give it a longer build/timeout")
        for tag in tags(source)[1:]:
            engine.api.tag(image, recipe.repository, tag)
    return image


def _cached(engine: docker.DockerClient, source: Source, recipe: Recipe) -> list[str] | None:
    """What the branch had last, when this engine has not built it: layers that are the same are not built again."""
    if not recipe.cache or engine.api.images(recipe.repository):
        return None  # its own cache knows more than an image does
    last = f"{recipe.repository}:{tags(source)[-1]}"
    try:
        engine.api.pull(last)
    except APIError:
        return None
    return [last]


def _failed(lines: Sequence[str]) -> BuildFailed:
    said = " | ".join(line for line in lines[-LAST:] if line.strip())
    if "no space left on device" in said:
        return BuildFailed(f"build: the disk of the Docker engine is full: {said}", "docker system prune makes room")
    return BuildFailed(f"build: {said}", "the whole log is in the run")
