"""The command line. Importing it is fast: the module of a command is imported when the command runs."""

from headway.cli.main import main

__all__ = ["main"]
