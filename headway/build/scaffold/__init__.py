"""Generate a Dockerfile, a .dockerignore and a headway.yaml for a repository.

The files are a starting point, derived from the repository's own files, and belong to the app: Headway does not
regenerate them. Guesses are listed in the first lines of headway.yaml.
"""

from __future__ import annotations

import json
import re
import tempfile
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from headway.build.scaffold.detect import detect
from headway.build.scaffold.project import Project, entry
from headway.config import FILE_NAME
from headway.domain.errors import UsageError

__all__ = ["Project", "detect", "files", "write"]

_DOCKERFILE, _IGNORE = "Dockerfile", ".dockerignore"
# Text that needs no quotes as a YAML block scalar.
_PLAIN = re.compile(r"[A-Za-z/][\w./@=+$%,{}:-]*(?: [\w./@=+$%,{}:-]+)*", re.ASCII)
_WORDS = {"true", "false", "null", "yes", "no", "on", "off", "y", "n"}


def files(project: Project) -> dict[str, str]:
    """Path and content of each file. The same project gives the same files."""
    return {
        _DOCKERFILE: _render(f"{project.kind}.Dockerfile.j2", project),
        _IGNORE: _render("dockerignore.j2", project),
        FILE_NAME: _render("headway.yaml.j2", project),
    }


def write(tree: Path, *, force: bool = False) -> list[str]:
    """Write the files, each atomically, and return their paths.

    Raises UsageError, and writes nothing, when one of them exists and `force` is not set, when a path is not a regular
    file, or when the directory is not writable. Also raises what `detect` raises.
    """
    made = files(detect(tree))
    _refuse(tree, list(made), force=force)
    try:
        with tempfile.TemporaryDirectory(prefix=".headway-", dir=tree) as scratch:
            for name, content in made.items():
                (Path(scratch) / name).write_text(content, encoding="utf-8")
            for name in made:
                (Path(scratch) / name).replace(tree / name)
    except OSError as error:
        raise UsageError(
            f"{tree}: cannot be written: {error.strerror}", "check its owner, permissions and disk"
        ) from error
    return list(made)


def _refuse(tree: Path, names: list[str], *, force: bool) -> None:
    there = [name for name in names if (tree / name).is_symlink() or (tree / name).exists()]
    for name in there:
        if (tree / name).is_symlink() or not (tree / name).is_file():
            kind = "a symbolic link" if (tree / name).is_symlink() else "not a file"
            raise UsageError(f"{name}: is {kind}, so nothing was written", "move it out of the way")
    if there and not force:
        verb = "is" if len(there) == 1 else "are"
        raise UsageError(f"{', '.join(there)}: {verb} there already, so nothing was written", "replace with --force")


# --- templates -------------------------------------------------------------------------------------------------


def _render(template: str, project: Project) -> str:
    # The output is not HTML. The filters below quote each value for the file's language.
    environment = Environment(  # noqa: S701
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"yaml": _yaml, "argv": _argv, "line": _line}
    return environment.get_template(template).render(project=project, command=entry(project.run))


def _yaml(text: str) -> str:
    """The text as a YAML scalar on one line."""
    words = text.split(" ")
    if _PLAIN.fullmatch(text) and text.lower() not in _WORDS and not any(word.endswith(":") for word in words):
        return text
    # JSON strings are valid YAML once unprintable characters are escaped.
    return "".join(one if one.isprintable() else _escaped(one) for one in json.dumps(text, ensure_ascii=False))


def _escaped(character: str) -> str:
    return f"\\U{ord(character):08x}"


def _argv(words: list[str]) -> str:
    """The exec form of CMD: Docker accepts only JSON, on one line."""
    return json.dumps(words)


def _line(text: str) -> str:
    """The text as one line, cut to fit a comment."""
    return "".join(one if one.isprintable() else " " for one in text)
