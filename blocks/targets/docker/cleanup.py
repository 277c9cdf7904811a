"""Remove stopped containers of a Docker target, and the images that nothing uses any more."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import Any

import docker
from docker.errors import APIError, ImageNotFound, NotFound
from prefect.logging import get_logger

from blocks.targets.docker.containers import LABEL, STOPPED
from headway.build import docker_engine as engines
from headway.build.docker_engine import words

__all__ = ["remove_stopped"]

CONFLICT = 409


def remove_stopped(
    engine: docker.DockerClient, made: Sequence[dict[str, Any]], carried: Collection[str], keep: int
) -> None:
    """Remove stopped ones of an app's containers `made`, of all but the `keep` newest revisions, and their images.

    A revision that is not in `carried`, that never had all the traffic, is removed first: nobody rolls back to it.
    """
    running = {one["Labels"][f"{LABEL}revision"] for one in made if one["State"] not in STOPPED}
    stopped = [one for one in made if one["State"] in STOPPED]
    stopped.sort(
        key=lambda one: (one["Labels"][f"{LABEL}revision"] in carried, _ended(engine, one["Id"])), reverse=True
    )
    revisions = list(dict.fromkeys(one["Labels"][f"{LABEL}revision"] for one in stopped))
    removed = [revision for revision in revisions if revision not in running][keep:]
    for one in stopped:
        if one["Labels"][f"{LABEL}revision"] in removed:
            with _best_effort(one["Id"]):
                engine.api.remove_container(one["Id"], v=True)
    used = {one["ImageID"] for one in engine.api.containers(all=True)}
    for image, location in {(one["ImageID"], one["Labels"][f"{LABEL}image"]) for one in stopped}:
        if image not in used:
            with _best_effort(image):
                _remove_image(engine, image, location)


@contextmanager
def _best_effort(what: str) -> Iterator[None]:
    """Log what the engine refuses to remove, and leave it for the next time: no release fails for it."""
    try:
        yield
    except NotFound:
        pass
    except APIError as error:
        get_logger("headway.docker").warning("%s could not be removed and is tried again later: %s", what, words(error))


def _ended(engine: docker.DockerClient, container: str) -> datetime:
    """When it last ran, not when it was created: a rollback may have started an old container again."""
    try:
        state = engine.api.inspect_container(container)["State"]
    except NotFound:
        return datetime.min.replace(tzinfo=UTC)
    return datetime.fromisoformat(state["FinishedAt"])


def _remove_image(engine: docker.DockerClient, image: str, location: str) -> None:
    """Remove the image with the tags of its own repository. Tags of other repositories stay."""
    repository = engines.familiar(location.partition("@")[0])
    with suppress(ImageNotFound):
        tags = engine.api.inspect_image(image)["RepoTags"] or []
        for name in (*(tag for tag in tags if tag.rpartition(":")[0] == repository), location):
            try:
                engine.api.remove_image(name)
            except APIError as error:
                if error.status_code != CONFLICT:  # another image is based on it: it stays
                    raise
