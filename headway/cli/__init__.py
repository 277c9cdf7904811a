"""The command line. Importing it is quick; each command imports what it needs when it runs."""

from headway.cli.main import main

__all__ = ["main"]
