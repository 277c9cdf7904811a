"""State of this process that code under test may change: environment, working directory, options of the commands."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from headway.cli.output import output

__all__ = ["restored"]

PYTEST = "PYTEST_CURRENT_TEST"  # pytest's own: it removes it itself


@contextmanager
def restored() -> Iterator[None]:
    """Put back afterwards what a command that runs in this process leaves behind: a process of its own ends with it."""
    environment, directory, options = dict(os.environ), Path.cwd(), dict(vars(output))
    try:
        yield
    finally:
        os.chdir(directory)
        vars(output).update(options)
        for name in os.environ.keys() - environment.keys() - {PYTEST}:
            del os.environ[name]
        for name, value in environment.items():
            if name != PYTEST and os.environ.get(name) != value:
                os.environ[name] = value
