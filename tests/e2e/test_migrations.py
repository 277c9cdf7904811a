"""A contract migration runs automatically when it is due, and blocks unsafe rollbacks."""

from __future__ import annotations

import json
import secrets
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from tests.e2e.conftest import ME, Headway, Repo
from tests.tasks.test_schema_migrations import ADDS, ENV, FIRST, INI, TAKES, version

pytestmark = pytest.mark.e2e

SETTINGS = """
app: {app}
run: exec python3 app.py
migrations:
  apply: %s -m alembic upgrade head
  revert: %s -m alembic downgrade -$HEADWAY_MIGRATIONS
  rollback_window: 1s
environments:
  production:
    target: process/production
    stop_grace: 2s
    drain: 3s
    env: {{DATABASE_URL: "%s"}}
"""


@pytest.fixture
def database(postgres: str) -> Iterator[sa.Engine]:
    name = f"shop_{secrets.token_hex(4)}"
    server = sa.create_engine(postgres, isolation_level="AUTOCOMMIT")
    with server.connect() as connection:
        connection.execute(sa.text(f"CREATE DATABASE {name}"))
    made = sa.create_engine(postgres.replace("/postgres?", f"/{name}?"))
    yield made
    made.dispose()
    with server.connect() as connection:
        connection.execute(sa.text(f"DROP DATABASE {name} WITH (FORCE)"))
    server.dispose()


def columns(database: sa.Engine) -> set[str]:
    return {column["name"] for column in sa.inspect(database).get_columns("orders")}


def migrate(repo: Repo, subject: str, files: dict[str, str]) -> str:
    (repo.path / "migrations/versions").mkdir(parents=True, exist_ok=True)
    return repo.commit(subject, files)


def test_contract_migration_runs_when_due_and_blocks_rollbacks(
    headway: Headway, tmp_path: Path, database: sa.Engine
) -> None:
    url = database.url.render_as_string(hide_password=False)
    repo = Repo(tmp_path / "app", "schema", SETTINGS % (sys.executable, sys.executable, url))
    migrate(repo, "creates", {"alembic.ini": INI, "migrations/env.py": ENV, **FIRST})
    headway.release(repo.path)
    migrate(repo, "adds", ADDS)
    told = headway.release(repo.path)
    details = {stage["name"]: stage["detail"] for stage in told["stages"]}
    assert details["production migrations"] == "expand: migrations/versions/2.py"
    headway.run("rollback", "schema", "production")  # after an expand: the code alone goes back
    assert columns(database) == {"id", "note", "remark"}
    headway.release(repo.path)
    older = headway.ledger.rollouts.live("schema", "production")
    migrate(repo, "takes away", TAKES)
    release = headway.release(repo.path)
    headway.until(lambda: [one.state for one in headway.ledger.schema_changes.by_release(release["id"])] == ["done"])
    assert columns(database) == {"id", "remark"}
    newer = headway.ledger.rollouts.live("schema", "production")
    refused = headway.run("rollback", "schema", "production", code=1)
    assert f"{older} cannot be restored: {newer} has removed what it may need" in refused.stderr
    assert headway.ledger.rollouts.live("schema", "production") == newer
    headway.run("rollback", "schema", "production", "--force", code=2)
    headway.run("rollback", "schema", "production", "--revert", "--reason", "customers need their notes")
    assert columns(database) == {"id", "note", "remark"}
    assert headway.ledger.rollouts.live("schema", "production") == older


def test_forced_rollback_past_a_contract_migration_records_its_reason(
    headway: Headway, tmp_path: Path, database: sa.Engine
) -> None:
    url = database.url.render_as_string(hide_password=False)
    repo = Repo(tmp_path / "app", "forced", SETTINGS % (sys.executable, sys.executable, url))
    migrate(repo, "creates", {"alembic.ini": INI, "migrations/env.py": ENV, **FIRST, **ADDS})
    headway.release(repo.path)
    older = headway.ledger.rollouts.live("forced", "production")
    migrate(repo, "breaks", version(3, 'op.execute("ALTER TABLE nowhere ADD COLUMN x int")'))
    failed = headway.release(repo.path, code=1)
    assert failed["state"] == "failed"
    assert "production: migrations/apply: exit code 1" in failed["reason"]
    assert headway.ledger.rollouts.by_release(failed["id"]) == []  # no instance was touched
    assert headway.ledger.rollouts.live("forced", "production") == older
    migrate(repo, "takes away", TAKES)
    release = headway.release(repo.path)
    headway.until(lambda: [one.state for one in headway.ledger.schema_changes.by_release(release["id"])] == ["done"])
    newer = headway.ledger.rollouts.live("forced", "production")
    headway.run("rollback", "forced", "production", "--force", "--reason", "nobody reads notes")
    assert headway.ledger.rollouts.live("forced", "production") == older
    assert columns(database) == {"id", "remark"}  # the database stays as it is
    told = json.loads(headway.run("history", "forced", "--json").stdout)
    assert [one["name"] for one in told] == ["rollback", "forced#3", "forced#2", "forced#1"]
    assert told[0]["reason"] == f"{ME}: nobody reads notes (forced: past the contract of {newer})"
    assert f"production to {older}" in headway.run("history", "forced").stdout
