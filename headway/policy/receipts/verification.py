"""Verification of a receipt: its signature, and whether it is about what is to be launched."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headway.domain.errors import HeadwayError
from headway.policy.receipts.statement import PAYLOAD_TYPE, PREDICATE_TYPE
from headway.system import signatures

__all__ = ["Expected", "verify"]


@dataclass(frozen=True)
class Expected:
    """What a receipt must be about; None: whatever it is about."""

    app: str | None = None
    digest: str | None = None
    environment: str | None = None
    release: str | None = None
    commit: str | None = None


def verify(envelope: Mapping[str, Any], keys: Iterable[Path], expected: Expected) -> dict[str, Any]:
    """The predicate of a receipt that one of the keys has signed, and that fits. Raises HeadwayError.

    All checks must have passed, and the environments before must have accepted the release.
    """
    try:
        payload = signatures.verify(envelope, PAYLOAD_TYPE, keys)
        document = json.loads(payload)
        if document["predicateType"] != PREDICATE_TYPE:
            raise HeadwayError(f"it is a {document['predicateType']}, not a {PREDICATE_TYPE}", "name another file")
        found = list(_faults(document, expected))
    except HeadwayError as error:
        raise HeadwayError(f"the receipt is not accepted: {error.what}", error.hint) from error
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise HeadwayError(f"the receipt is not accepted: no {error}", "it was made by another program") from error
    if found:
        raise HeadwayError(f"the receipt is not accepted: {'; '.join(found)}", "release the commit again")
    return dict(document["predicate"])


def _faults(document: Mapping[str, Any], expected: Expected) -> Iterator[str]:
    predicate, (subject,) = document["predicate"], document["subject"]
    pairs = (
        ("app", expected.app, predicate["app"]),
        ("digest", expected.digest, f"sha256:{subject['digest']['sha256']}"),
        ("environment", expected.environment, predicate["environment"]),
        ("release", expected.release, predicate["release"]),
        ("commit", expected.commit, predicate["source"]["commit"]),
    )
    for name, wanted, present in pairs:
        if wanted is not None and wanted != present:
            yield f"its {name} is {present}, not {wanted}"
    if predicate["build"]["digest"] != f"sha256:{subject['digest']['sha256']}":
        yield f"its build made {predicate['build']['digest']}"
    for check in predicate["checks"]:
        if check["state"] not in ("passed", "cached"):
            yield f"its check {check['name']} is {check['state']}"
    for environment in predicate["environments"]:
        if environment["state"] != "done":
            yield f"its rollout to {environment['name']} is {environment['state']}"
