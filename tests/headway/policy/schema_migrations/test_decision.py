"""When the migrations of a release are done."""

from __future__ import annotations

import pytest

from headway.domain.errors import MigrationRefused
from headway.policy.schema_migrations import decide, files_of, is_migration

ADDS = {"1.sql": "ALTER TABLE a ADD COLUMN b int;"}
TAKES = {"2.sql": "ALTER TABLE a DROP COLUMN c;"}


def test_what_adds_comes_before_the_rollout() -> None:
    assert decide("detect", ADDS, live=True) == ("expand", ("1.sql",), "")


def test_what_takes_away_comes_long_after_it() -> None:
    assert decide("detect", TAKES, live=True) == ("contract", ("2.sql",), "")
    assert decide("contract", ADDS, live=True).kind == "contract"


def test_where_nothing_is_live_nothing_can_break() -> None:
    assert decide("detect", {**ADDS, **TAKES}, live=False).kind == "expand"
    assert decide("contract", TAKES, live=False).kind == "expand"


def test_a_release_without_new_migrations_has_the_database_as_it_needs_it() -> None:
    assert decide("detect", {}, live=True) == ("expand", (), "no new migrations")


def test_both_at_once_are_refused_with_their_lines() -> None:
    with pytest.raises(MigrationRefused) as refused:
        decide("detect", {**ADDS, **TAKES}, live=True)
    assert "2.sql:1: drops a column of a" in refused.value.what
    assert "1.sql:1: adds a column to a" in refused.value.what
    assert "a later release" in refused.value.hint


def test_who_declares_a_kind_is_believed() -> None:
    assert decide("expand", {**ADDS, **TAKES}, live=True).kind == "expand"


def test_a_language_that_cannot_be_read_is_asked_about() -> None:
    with pytest.raises(MigrationRefused, match=r"1\.ts: what it does"):
        decide("detect", {"1.ts": "knex"}, live=True)


def test_nothing_is_migrated_past_a_contract_that_waits() -> None:
    pending = "the contract of shop#3"
    with pytest.raises(MigrationRefused, match=r"the contract of shop#3 waits"):
        decide("detect", ADDS, live=True, pending=pending)
    with pytest.raises(MigrationRefused, match="waits"):
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
def test_the_files_of_tools_are_known(command: str, path: str) -> None:
    others = ["README.md", "shop/migrations/__init__.py", "shop/models.py", "alembic/env.py", "db/schema.rb"]
    assert is_migration(files_of(command), [path, *others]) == [path]


def test_an_unknown_tool_has_no_files() -> None:
    assert files_of("./migrate.sh") == ()
