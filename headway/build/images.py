"""Build an image from a commit: the artifact of targets with containers."""

from __future__ import annotations

import asyncio
import errno
import os
import re
import shlex
import shutil
import subprocess
import tarfile
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import requests
import urllib3
from docker.errors import APIError, ImageNotFound
from pydantic import Field

from headway.build.docker_engine import connected, familiar, pull, words
from headway.domain.base import Frozen
from headway.domain.errors import BuildFailed, CommandFailed
from headway.domain.source import Source
from headway.system import command_runner
from headway.system.redaction import Masker

__all__ = ["Built", "Recipe", "build", "forget", "root_filesystem", "tags"]

KEPT = 10  # images of a repository on the engine that builds them
CREATED = "org.opencontainers.image.created"
LAST = 5  # lines of the build's log in an error
TOLD = 100  # lines among which those are looked for
ASKED = 20.0  # seconds for `docker --version` and `docker build --help`
FRAME = re.compile(r"-{3,}$| > ")  # separators and source excerpts in BuildKit's errors
STRANGERS = "headway-strangers"
MOUNTED = "HEADWAY_MOUNTED_"  # prefix of environment variables, unused by `docker` itself
BUILDKIT = {"DOCKER_BUILDKIT": "1"}  # built into docker 18.09 to 22; from 23 on the plug-in buildx


class Built(Frozen):
    """An image on the engine that built it, not pushed yet."""

    image: str  # its id
    size: int  # bytes
    builder: str  # description for the log


class Recipe(Frozen):
    """Parameters of a build. The same commit and recipe give the same image, if the Dockerfile is reproducible."""

    repository: str
    dockerfile: str = "Dockerfile"
    args: dict[str, str] = Field(default_factory=dict)
    platform: str | None = None
    cache: bool | str = True
    """Reuse layers of the branch's last image: True takes it from the registry, a path from that directory."""
    domain: str = ""
    """The app whose builds share what `RUN --mount=type=cache` keeps. Builds of forks share with none of them."""


def tags(source: Source) -> tuple[str, ...]:
    """Tags of an image: the commit and, if known, the branch; `fork-COMMIT` for forks. Releases use the digest."""
    if not source.trusted:
        return (f"fork-{source.sha}",)
    branch = re.sub(r"[^A-Za-z0-9_.-]+", "-", source.ref).lstrip("-.")[:128]
    return (source.sha, branch) if branch and branch != source.sha else (source.sha,)


async def build(
    source: Source,
    recipe: Recipe,
    *,
    secrets: Mapping[str, str],
    timeout: float,  # noqa: ASYNC109 - passed to the builder, which is ended on timeout
    on_line: Callable[[str], None],
) -> Built:
    """Build the commit with BuildKit if available, else with the engine's classic builder. The log names the builder.

    `secrets` are mounted during the build and are in no layer. Raises BuildFailed when the build fails, times out or
    fills the disk, and TargetError when the engine does not answer.
    """
    if not (Path(source.workspace) / recipe.dockerfile).is_file():
        raise BuildFailed(f"build/dockerfile: no {recipe.dockerfile} in the commit", "`headway init` writes one")
    masked = Masker(secrets.values())
    told: deque[str] = deque(maxlen=TOLD)

    def say(line: str) -> None:
        told.append(masked(line))
        on_line(told[-1])

    buildkit = await asyncio.to_thread(_buildkit)
    say(f"builder: {buildkit or 'the engine itself (no docker with BuildKit here)'}")
    labels = _labels(source)
    if secrets and not buildkit:
        raise BuildFailed(
            f"build/secrets: only BuildKit keeps secrets out of an image, and there is none: {', '.join(secrets)}",
            "install docker and docker-buildx where the worker runs",
        )
    await asyncio.to_thread(_date, source)
    earlier = await asyncio.to_thread(_earlier, source, recipe, timeout, say, by_itself=buildkit is not None)
    if buildkit:
        image = await _with_buildkit(source, recipe, labels, secrets, earlier, timeout, say)
    else:
        image = await asyncio.to_thread(_with_the_engine, source, recipe, labels, earlier, timeout, say, told)
    if isinstance(recipe.cache, str):
        await asyncio.to_thread(_keep, image, source, recipe)
    with connected("build") as engine:
        size = int(engine.api.inspect_image(image)["Size"])
    return Built(image=image, size=size, builder=buildkit or "the engine's own")


@contextmanager
def root_filesystem(image: str) -> Iterator[tarfile.TarFile]:
    """Export the files of an image as a tar archive. Raises TargetError, and BuildFailed when the disk is full."""
    with tempfile.TemporaryFile() as exported:
        with connected("look into the image") as engine:
            container = engine.api.create_container(image, ["nothing"])["Id"]  # never started
            try:
                for piece in engine.api.export(container):
                    exported.write(piece)
                exported.flush()
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
                raise BuildFailed(
                    f"build: {tempfile.gettempdir()} is full: the files of the image do not fit", "make room there"
                ) from error
            finally:
                engine.api.remove_container(container, v=True)
        exported.seek(0)
        with tarfile.open(fileobj=exported) as root:
            yield root


