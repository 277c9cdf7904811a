"""Measure what Headway survives: `python bench/resilience.py --part NAME`.

Each part is a module with a function `run` that returns figures.
"""

from __future__ import annotations

import argparse
import importlib
import json
import platform

PARTS = {
    "apps": "many_apps",
    "busy": "busy_server",
    "chatty": "chatty_check",
    "locked": "database_locked",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--part", choices=PARTS, action="append", help="default: all")
    for part in parser.parse_args().part or PARTS:
        figures = importlib.import_module(PARTS[part]).run()
        print(f"{part}, {platform.machine()}, Python {platform.python_version()}")
        print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
