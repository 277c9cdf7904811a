"""Output of the commands: text, or one JSON document."""

from __future__ import annotations

import json
import sys
from typing import Any

from headway.domain.errors import HeadwayError

__all__ = ["Output", "output"]


class Output:
    """Prints text, JSON and errors, as the options `--json` and `--debug` ask for."""

    def __init__(self) -> None:
        self.json = False
        self.debug = False

    @property
    def live(self) -> bool:
        """Whether standard output is a terminal, for a table that redraws itself."""
        return not self.json and sys.stdout.isatty()

    def say(self, *lines: str) -> None:
        """Print lines of text, unless `--json` is given."""
        if not self.json:
            for line in lines:
                print(line, flush=True)

    def result(self, document: Any) -> None:
        """Print the document of `--json`, if given."""
        if self.json:
            print(json.dumps(document, default=str, indent=2), flush=True)

    def error(self, error: HeadwayError) -> None:
        if self.json:
            self.result({"error": error.what, "hint": error.hint, "exit_code": error.exit_code})
            return
        red, plain = ("\033[31m", "\033[0m") if sys.stderr.isatty() else ("", "")
        print(f"{red}error:{plain} {error.what}", file=sys.stderr)
        if error.hint:
            print(f"  hint: {error.hint}", file=sys.stderr)


output = Output()
