"""Images built on a real engine."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from docker.errors import APIError

from headway.build import images
from headway.build.docker_engine import connected, familiar, pull
from headway.build.images import Recipe
from headway.domain.errors import BuildFailed, TargetError
from headway.domain.source import Source
from tests.standins.docker_engine import Engine, running

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("docker")]

REPOSITORY = "127.0.0.1:1/headway-test/shop"
RECIPE = Recipe(repository=REPOSITORY, dockerfile="Dockerfile")
DOCKERFILE = """
FROM headway-test/python
ARG COLOUR=red
WORKDIR /app
COPY . .
RUN cat greeting && echo made of $COLOUR
CMD ["python3", "-c", "pass"]
"""


@pytest.fixture
def source(tmp_path: Path) -> Source:
    (tmp_path / "Dockerfile").write_text(DOCKERFILE)
    (tmp_path / "greeting").write_text("good morning\n")
    (tmp_path / "hidden").write_text("not in the image\n")
    (tmp_path / ".dockerignore").write_text("hidden\n")
    return Source(
        repo="https://ann:hunter2@git.example.com/shop",
        ref="feature/red",
        sha="1" * 40,
        tree="2" * 40,
        author="Ann <ann@example.com>",
        subject="first",
        committed_at=datetime(2026, 1, 1, tzinfo=UTC),
        workspace=str(tmp_path),
    )


@pytest.fixture
def prepared(engine: Engine) -> Engine:
    engine.prepare()
    return engine


@pytest.fixture(params=["the engine", "BuildKit"])
def builder(request: pytest.FixtureRequest, prepared: Engine, monkeypatch: pytest.MonkeyPatch) -> str:
    """The builder: the engine's own, or BuildKit from Debian's docker.io where it is installed."""
    monkeypatch.setenv("DOCKER_HOST", prepared.url)
    if request.param == "the engine":
        monkeypatch.setenv("PATH", "/nowhere")
        return "the engine"
    for place in (every := os.get_exec_path()):
        monkeypatch.setenv("PATH", os.pathsep.join([place, *every]))
        if images._buildkit():
            return "BuildKit"
    pytest.skip("no docker with BuildKit on this machine: apt-get install docker.io")


@pytest.fixture
def engine(prepared: Engine, builder: str) -> Engine:  # it has chosen
    """The engine that builds the images."""
    return prepared


def ran(said: list[str]) -> bool:
    """Whether the Dockerfile's RUN was executed, instead of taken from a cache."""
    return any(line.endswith("good morning") for line in said)


def forget(engine: Engine) -> None:
    """Remove all images that this engine has built, and the builders' caches."""
    for image in engine.client.images.list(REPOSITORY):
        engine.client.images.remove(image.id, force=True)
    engine.client.images.prune()
    engine.client.images.prune_builds()


async def built(source: Source, recipe: Recipe = RECIPE, limit: float = 60, **secrets: str) -> tuple[str, list[str]]:
    said: list[str] = []
    made = await images.build(source, recipe, secrets=secrets, timeout=limit, on_line=said.append)
    return made.image, said


async def test_image_labels_name_its_source(engine: Engine, builder: str, source: Source) -> None:
    image, said = await built(source, RECIPE.model_copy(update={"args": {"COLOUR": "blue"}}))
    found = engine.client.images.get(image)
    assert {tag.rpartition(":")[2] for tag in found.tags} == {"1" * 40, "feature-red"}
    assert found.labels == {
        "org.opencontainers.image.created": "2026-01-01T00:00:00+00:00",
        "org.opencontainers.image.revision": "1" * 40,
        "org.opencontainers.image.source": "https://git.example.com/shop",
        "org.opencontainers.image.version": "1" * 40,
    }
    assert said[0].startswith(f"builder: {builder}")
    assert ran(said)
    assert any(line.endswith("made of blue") for line in said)


async def test_unchanged_source_is_not_built_again(engine: Engine, source: Source) -> None:
    first, _ = await built(source)
    again, said = await built(source)
    assert again == first
    assert not ran(said)
    _, fresh = await built(source, RECIPE.model_copy(update={"cache": False}))
    assert ran(fresh)