def forget(repository: str, keep: int = KEPT) -> None:
    """Remove all but the newest `keep` images of a repository from the engine, except those used by containers.

    Only images that `build` tagged with a commit are removed. They remain in the registry. Raises TargetError when the
    engine does not answer.
    """
    ours = familiar(repository)
    with connected("forget images") as engine:
        newest_first = sorted(engine.api.images(ours), key=_made, reverse=True)
        tags_of = [[tag for tag in one["RepoTags"] or [] if _is_built(tag, ours)] for one in newest_first]
        for tag in (tag for tags in [tags for tags in tags_of if tags][keep:] for tag in tags):
            with suppress(ImageNotFound):  # removed concurrently by another release
                try:
                    engine.api.remove_image(tag)
                except APIError as error:
                    if error.status_code != httpx.codes.CONFLICT:  # conflict: used by a container, keep it
                        raise


def _made(image: Mapping[str, Any]) -> tuple[int, str]:
    """Sort key: build time in whole seconds, then time of the commit."""
    return image["Created"], (image["Labels"] or {}).get(CREATED, "")


def _is_built(tag: str, repository: str) -> bool:
    name, _, commit = tag.rpartition(":")
    return name == repository and re.fullmatch(r"[0-9a-f]{40}([0-9a-f]{24})?", commit) is not None


def _labels(source: Source) -> dict[str, str]:
    """OCI labels. They depend on the commit alone, so that the same commit gives the same image."""
    return {
        CREATED: source.committed_at.isoformat(),
        "org.opencontainers.image.revision": source.sha,
        "org.opencontainers.image.source": source.public_repo,
        "org.opencontainers.image.version": source.sha,
    }


def _date(source: Source) -> None:
    """Set the modification time of every file to the commit's, because COPY keeps it in the layer."""
    at = source.committed_at.timestamp()
    for path in Path(source.workspace).rglob("*"):
        os.utime(path, (at, at), follow_symlinks=False)


def _arguments(source: Source, recipe: Recipe) -> dict[str, str]:
    return {"SOURCE_DATE_EPOCH": str(int(source.committed_at.timestamp())), **recipe.args}


# --- the cache -------------------------------------------------------------------------------------------------


def _last(source: Source, recipe: Recipe) -> str:
    """Name of the branch's last image."""
    return f"{recipe.repository}:{tags(source)[-1]}"


def _kept(source: Source, recipe: Recipe) -> Path:
    """Path of the branch's last image in the cache directory."""
    return Path(str(recipe.cache)) / f"{re.sub(r'[^A-Za-z0-9_.-]+', '_', _last(source, recipe))}.tar"


def _earlier(
    source: Source, recipe: Recipe, timeout: float, say: Callable[[str], None], *, by_itself: bool
) -> list[str]:
    """Fetch the branch's last image, unless the builder does (`by_itself`). Return the images to reuse layers from."""
    last = _last(source, recipe)
    with connected("build/cache") as engine:
        if not recipe.cache or engine.api.images(familiar(recipe.repository)):
            return []  # the engine's own build cache is more complete than an image
        try:
            if not isinstance(recipe.cache, str):
                if not by_itself:
                    pull(engine, last, timeout=timeout)
            else:
                with _kept(source, recipe).open("rb") as file:
                    for event in engine.api.load_image(file):
                        say(f"cache: {' '.join(str(event.get('stream', event)).split())}")
        except APIError as error:
            say(f"cache: nothing to be had of {last}: {words(error)}")
            return []
        except OSError as error:
            say(f"cache: nothing to be had of {last}: {error.strerror}")
            return []
    return [last]


def _keep(image: str, source: Source, recipe: Recipe) -> None:
    """Save the image in the cache directory. Raises BuildFailed when it is not writable."""
    kept = _kept(source, recipe)
    part = kept.with_name(f".{kept.name}.{os.getpid()}")
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        try:
            with part.open("wb") as file, connected("build/cache") as engine:
                for piece in engine.images.get(image).save(named=_last(source, recipe)):
                    file.write(piece)
            part.replace(kept)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise BuildFailed(
            f"build/cache: {kept.parent}: {error.strerror}", "is it a directory that the worker may write to?"
        ) from error


# --- BuildKit --------------------------------------------------------------------------------------------------


