"""Extract the commands of RUN instructions, without running a shell."""

from __future__ import annotations

import posixpath
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

from headway.build.dockerfiles.parser import Step, expand

__all__ = ["Command", "commands"]

_SEPARATORS = ";&|()\n"
_SKIPPED = {"!", "{", "command", "do", "elif", "else", "env", "eval", "exec", "if", "sudo", "then", "time", "while"}
_RUNNERS = (("npx",), ("pnpx",), ("bunx",), ("pnpm", "exec"), ("yarn", "exec"), ("poetry", "run"), ("uv", "run"))
_SHELLS = {"ash", "bash", "dash", "sh", "zsh"}
_ASSIGNMENT = re.compile(r"([A-Za-z_]\w*)=(.*)", re.DOTALL)
_VARIABLE = re.compile(r"\$\w+|\$\{\w+\}")
_PYTHON = re.compile(r"python[\d.]*")
_PIP = re.compile(r"pip[\d.]*")

# Options of package managers that take a value: the next word is neither a subcommand nor a package.
_VALUED = re.compile(
    "-[CFceiot]|--constraint|--cwd|--dir|--directory|--editable|--extra|--extra-index-url|--filter|--find-links|--group"
    "|--index-url|--loglevel|--omit|--only|--only-group|--no-group|--prefix|--project|--python|--registry|--repository"
    "|--requirement|--root|--target|--virtual|--with|--without|--workspace"
)
_VALUED_OF = {"npm": {"-w"}, "pip": {"-r"}}  # flags without a value in other programs


class Command(NamedTuple):
    """One simple command: `npm --prefix web ci` in /app."""

    program: str  # as written, such as /opt/venv/bin/pip
    arguments: tuple[str, ...]
    variables: Mapping[str, str]
    directory: str

    @property
    def name(self) -> str:
        return posixpath.basename(self.program)

    @property
    def plain(self) -> tuple[str, ...]:
        """Positional arguments: the subcommand first."""
        found, skip = [], False
        for argument in self.arguments:
            if not skip and not argument.startswith("-"):
                found.append(argument)
            skip = not skip and bool(_VALUED.fullmatch(argument) or argument in _VALUED_OF.get(self.name, ()))
        return tuple(found)

    @property
    def subcommand(self) -> str:
        return self.plain[0] if self.plain else ""

    def has(self, *options: str) -> bool:
        return any(argument in options for argument in self.arguments)

    def values(self, *options: str) -> list[str]:
        """Values of any of these options, written as `--omit dev` or `--omit=dev`."""
        after = [value for option, value in pairwise(self.arguments) if option in options]
        split = [argument.partition("=") for argument in self.arguments]
        return after + [value for option, equals, value in split if equals and option in options]

    def value(self, *options: str) -> str:
        return next(iter(self.values(*options)), "")

    def path(self, written: str) -> str:
        return posixpath.normpath(posixpath.join(self.directory, written))


def commands(step: Step) -> list[Command]:
    """Commands of a RUN, in order; none for other instructions."""
    instruction = step.instruction
    if instruction.name != "RUN":
        return []
    if instruction.exec_form is not None:
        return list(_one_by_one([list(instruction.exec_form)], step.variables, step.directory))
    script = instruction.value
    if instruction.heredocs and (not script or posixpath.basename(script.split()[0]) in _SHELLS):
        script = "\n".join(body for body in instruction.heredocs if _is_shell(body))
    return list(_one_by_one(_split(script), step.variables, step.directory))


def _is_shell(body: str) -> bool:
    first = body.lstrip().partition("\n")[0]
    return not first.startswith("#!") or first.endswith("sh")


def _split(script: str) -> list[list[str]]:
    """Split a script into commands, each a list of words."""
    joined = re.sub(r"\\\r?\n", " ", script)
    lexer = shlex.shlex(re.sub(r"(?m)^\s*#.*$", "", joined), posix=True, punctuation_chars=_SEPARATORS)
    lexer.whitespace = " \t\r"
    lexer.whitespace_split = True
    lexer.commenters = ""
    try:
        return list(_grouped(lexer))
    except ValueError:  # unbalanced quotes: split at white space instead
        return [words.split() for words in re.split(f"[{re.escape(_SEPARATORS)}]+", joined) if words.strip()]


def _grouped(tokens: Iterator[str]) -> Iterator[list[str]]:
    words: list[str] = []
    for token in tokens:
        if token and not token.strip(_SEPARATORS):
            if words:
                yield words
            words = []
        else:
            words.append(token)
    if words:
        yield words


def _one_by_one(split: list[list[str]], variables: Mapping[str, str], directory: str) -> Iterator[Command]:
    """Yield commands, with the effects of `cd`, `export` and `activate` applied to later ones."""
    known = dict(variables)
    for words in split:
        variables, rest = _assigned(words)
        if not rest:
            known |= variables
            continue
        arguments = tuple(word for written in rest[1:] for word in _expanded(written, known))
        command = _unwrapped(Command(rest[0], arguments, known | variables, directory))
        script = [word for word in command.arguments if re.fullmatch("-[a-z]*c", word)]
        if command.name in _SHELLS and script:
            yield from _one_by_one(_split(command.value(script[0])), command.variables, directory)
        elif command.name == "cd" and command.plain:
            directory = command.path(command.plain[0])
        elif command.name == "export":
            known |= _assigned(command.arguments)[0]
        elif command.name in (".", "source") and command.plain and command.plain[0].endswith("/bin/activate"):
            known["VIRTUAL_ENV"] = command.path(command.plain[0]).removesuffix("/bin/activate")
        else:
            yield command


def _expanded(written: str, variables: Mapping[str, str]) -> list[str]:
    """Expand a word. A lone variable can expand to several words, an undefined one to one empty word."""
    value = expand(written, variables)
    return value.split() or [""] if _VARIABLE.fullmatch(written) else [value]


def _assigned(words: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """Split `if ! CI=1 npm ci` into the variable CI and the words `npm ci`."""
    variables: dict[str, str] = {}
    for number, word in enumerate(words):
        if match := _ASSIGNMENT.fullmatch(word):
            variables[match[1]] = match[2]
        elif word not in _SKIPPED:
            return variables, list(words[number:])
    return variables, []


def _unwrapped(command: Command) -> Command:
    """Remove wrappers: `python -m pip install` becomes `pip install`, `npx tsc` becomes `tsc`."""
    words = (command.name, *command.arguments)
    beside = command.program.removesuffix(command.name)
    if _PYTHON.fullmatch(words[0]) and len(words) > 2 and words[1] == "-m":
        return _unwrapped(command._replace(program=f"{beside}{words[2]}", arguments=words[3:]))
    if _PIP.fullmatch(words[0]):
        return command._replace(program=f"{beside}pip")
    if words[:2] == ("uv", "pip"):
        return command._replace(program="pip", arguments=words[2:])
    for runner in _RUNNERS:
        rest = words[len(runner) :]
        while rest and rest[0].startswith("-"):
            rest = rest[1:]
        if words[: len(runner)] == runner and rest:
            return _unwrapped(command._replace(program=rest[0], arguments=rest[1:]))
    return command
