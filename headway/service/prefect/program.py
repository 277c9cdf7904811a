"""Prefect's command line, with clients that wait for a busy server: `python -m headway.service.prefect.program ...`."""

from __future__ import annotations

import importlib
import runpy
import sys

__all__ = ["run"]


def run() -> None:
    """Run `prefect` with the arguments of this program."""
    importlib.import_module("blocks.prefect_clients").install()
    sys.argv[0] = "prefect"
    runpy.run_module("prefect", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    run()
