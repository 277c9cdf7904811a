"""Kind of a release's migrations, which decides when they run."""

from __future__ import annotations

import pytest

from headway.domain.errors import MigrationRefused
from headway.policy.schema_migrations import decide, files_of, is_migration

ADDS = {"1.sql": "ALTER TABLE a ADD COLUMN b int;"}
TAKES = {"2.sql": "ALTER TABLE a DROP COLUMN c;"}


def test_added_columns_are_an_expand_migration() -> None:
    assert decide("detect", ADDS, live=True) == ("expand", ("1.sql",), "")


def test_dropped_columns_are_a_contract_migration() -> None:
    assert decide("detect", TAKES, live=True) == ("contract", ("2.sql",), "")
    assert decide("contract", ADDS, live=True).kind == "contract"


def test_without_a_live_version_any_migration_is_allowed() -> None:
    assert decide("detect", {**ADDS, **TAKES}, live=False).kind == "expand"
    assert decide("contract", TAKES, live=False).kind == "expand"


def test_release_without_new_migrations_needs_none() -> None:
    assert decide("detect", {}, live=True) == ("expand", (), "no new migrations")


def test_expand_and_contract_in_one_release_are_refused_with_lines() -> None:
    with pytest.raises(MigrationRefused) as refused:
        decide("detect", {**ADDS, **TAKES}, live=True)
    assert "2.sql:1: drops a column of a" in refused.value.what
    assert "1.sql:1: adds a column to a" in refused.value.what
    assert "a later release" in refused.value.hint


def test_declared_kind_overrides_the_parser() -> None:
    assert decide("expand", {**ADDS, **TAKES}, live=True).kind == "expand"


def test_unknown_language_needs_a_declared_kind() -> None:
    with pytest.raises(MigrationRefused, match=r"1\.ts: its effect"):
        decide("detect", {"1.ts": "knex"}, live=True)


def test_no_migration_runs_past_a_pending_contract_migration() -> None:
    pending = "the contract of shop#3"
    with pytest.raises(MigrationRefused, match=r"the contract of shop#3 is pending"):
        decide("detect", ADDS, live=True, pending=pending)
    with pytest.raises(MigrationRefused, match="is pending"):
        decide("expand", {}, live=True, pending=pending)
    assert decide("detect", {}, live=True, pending=pending).kind is None
    assert decide("detect", TAKES, live=True, pending=pending).kind == "contract"


@pytest.mark.parametrize(
    ("command", "path"),
    [
        ("alembic upgrade head", "migrations/versions/1_a.py"),
        ("cd api && .venv/bin/alembic -c x.ini upgrade head", "api/alembic/versions/1_a.py"),
        ("flask db upgrade", "migrations/versions/1_a.py"),
        ("python manage.py migrate --noinput", "shop/migrations/0001_initial.py"),
        ("npx prisma migrate deploy", "prisma/migrations/20260101_a/migration.sql"),
        ("flyway -url=$URL migrate", "sql/V1__a.sql"),
        ("bundle exec rails db:migrate", "db/migrate/1_a.rb"),
    ],
)
def test_migration_files_of_each_tool_are_found(command: str, path: str) -> None:
    others = ["README.md", "shop/migrations/__init__.py", "shop/models.py", "alembic/env.py", "db/schema.rb"]
    assert is_migration(files_of(command), [path, *others]) == [path]


def test_an_unknown_tool_has_no_files() -> None:
    assert files_of("./migrate.sh") == ()
