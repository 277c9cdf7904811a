"""Output of the commands: text, or one JSON document."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from typing import Any, TextIO

from headway.domain.errors import HeadwayError

__all__ = ["Output", "output"]

STYLES = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "cyan": "36"}


class Output:
    """Prints text, JSON and errors, as the options `--json` and `--debug` ask for."""

    def __init__(self) -> None:
        self.json = False
        self.debug = False

    @property
    def live(self) -> bool:
        """Whether standard output is a terminal, for a table that redraws itself."""
        return not self.json and sys.stdout.isatty()

    def style(self, text: str, name: str, stream: TextIO | None = None) -> str:
        """The text in a colour or bold, on a terminal without NO_COLOR (https://no-color.org); otherwise as it is."""
        stream = stream or sys.stdout
        if not text or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb" or not stream.isatty():
            return text
        return f"\033[{STYLES[name]}m{text}\033[0m"

    def say(self, *lines: str) -> None:
        """Print lines of text, unless `--json` is given."""
        if not self.json:
            for line in lines:
                print(line, flush=True)

    def note(self, *lines: str) -> None:
        """Print lines to standard error, unless `--json` is given: standard output is for a program."""
        if not self.json:
            for line in lines:
                print(line, file=sys.stderr, flush=True)

    def table(self, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Print rows below their heads, in columns as wide as they need; columns without any text are left out."""
        kept = [column for column in range(len(heads)) if any(row[column] for row in rows)]
        widths = {column: max(len(row[column]) for row in (heads, *rows)) for column in kept}
        for number, row in enumerate((heads, *rows)):
            line = "  ".join(row[column].ljust(widths[column]) for column in kept).rstrip()
            self.say(self.style(line, "dim") if number == 0 else line)

    def warn(self, text: str) -> None:
        """Print a warning to standard error."""
        print(f"{self.style('warning:', 'yellow', sys.stderr)} {text}", file=sys.stderr, flush=True)

    def result(self, document: Any) -> None:
        """Print the document of `--json`, if given."""
        if self.json:
            print(json.dumps(document, default=str, indent=2), flush=True)

    def error(self, error: HeadwayError) -> None:
        if self.json:
            self.result({"error": error.what, "hint": error.hint, "exit_code": error.exit_code})
            return
        print(f"{self.style('error:', 'red', sys.stderr)} {error.what}", file=sys.stderr)
        if error.hint:
            print(f"  {self.style('hint:', 'cyan', sys.stderr)} {error.hint}", file=sys.stderr)


output = Output()
