"""Keys of headway.yaml that have a new name. The old name works for one minor version, with a warning."""

from __future__ import annotations

from collections.abc import Iterator

from headway.config.validation import Fault, Keys
from headway.config.yaml_document import Document

__all__ = ["RENAMED", "rename_keys"]

RENAMED: dict[Keys, str] = {("leaks",): "secret_scan"}
"""Old key -> new name of its last part. Renamed in 0.2.0; remove in 0.3.0."""


def rename_keys(document: Document) -> Iterator[str]:
    """Give old keys their new names, with a warning for each, `LINE: MESSAGE`. A file with both names has a fault."""
    for old, name in RENAMED.items():
        if not document.has(old):
            continue
        new = (*old[:-1], name)
        if document.has(new):
            document.faults.append(Fault(old, f"is the old name of {name}, which is there too: remove this one"))
            continue
        where = "/".join(map(str, old))
        yield f"{document.line(old)}: {where} is now called {name}; the old name stops working in 0.3.0"
        document.rename(old, name)
