"""Run the code blocks of a documentation page, in order, in a sandbox.

A page is Markdown. Its fenced blocks are run from top to bottom, as a reader would do it:

    ```sh                           run by bash; directory and exported variables carry over to the next block
    ```yaml title="headway.yaml"    written to this path, relative to the current directory; any language
    ```text                         directly after a block of `sh`: lines that its output must contain, in this order;
                                    `...` matches any text, spaces count as one

Any other block is an illustration. A comment before a block changes how the block is run:

    <!-- test: exit 1 -->           the block must end with this exit code
    <!-- test: until succeeded -->  repeat the block until its output contains the text, for a minute
    <!-- test: running -->          the block starts what the test has started already, such as `headway up`
    <!-- test: skip, WHY -->        do not run it; say why
"""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from markdown_it import MarkdownIt

__all__ = ["Block", "PageError", "Sandbox", "blocks"]

DEADLINE = 180.0  # seconds for one block
REPEAT = 60.0  # seconds in which `until` has to be true
_DIRECTIVE = re.compile(r"<!-- test: (\w+)(?:,? (.*?))? -->")
_TITLE = re.compile(r"""title=["']([^"']+)["']""")
_DIRECTIVES = {"exit", "until", "running", "skip"}
_STATE = '_headway_page() { local code=$?; { export -p; printf "cd %q\\n" "$PWD"; } > "$STATE"; exit $code; }'


class PageError(AssertionError):
    """A block of a page does not do what the page says."""


@dataclass(frozen=True)
class Block:
    """One fenced block: where it starts, its language, the path to write it to, and what is to be done with it."""

    page: Path
    line: int
    language: str
    text: str
    title: str = ""
    directive: str = ""
    argument: str = ""
    expected: str = ""

    @property
    def place(self) -> str:
        return f"{self.page.name}:{self.line}"


def blocks(page: Path) -> list[Block]:
    """Fenced blocks of a page in their order. Raises PageError for a directive that does not exist."""
    found: list[Block] = []
    for block in _fences(page):
        last = found[-1] if found else None
        if block.language == "text" and last and last.language == "sh" and last.directive != "skip":
            found[-1] = Block(**{**vars(last), "expected": block.text})
        else:
            found.append(block)
    return found


def _fences(page: Path) -> Iterator[Block]:
    directive, argument = "", ""
    for token in MarkdownIt().parse(page.read_text(encoding="utf-8")):
        if token.type == "html_block" and (match := _DIRECTIVE.search(token.content)):
            directive, argument = match[1], match[2] or ""
            if directive not in _DIRECTIVES:
                raise PageError(f"{page.name}: unknown directive: {match[0]}")
        if token.type == "fence":
            language, _, rest = token.info.strip().partition(" ")
            title = _TITLE.search(rest)
            assert token.map is not None
            yield Block(page, token.map[0] + 1, language, token.content, title[1] if title else "", directive, argument)
            directive, argument = "", ""


@dataclass
class Sandbox:
    """A directory and an environment in which a reader follows a page.

    `replace` maps texts in files and commands to their replacements: pages name fixed ports, the test takes free ones.
    """

    directory: Path
    environment: Mapping[str, str]
    replace: Mapping[str, str] = field(default_factory=dict)

    def follow(self, page: Path) -> None:
        """Run every block. Raises PageError at the first that does not do what the page says."""
        for block in blocks(page):
            if block.directive in ("skip", "running"):
                continue
            if block.title:
                self._write(block)
            elif block.language == "sh":
                self._run(block)

    def _write(self, block: Block) -> None:
        path = self._working_directory() / block.title
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(self._replaced(block.text), encoding="utf-8")

    def _run(self, block: Block) -> None:
        wanted = int(block.argument) if block.directive == "exit" else 0
        until = block.argument if block.directive == "until" else ""
        end = time.monotonic() + REPEAT
        while True:
            code, output = self._bash(block)
            if not until or until in output or time.monotonic() > end:
                break
            time.sleep(0.5)
        if until not in output:
            raise PageError(f"{block.place}: no {until!r} after {REPEAT:.0f} s:\n{block.text}{output}")
        if code != wanted:
            raise PageError(f"{block.place}: exit {code}, not {wanted}:\n{block.text}{output}")
        _compare(block, output)

    def _bash(self, block: Block) -> tuple[int, str]:
        text = self._replaced(block.text)
        script = f'{_STATE}\ntrap _headway_page EXIT\n[ ! -e "$STATE" ] || . "$STATE"\nset -eo pipefail\n{text}'
        done = subprocess.run(
            ["bash", "-c", script],
            cwd=self.directory,
            env={**self.environment, "STATE": str(self._state)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=DEADLINE,
            check=False,
        )
        return done.returncode, done.stdout

    def _replaced(self, text: str) -> str:
        for written, meant in self.replace.items():
            text = text.replace(written, meant)
        return text

    @property
    def _state(self) -> Path:
        return self.directory / ".state"

    def _working_directory(self) -> Path:
        done = subprocess.run(
            ["bash", "-c", '[ ! -e "$STATE" ] || . "$STATE"; pwd'],
            cwd=self.directory,
            env={**self.environment, "STATE": str(self._state)},
            capture_output=True,
            text=True,
            timeout=DEADLINE,
            check=True,
        )
        return Path(done.stdout.strip())


def _compare(block: Block, output: str) -> None:
    """Each expected line must be in the output, in this order."""
    rest = [" ".join(line.split()) for line in output.splitlines()]
    for line in filter(str.strip, block.expected.splitlines()):
        words = " ".join(line.split())
        pattern = re.compile(".*".join(re.escape(part.strip()) for part in words.split("...")))
        at = next((number for number, said in enumerate(rest) if pattern.search(said)), None)
        if at is None:
            raise PageError(f"{block.place}: the output has no line like\n{line}\nIt is:\n{output}")
        rest = rest[at + 1 :]