async def test_same_commit_makes_the_same_layers_in_any_directory(
    engine: Engine, source: Source, tmp_path_factory: pytest.TempPathFactory
) -> None:
    (Path(source.workspace) / "Dockerfile").write_text("FROM scratch\nCOPY greeting /\nCOPY greeting /again\n")
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "tree"
    shutil.copytree(source.workspace, elsewhere)
    os.utime(elsewhere / "greeting", (1, 1))
    recipe = RECIPE.model_copy(update={"cache": False})
    both = [source, source.model_copy(update={"workspace": str(elsewhere)})]
    layers = [engine.client.images.get((await built(one, recipe))[0]).attrs["RootFS"]["Layers"] for one in both]
    assert len(layers[0]) == 2
    assert layers[0] == layers[1]


async def test_cache_directory_restores_layers_on_another_engine(
    engine: Engine, source: Source, tmp_path_factory: pytest.TempPathFactory
) -> None:
    cache = tmp_path_factory.mktemp("cache") / "layers"
    recipe = RECIPE.model_copy(update={"cache": str(cache), "args": {"COLOUR": "green"}})
    forget(engine)
    first, said = await built(source, recipe)
    assert any("cache: nothing to be had" in line for line in said)
    assert len(list(cache.iterdir())) == 1
    forget(engine)
    again, said = await built(source, recipe)
    assert again == first
    assert not ran(said)


