"""Location of the flows, tasks and blocks: in a checkout, or inside the installed package.

They are top-level packages of the project root. When Headway is installed, that root is `headway/project/`: names as
generic as `flows` do not belong in site-packages.
"""

from __future__ import annotations

import sys
from pathlib import Path

from headway.domain.errors import NotFound

__all__ = ["project_root"]


def project_root() -> Path:
    """The directory that holds prefect.yaml, flows/, tasks/ and blocks/. Puts it on the import path."""
    package = Path(__file__).resolve().parents[1]
    found = next((place for place in (package / "project", package.parent) if (place / "prefect.yaml").is_file()), None)
    if found is None:
        raise NotFound(f"{package}: the installation has no prefect.yaml beside it", "install Headway again")
    if str(found) not in sys.path:
        sys.path.insert(0, str(found))
    return found
