"""Follow development dependencies from the stage that installs them to the final image."""

from __future__ import annotations

import posixpath
import re
from fnmatch import fnmatchcase
from typing import NamedTuple, TypeAlias

from headway.build.dockerfiles.packages import SITE_PACKAGES, Installed, installed, removed_paths
from headway.build.dockerfiles.parser import Dockerfile, Stage, Step, expand
from headway.build.dockerfiles.shell import commands

__all__ = ["Carried", "dev_dependencies"]


class Carried(NamedTuple):
    """Dependencies, the line that installed them, and the line of the COPY that brought them to this stage."""

    line: int
    copied: int | None
    what: Installed


Places: TypeAlias = dict[tuple[str, int], Carried]  # by directory and line of installation


def dev_dependencies(dockerfile: Dockerfile) -> list[Carried]:
    """Development dependencies in the final image, in the order of the lines that install them."""
    by_line: dict[int, Places] = {}
    for stage in dockerfile.stages:
        places = dict(by_line[stage.base.line]) if stage.base else {}
        for step in stage.own:
            places = _run(step, places)
            places |= _copied(step, dockerfile, stage, by_line)
        by_line[stage.line] = places
    return sorted(by_line[dockerfile.final.line].values(), key=lambda carried: carried.line)


def _run(step: Step, places: Places) -> Places:
    for command in commands(step):
        left = installed(command)
        gone = [*removed_paths(command), *([left.directory] if left and left.whole else [])]
        places = {key: carried for key, carried in places.items() if not any(_covers(path, key[0]) for path in gone)}
        if left and left.dev:
            places[left.directory, step.instruction.line] = Carried(step.instruction.line, None, left)
    return places


def _copied(step: Step, dockerfile: Dockerfile, stage: Stage, known: dict[int, Places]) -> Places:
    if step.instruction.name != "COPY" or len(step.words) < 2:
        return {}
    source = dockerfile.source(stage, expand(step.instruction.flag("from"), step.variables))
    if source is None:
        return {}
    *paths, into = step.words
    target = posixpath.normpath(posixpath.join(step.directory, into))
    found = {}
    for path in (_normal(path) for path in paths):
        for (place, line), carried in known[source.line].items():
            if _covers(path, place):
                found[_moved(place, path, target), line] = carried._replace(copied=step.instruction.line)
    return found


def _normal(path: str) -> str:
    full = posixpath.normpath(posixpath.join("/", path))
    return re.sub(rf"^{SITE_PACKAGES}[\d.*]+(/site-packages)?$", SITE_PACKAGES, full)


def _covers(path: str, place: str) -> bool:
    """Whether a path, which may contain wildcards, is `place` or one of its parent directories."""
    parts = place.split("/")
    above = ["/".join(parts[:count]) or "/" for count in range(1, len(parts) + 1)]
    return any(fnmatchcase(each, path) and each.count("/") == path.count("/") for each in above)


def _moved(place: str, path: str, target: str) -> str:
    if "*" in path:
        return posixpath.join(target, posixpath.basename(place))
    return posixpath.normpath(posixpath.join(target, posixpath.relpath(place, path)))
