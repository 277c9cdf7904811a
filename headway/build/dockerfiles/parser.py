"""Parse a Dockerfile into stages, with the variables and the working directory at each instruction."""

from __future__ import annotations

import io
import json
import posixpath
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from dockerfile_parse import DockerfileParser  # type: ignore[import-untyped]
from dockerfile_parse.parser import image_from  # type: ignore[import-untyped]
from dockerfile_parse.util import WordSplitter, extract_key_values  # type: ignore[import-untyped]

from headway.domain.errors import UsageError

__all__ = ["Dockerfile", "Instruction", "Stage", "Step", "assignments", "expand", "parse", "without_heredocs"]

WITH_HEREDOCS = ("RUN", "COPY", "ADD")
_HEREDOC = re.compile(r"\d*<<(-?)([^<\s]+)")
_VARIABLE = re.compile(r"\\\$|\$(?:\{(?P<braced>\w+)(?:(?P<operator>:?[-+])(?P<other>[^}]*))?\}|(?P<plain>\w+))")


class Instruction(NamedTuple):
    """One instruction, continuation lines joined. For ONBUILD, the instruction it defers."""

    name: str
    flags: tuple[str, ...]
    value: str
    line: int
    heredocs: tuple[str, ...] = ()
    onbuild: bool = False

    @property
    def exec_form(self) -> tuple[str, ...] | None:
        """The words of an instruction in exec form, `["npm", "ci"]`; None for the shell form."""
        try:
            words = json.loads(self.value) if self.value.startswith("[") else None
        except (ValueError, RecursionError):
            return None
        if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
            return None
        return tuple(words)

    @property
    def words(self) -> tuple[str, ...]:
        return _words(self.value) if self.exec_form is None else self.exec_form

    def flag(self, name: str) -> str:
        return next((flag.partition("=")[2] for flag in self.flags if flag.partition("=")[0] == f"--{name}"), "")


class Step(NamedTuple):
    """An instruction with the variables and the working directory that the build has there."""

    instruction: Instruction
    variables: Mapping[str, str]
    directory: str

    @property
    def words(self) -> list[str]:
        return [expand(word, self.variables) for word in self.instruction.words]


class Stage(NamedTuple):
    """A build stage: from one FROM to the next."""

    name: str
    image: str  # variables expanded; the stage's name when it starts from another stage
    line: int
    base: Stage | None
    own: tuple[Step, ...]

    @property
    def steps(self) -> tuple[Step, ...]:
        """Steps of the stages that this one starts from, then its own."""
        return tuple(step for stage in reversed(self._line_of_descent) for step in stage.own)

    @property
    def root(self) -> Stage:
        """First of the stages that this one starts from: the one whose base image is pulled."""
        return self._line_of_descent[-1]

    @property
    def _line_of_descent(self) -> list[Stage]:
        stages = [self]
        while stages[-1].base:
            stages.append(stages[-1].base)
        return stages


class Dockerfile(NamedTuple):
    file: str
    instructions: tuple[Instruction, ...]  # including ONBUILD, and ARGs before the first FROM
    stages: tuple[Stage, ...]

    @property
    def final(self) -> Stage:
        return self.stages[-1]

    def source(self, stage: Stage, name: str) -> Stage | None:
        """The stage that `--from=name` in `stage` refers to; None when it refers to an image."""
        earlier = [other for other in self.stages if other.line < stage.line]
        if name.isdecimal():
            return earlier[int(name)] if int(name) < len(earlier) else None
        return _named(earlier, name)


def parse(text: str, file: str) -> Dockerfile:
    """Parse a Dockerfile. Arguments of instructions are not validated. Raises UsageError when it cannot be built."""
    instructions = tuple(_instructions(text, file))
    top: dict[str, str] = {}
    groups: list[list[Instruction]] = []
    for instruction in instructions:
        if instruction.name == "FROM" and not instruction.onbuild:
            groups.append([instruction])
        elif groups:
            groups[-1].append(instruction)
        elif instruction.name == "ARG":
            top |= {name: expand(value, top) for name, value in assignments(instruction, file).items() if value}
    if not groups:
        raise UsageError(f"{file}: has no FROM", "begin it with the image to build on, such as FROM python:3.13-slim")
    stages: list[Stage] = []
    for head, *body in groups:
        stages.append(_stage(head, body, top, stages, file))
    return Dockerfile(file, instructions, tuple(stages))


def assignments(instruction: Instruction, file: str) -> dict[str, str]:
    """Names and values of an ARG or ENV: quotes removed, variables not expanded. An ARG without a default is empty."""
    if instruction.name == "ARG":
        pairs = [word.partition("=") for word in instruction.words]
        return {name: value for name, _, value in pairs}
    try:
        return dict(extract_key_values(env_replace=False, args={}, envs={}, instruction_value=instruction.value))
    except (ValueError, IndexError) as error:
        raise UsageError(f"{file}:{instruction.line}: ENV is not name=value", "quote values with blanks") from error


def expand(text: str, variables: Mapping[str, str]) -> str:
    """Expand variables. Undefined ones are empty, as in Docker."""

    def value(match: re.Match[str]) -> str:
        name = match["braced"] or match["plain"]
        if name is None:
            return "$"
        known = variables.get(name, "")
        if match["operator"] in ("-", ":-"):
            return known or match["other"]
        return (match["other"] if known else "") if match["operator"] else known

    return _VARIABLE.sub(value, text)


# --- instructions ------------------------------------------------------------------------------------------------


