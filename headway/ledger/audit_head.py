"""The signed head of the audit trail, in a file of HEADWAY_HOME: events that are removed at the end leave it behind."""

from __future__ import annotations

import json
from pathlib import Path

from headway.domain.errors import HeadwayError
from headway.ledger.audit import Audit, Head, faults
from headway.system import signatures
from headway.system.atomic_files import write_json

__all__ = ["HEAD_FILE", "read_head", "sign_head"]

HEAD_FILE = "audit-head.json"
PAYLOAD_TYPE = "application/vnd.headway.audit-head+json"


def sign_head(audit: Audit, home: Path) -> Head | None:
    """Sign the newest event, unless the file has it already. Returns it if it was signed.

    Raises HeadwayError when the trail does not continue from the event that was signed last: it is not signed then.
    """
    newest, signed = audit.head(), read_head(home)
    if newest == signed:
        return None
    found: list[str] = []
    if signed:
        last = next(audit.events(after=signed.number - 1), None)
        found += [] if last and last.as_head() == signed else ["the event that was signed last is gone"]
    found += faults(audit.events(after=signed.number if signed else 0), since=signed)
    if found or newest is None:
        raise HeadwayError(f"the audit trail was changed: {found[0]}", "see headway audit verify")
    write_json(home / HEAD_FILE, signatures.sign(newest.model_dump_json().encode(), PAYLOAD_TYPE, home))
    return newest


def read_head(home: Path) -> Head | None:
    """The newest event that was signed; None when none was. Raises HeadwayError when the file was changed."""
    file = home / HEAD_FILE
    try:
        envelope = json.loads(file.read_bytes())
        payload = signatures.verify(envelope, PAYLOAD_TYPE, signatures.trusted_keys(home))
        return Head.model_validate_json(payload)
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise HeadwayError(f"{file}: is damaged: {error}", "it was not written by Headway") from error
    except HeadwayError as error:
        raise HeadwayError(f"{file}: {error.what}", error.hint) from error