async def test_unwritable_cache_directory_is_an_error(engine: Engine, source: Source, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(BuildFailed, match=r"build/cache: .*cache: File exists"):
        await built(source, RECIPE.model_copy(update={"cache": str(tmp_path / "cache")}))


async def test_full_disk_is_an_error(
    small_disk: Path, engine: Engine, source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(BuildFailed, match=r"build/cache: .*No space left on device"):
        await built(source, RECIPE.model_copy(update={"cache": str(small_disk / "layers")}))
    assert list((small_disk / "layers").iterdir()) == []
    image, _ = await built(source)
    monkeypatch.setattr(tempfile, "tempdir", str(small_disk))
    with pytest.raises(BuildFailed, match=rf"{small_disk} is full"), images.root_filesystem(image):
        pytest.fail("it is not all there")
    assert engine.client.containers.list(all=True) == []


@pytest.fixture(scope="module")
def cramped() -> Iterator[Engine]:
    """Another engine, on a disk that is almost full."""
    with running(Path(tempfile.mkdtemp(prefix="headway-docker-")), data="size=30m") as made:
        yield made


async def test_full_disk_of_the_engine_is_an_error(
    cramped: Engine, engine: Engine, source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", cramped.url)
    place = Path(source.workspace)
    (place / "Dockerfile").write_text("FROM scratch\nCOPY big /big\n")
    with (place / "big").open("wb") as big:
        big.truncate(50 * 2**20)
    with pytest.raises(BuildFailed, match=r"the disk of the Docker engine is full: .*no space left"):
        await built(source)
    assert cramped.client.images.list() == []


async def test_only_the_last_images_are_kept(engine: Engine, source: Source) -> None:
    forget(engine)
    made = []
    for number in range(4):
        (Path(source.workspace) / "greeting").write_text(f"good morning {number}\n")
        commit = source.model_copy(
            update={"sha": f"{number}" * 40, "committed_at": source.committed_at + timedelta(number)}
        )
        made.append((await built(commit))[0])
    used = engine.client.api.create_container(made[0], ["nothing"])
    engine.client.images.get(made[1]).tag(REPOSITORY, "somebody-elses")
    try:
        images.forget(REPOSITORY, keep=1)
        left = [one.id for one in engine.client.images.list(REPOSITORY)]
        assert set(left) == {made[0], made[1], made[3]}
        assert engine.client.images.get(made[1]).tags == [f"{REPOSITORY}:somebody-elses"]
    finally:
        engine.client.api.remove_container(used)
        forget(engine)


@pytest.mark.parametrize(
    ("name", "listed"),
    [
        ("docker.io/library/nginx", "nginx"),
        ("index.docker.io/me/shop", "me/shop"),
        ("docker.io/me/shop", "me/shop"),
        ("ghcr.io/library/shop", "ghcr.io/library/shop"),
        ("library/nginx", "nginx"),
    ],
)
def test_image_names_match_those_that_engines_list(name: str, listed: str) -> None:
    assert familiar(name) == listed


async def test_pull_from_a_silent_registry_times_out(engine: Engine) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        connected("pull", timeout=2) as client,
        pytest.raises(APIError, match="nothing was heard of the pull for 2 s"),
    ):
        pull(client, f"127.0.0.1:{silent.getsockname()[1]}/shop:1")


async def test_ignored_files_are_not_in_the_image(engine: Engine, source: Source) -> None:
    Path(source.workspace, "Dockerfile").write_text(DOCKERFILE.replace("cat greeting", "cat hidden"))
    with pytest.raises(BuildFailed, match="hidden"):
        await built(source)


async def test_failed_build_quotes_its_last_lines(engine: Engine, source: Source) -> None:
    Path(source.workspace, "Dockerfile").write_text(DOCKERFILE.replace("cat greeting", "echo no such table; exit 3"))
    with pytest.raises(BuildFailed, match=r"no such table .*code: 3"):
        await built(source)


async def test_missing_or_invalid_dockerfile_is_an_error(engine: Engine, source: Source) -> None:
    with pytest.raises(BuildFailed, match="no other/Dockerfile in the commit"):
        await built(source, RECIPE.model_copy(update={"dockerfile": "other/Dockerfile"}))
    Path(source.workspace, "Dockerfile").write_text("FORM scratch\n")
    with pytest.raises((BuildFailed, TargetError), match=r"(?i)unknown instruction: form"):
        await built(source)


@pytest.mark.parametrize("step", ["while sleep 0.2; do echo going; done", "sleep 100"], ids=["that talks", "silent"])
async def test_hanging_build_times_out(engine: Engine, source: Source, step: str) -> None:
    Path(source.workspace, "Dockerfile").write_text(DOCKERFILE.replace("cat greeting", step))
    with pytest.raises(BuildFailed, match="timed out after 2 s"):
        async with asyncio.timeout(50):
            await built(source, limit=2)


async def test_build_secret_needs_a_builder_that_keeps_it_out_of_the_image(
    engine: Engine, builder: str, source: Source
) -> None:
    Path(source.workspace, "Dockerfile").write_text(
        DOCKERFILE.replace("RUN cat", "RUN --mount=type=secret,id=PATH cat /run/secrets/PATH; cat")
    )
    if builder == "the engine":
        with pytest.raises(BuildFailed, match="only BuildKit keeps secrets out of an image, and there is none: PATH"):
            await built(source, PATH="hunter2")
        return
    image, said = await built(source, PATH="hunter2")
    assert any(line.endswith("***good morning") for line in said)
    saved = b"".join(engine.client.images.get(image).save())
    assert b"hunter2" not in saved


async def test_unreachable_engine_is_an_error(source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere/docker.sock")
    with pytest.raises(TargetError, match="does not answer"):
        await built(source)


def test_buildkit_gets_the_same_options(source: Source, tmp_path: Path) -> None:
    recipe = RECIPE.model_copy(update={"args": {"COLOUR": "blue"}, "platform": "linux/arm64", "cache": False})
    line = " ".join(images._command(source, recipe, {"a": "b c"}, ["NPM_TOKEN"], ["kept:1"], tmp_path / "id"))
    assert "--platform linux/arm64" in line
    assert "--cache-from kept:1" in line
    assert "--no-cache" in line


@pytest.mark.parametrize(
    ("ref", "wanted"),
    [
        ("main", ("1" * 40, "main")),
        ("feature/a b", ("1" * 40, "feature-a-b")),
        ("1" * 40, ("1" * 40,)),
        ("--", ("1" * 40,)),
    ],
)
def test_tags_are_valid_in_registries(source: Source, ref: str, wanted: tuple[str, ...]) -> None:
    assert images.tags(source.model_copy(update={"ref": ref})) == wanted


def test_cache_mounts_belong_to_one_app_or_to_forks(source: Source, tmp_path: Path) -> None:
    def namespace(app: str, *, trusted: bool) -> str:
        recipe = images.Recipe(repository="here/shop", domain=app)
        commit = source.model_copy(update={"trusted": trusted})
        (word,) = (word for word in images._command(commit, recipe, {}, [], [], tmp_path / "id") if "MOUNT_NS" in word)
        return word.partition("=")[2]

    apps = {namespace(app, trusted=True) for app in ("shop", "shop-pr-42", "other")}
    assert len(apps) == 3
    strangers = {namespace(app, trusted=False) for app in ("shop", "shop-pr-42")}
    assert strangers == {"headway-strangers"}
    assert not apps & strangers
