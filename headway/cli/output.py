"""How the command line speaks: to a person, or as JSON."""

from __future__ import annotations

import json
import sys
from typing import Any

from headway.domain.errors import HeadwayError

__all__ = ["Output", "output"]


class Output:
    """Set once, from the global options."""

    def __init__(self) -> None:
        self.json = False
        self.debug = False

    @property
    def live(self) -> bool:
        """Whether a table that redraws itself makes sense."""
        return not self.json and sys.stdout.isatty()

    def say(self, *lines: str) -> None:
        """Lines for a person."""
        if not self.json:
            for line in lines:
                print(line, flush=True)

    def result(self, document: Any) -> None:
        """The one document of `--json`."""
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
