"""The production readiness checklist: verified items, attested items, and their result."""

from __future__ import annotations

from datetime import date
from typing import Any

import pytest
from pydantic import ValidationError

from headway.config.readiness_items import GROUPS, ITEMS, expand
from headway.config.sections import Attestation, Readiness
from headway.domain.readiness import failed, passed
from headway.policy.readiness.checklist import assess, counted, unready

TODAY = date(2026, 11, 25)


def word(**more: Any) -> Attestation:
    return Attestation.model_validate({"by": "ann", "on": "2026-11-01", "until": "2026-12-31", **more})


def state(name: str, *, found: Any = None, attested: Attestation | None = None) -> tuple[str, str]:
    results = assess({name: found} if found else {}, {name: attested} if attested else {}, ["operations"], TODAY)
    return next((one.state, one.evidence) for one in results if one.name == name)


def test_verified_item_needs_no_attestation() -> None:
    assert state("tls", found=passed("https://x")) == ("pass", "https://x")
    assert state("tls", found=failed("http://x")) == ("fail", "http://x")


def test_attestation_cannot_override_a_failed_check() -> None:
    assert state("tls", found=failed("http://x"), attested=word()) == ("fail", "http://x")


@pytest.mark.parametrize(
    ("attested", "wanted"),
    [
        (word(note="rota in the wiki"), ("attested", "ann on 2026-11-01: rota in the wiki, until 2026-12-31")),
        (word(until="2026-11-25"), ("attested", "ann on 2026-11-01, until 2026-11-25")),
        (word(until="2026-11-24"), ("unknown", "expired on 2026-11-24: ann on 2026-11-01")),
        (word(on="2026-11-26"), ("unknown", "attested for a future date: ann on 2026-11-26")),
        (None, ("unknown", "not verified and not attested")),
    ],
)
def test_attestation_expires(attested: Attestation | None, wanted: tuple[str, str]) -> None:
    assert state("on_call", attested=attested) == wanted


def test_required_item_without_evidence_is_not_ready() -> None:
    found = {"runbook": passed("RUNBOOK.md"), "tls": failed("http")}
    results = assess(found, {"big_migration": word()}, ["operations", "tls", "cors"], TODAY)
    assert [one.name for one in unready(results)] == ["tls", "cors", "on_call"]
    assert len(results) == len(ITEMS)
    assert counted(results) == f"1 pass, 1 attested, 1 fail, {len(ITEMS) - 3} unknown"


def test_group_expands_to_its_items() -> None:
    assert expand(["rollback"]) == ["previous", "schema", "rehearsed"]
    assert set(expand(GROUPS)) == set(ITEMS)
    assert expand([]) == []


@pytest.mark.parametrize(
    ("attest", "said"),
    [
        ({"oncall": {"by": "ann", "on": "2026-11-01", "until": "2026-12-01"}}, "did you mean 'on_call'"),
        ({"on_call": {"by": "ann", "on": "2026-11-01", "until": "2026-10-01"}}, "is before 2026-11-01"),
        ({"on_call": {"by": "ann"}}, "Field required"),
    ],
)
def test_attestation_needs_a_known_item_and_an_end_date(attest: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        Readiness.model_validate({"attest": attest})