def _instructions(text: str, file: str) -> Iterator[Instruction]:
    lines, bodies = _split_heredocs(text, file)
    for found in _structure(lines):
        name, value, onbuild = found["instruction"], found["value"].strip(), False
        while name == "ONBUILD":
            name, _, value = value.partition(" ")
            name, value, onbuild = name.upper(), value.strip(), True
        flags = []
        while match := re.match(r"(--[a-z]\S*)(\s+|$)", value):
            flags.append(match[1])
            value = value[match.end() :]
        heredocs = bodies.get(found["startline"], ())
        if heredocs:
            value = _unmarked(value)
        yield Instruction(name, tuple(flags), value, found["startline"] + 1, tuple(heredocs), onbuild)


def _structure(lines: list[str]) -> list[dict[str, Any]]:
    # Without a blank line at the end, the parser drops a last instruction that ends in a continuation.
    content = "\n".join([*lines, "", ""]).encode()
    found = DockerfileParser(fileobj=io.BytesIO(content)).structure
    return [each for each in found if each["instruction"] != "COMMENT"]


def _split_heredocs(text: str, file: str) -> tuple[list[str], dict[int, list[str]]]:
    """Lines with each heredoc body replaced by comments, and the heredocs by line of their instruction."""
    # dockerfile-parse ends an instruction at a blank line, Docker does not. Both skip comments.
    lines = [line if line.strip() else "#" for line in text.split("\n")]
    written = text.split("\n")
    bodies: dict[int, list[str]] = {}
    done = 0
    while found := next((each for each in _structure(lines) if each["startline"] >= done and _markers(each)), None):
        done = found["endline"] + 1
        bodies[found["startline"]] = []
        for dash, word in _markers(found):
            end = _end(written, done, dash, word)
            if end is None:
                raise UsageError(
                    f"{file}:{found['startline'] + 1}: the heredoc <<{word} never ends", f"end it with a line {word}"
                )
            bodies[found["startline"]].append("\n".join(written[done:end]))
            lines[done : end + 1] = ["#"] * (end + 1 - done)
            done = end + 1
    return lines, bodies


def _markers(found: Mapping[str, Any]) -> list[tuple[str, str]]:
    name, value = found["instruction"], found["value"]
    if name == "ONBUILD":
        name, _, value = value.strip().partition(" ")
    if name.upper() not in WITH_HEREDOCS or "<<" not in value:
        return []
    matches = [_HEREDOC.fullmatch(word) for word in WordSplitter(value).split(dequote=False)]
    return [(match[1], WordSplitter(match[2]).dequote()) for match in matches if match]


def _unmarked(value: str) -> str:
    words = WordSplitter(value).split(dequote=False)
    return " ".join(word for word in words if not _HEREDOC.fullmatch(word))


def _end(lines: list[str], start: int, dash: str, word: str) -> int | None:
    for number, line in enumerate(lines[start:], start):
        plain = line.rstrip("\r")
        if (plain.lstrip("\t") if dash else plain) == word:
            return number
    return None


def without_heredocs(text: str, file: str) -> str:
    """Replace each heredoc with a word, for hadolint, which does not parse all forms. Line numbers stay the same."""
    lines, bodies = _split_heredocs(text, file)
    for found in _structure(lines):
        if found["startline"] in bodies:
            words = WordSplitter(found["value"]).split(dequote=False)
            plain = ("heredoc" if _HEREDOC.fullmatch(word) else word for word in words)
            after = ["#"] * (found["endline"] - found["startline"])
            lines[found["startline"] : found["endline"] + 1] = [f"{found['instruction']} {' '.join(plain)}", *after]
    return "\n".join(lines)


def _words(text: str) -> tuple[str, ...]:
    return tuple(WordSplitter(text).split())


# --- stages ------------------------------------------------------------------------------------------------------


def _stage(head: Instruction, body: list[Instruction], top: dict[str, str], known: list[Stage], file: str) -> Stage:
    image, name = image_from(expand(head.value, top))
    base = _named(known, image or "")
    environment, directory = _left_by(base, file)
    steps = _steps(body, environment, directory, top, file)
    return Stage((name or "").lower(), image or "", head.line, base, tuple(steps))


def _named(stages: Iterable[Stage], name: str) -> Stage | None:
    # If two stages have the same name, the later one is used.
    return next((stage for stage in reversed(list(stages)) if stage.name and stage.name == name.lower()), None)


def _left_by(base: Stage | None, file: str) -> tuple[dict[str, str], str]:
    """Environment and working directory at the end of a stage. ARGs end with their stage."""
    environment: dict[str, str] = {}
    directory = "/"
    for step in base.steps if base else ():
        if step.instruction.name == "ENV":
            values = assignments(step.instruction, file)
            environment |= {name: expand(value, step.variables) for name, value in values.items()}
        if step.instruction.name == "WORKDIR":
            directory = _directory(step)
    return environment, directory


def _steps(
    body: Iterable[Instruction], environment: dict[str, str], directory: str, top: Mapping[str, str], file: str
) -> Iterator[Step]:
    arguments: dict[str, str] = {}
    for instruction in body:
        if instruction.onbuild:
            continue
        # ENV overrides ARG, in any order.
        step = Step(instruction, {**arguments, **environment}, directory)
        yield step
        if instruction.name in ("ARG", "ENV"):
            values = {name: expand(value, step.variables) for name, value in assignments(instruction, file).items()}
            if instruction.name == "ENV":
                environment = environment | values
            else:
                arguments = arguments | {name: value or top.get(name, "") for name, value in values.items()}
        if instruction.name == "WORKDIR":
            directory = _directory(step)


def _directory(step: Step) -> str:
    path = expand(WordSplitter(step.instruction.value).dequote(), step.variables)
    return posixpath.normpath(posixpath.join(step.directory, path))
