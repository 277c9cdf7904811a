"""Whether an older version can run on a database that newer versions have changed."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from headway.domain.errors import MigrationRefused
from headway.ledger import SchemaChange
from headway.policy.schema_migrations.rollback_safety import contracts_to_revert

AT = datetime(2026, 1, 12, 9, 30, tzinfo=UTC)


def contract(state: str, **more: Any) -> SchemaChange:
    about: dict[str, Any] = {
        "id": "c",
        "release_id": "r",
        "app": "shop",
        "environment": "production",
        "revision": "new",
        "kind": "contract",
        "files": ("versions/3.py",),
        "detail": "",
        "output": "",
        "decided_at": AT,
        "due_at": AT,
        "started_at": AT,
        "finished_at": None,
    }
    return SchemaChange.model_validate({**about, "state": state, **more})


def ask(*contracts: SchemaChange, force: bool = False, revert: bool = False, reason: str = "") -> list[SchemaChange]:
    return contracts_to_revert("shop production", "old", contracts, force=force, revert=revert, reason=reason)


@pytest.mark.parametrize("state", ["waiting", "cancelled", "reverted"])
def test_pending_or_undone_migration_does_not_block_a_rollback(state: str) -> None:
    assert ask(contract(state)) == []


@pytest.mark.parametrize("state", ["running", "done", "failed"])
def test_migration_that_may_have_run_blocks_a_rollback(state: str) -> None:
    with pytest.raises(MigrationRefused) as refused:
        ask(contract(state))
    assert refused.value.what == (
        "shop production: old cannot be restored: new has removed what it may need "
        f"(versions/3.py, {state}, 2026-01-12 09:30 UTC)"
    )
    assert "--force with a --reason" in refused.value.hint


def test_force_needs_a_reason() -> None:
    with pytest.raises(MigrationRefused):
        ask(contract("done"), force=True, reason=" ")
    assert ask(contract("done"), force=True, reason="it never reads that column") == []


def test_only_applied_migrations_are_undone_newest_first() -> None:
    newest, older = contract("done", id="2"), contract("failed", id="1")
    assert ask(contract("waiting"), newest, older, revert=True) == [newest, older]