def _buildkit() -> str | None:
    """Description of the `docker` command line if it supports BuildKit, which `--secret` needs; else None."""
    if shutil.which("docker") is None:
        return None

    def said(*words: str) -> str:
        asked = ["docker", *words]
        environment = {**os.environ, **BUILDKIT}
        return subprocess.run(asked, capture_output=True, text=True, timeout=ASKED, check=True, env=environment).stdout

    try:
        return f"BuildKit, {said('--version').strip()}" if "--secret" in said("build", "--help") else None
    except (OSError, subprocess.SubprocessError):
        return None


async def _with_buildkit(
    source: Source,
    recipe: Recipe,
    labels: Mapping[str, str],
    secrets: Mapping[str, str],
    earlier: Sequence[str],
    timeout: float,  # noqa: ASYNC109 - see `build`
    on_line: Callable[[str], None],
) -> str:
    values = {f"{MOUNTED}{name}": value for name, value in secrets.items()}
    with tempfile.TemporaryDirectory(prefix="headway-build-") as place:
        name = Path(place) / "image"
        try:
            finished = await command_runner.run(
                shlex.join(_command(source, recipe, labels, list(secrets), earlier, name)),
                cwd=Path(source.workspace),
                env={**command_runner.clean_environment(), **values, **BUILDKIT},
                timeout=timeout,
                on_line=on_line,
                secrets=secrets.values(),
                name="build",
            )
        except CommandFailed as error:
            raise BuildFailed(error.what, "give it a longer build/timeout") from error
        if finished.exit_code:
            raise _failed(finished.tail)
        return name.read_text().strip()


def _command(
    source: Source,
    recipe: Recipe,
    labels: Mapping[str, str],
    secrets: Sequence[str],
    earlier: Sequence[str],
    name: Path,
) -> list[str]:
    """The `docker build` command. Secrets are passed by name; their values are in its environment."""
    words = ["docker", "build", "--progress", "plain", "--iidfile", str(name)]
    words += ["--file", recipe.dockerfile]
    words += [word for tag in tags(source) for word in ("--tag", f"{recipe.repository}:{tag}")]
    words += [word for key, value in labels.items() for word in ("--label", f"{key}={value}")]
    words += [word for key, value in _arguments(source, recipe).items() for word in ("--build-arg", f"{key}={value}")]
    words += [word for key in secrets for word in ("--secret", f"id={key},env={MOUNTED}{key}")]
    words += ["--platform", recipe.platform] if recipe.platform else []
    words += [word for image in earlier for word in ("--cache-from", image)]
    words += ["--build-arg", "BUILDKIT_INLINE_CACHE=1"] if recipe.cache else ["--no-cache"]
    # RUN --mount=type=cache has a namespace for each app and one for forks: what a build leaves there changes others.
    namespace = f"headway-{recipe.domain}" if source.trusted else STRANGERS
    words += ["--build-arg", f"BUILDKIT_CACHE_MOUNT_NS={namespace}"]
    return [*words, "."]


# --- the classic builder ---------------------------------------------------------------------------------------


def _with_the_engine(
    source: Source,
    recipe: Recipe,
    labels: Mapping[str, str],
    earlier: Sequence[str],
    timeout: float,
    on_line: Callable[[str], None],
    told: Iterable[str],
) -> str:
    end = time.monotonic() + timeout
    late = BuildFailed(f"build: timed out after {timeout:g} s", "give it a longer build/timeout")
    image = ""
    with connected("build", timeout=timeout) as engine:
        try:
            going = engine.api.build(
                path=source.workspace,
                dockerfile=recipe.dockerfile,
                tag=f"{recipe.repository}:{tags(source)[0]}",
                buildargs=_arguments(source, recipe),
                labels=dict(labels),
                platform=recipe.platform,
                cache_from=list(earlier) or None,
                nocache=not recipe.cache,
                rm=True,
                forcerm=True,
                decode=True,
                timeout=timeout,  # of one read: a silent step ends after at most twice this time
            )
            for event in going:
                for line in str(event.get("stream", "")).splitlines():
                    if line.strip():
                        on_line(line.rstrip())
                image = event.get("aux", {}).get("ID", image)
                if "error" in event:
                    raise _failed([*told, str(event["error"])])
                if time.monotonic() > end:
                    raise late
        except (requests.Timeout, urllib3.exceptions.ReadTimeoutError) as error:
            raise late from error
        except APIError as error:  # rejected before any output, e.g. a Dockerfile that cannot be parsed
            raise _failed([*told, words(error)]) from error
        for tag in tags(source)[1:]:
            engine.api.tag(image, recipe.repository, tag)
    return image


def _failed(lines: Sequence[str]) -> BuildFailed:
    telling = [line for line in lines if line.strip() and not FRAME.match(line)]
    said = " | ".join(map(Masker().quote, telling[-LAST:]))
    if "no space left on device" in said:
        return BuildFailed(f"build: the disk of the Docker engine is full: {said}", "docker system prune makes room")
    return BuildFailed(f"build: {said}", "the whole log is in the run")
