"""Schema migrations with Alembic and Django on PostgreSQL, run in the app's environment."""

from __future__ import annotations

import asyncio
import logging
import secrets
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from blocks import loading
from blocks.targets.process.target import ProcessTarget
from headway.config import Environment
from headway.domain.errors import EnvironmentLocked, MigrationFailed, MigrationRefused
from headway.domain.plan import Plan, Promote
from headway.domain.revision import Artifact, LaunchSpec, Migrations, Revision
from headway.domain.source import Source
from headway.ledger import Ledger, ReleaseRecord, SchemaChange
from headway.policy.schema_migrations import files_of
from headway.scm.git import checkout
from tasks import artifacts, environment_lock, schema_migrations
from tasks.environment_lock import EnvironmentSession, hold
from tasks.release_record import ReleaseSession
from tests.standins.repositories import Repository

pytestmark = pytest.mark.slow

BIN = Path(sys.executable).parent

ENV = """
import os
from alembic import context
from sqlalchemy import create_engine

if context.is_offline_mode():
    context.configure(dialect_name="postgresql")
    with context.begin_transaction():
        context.run_migrations()
else:
    with create_engine(os.environ["DATABASE_URL"]).connect() as connection:
        context.configure(connection=connection, transaction_per_migration=True)
        with context.begin_transaction():
            context.run_migrations()
"""
INI = "[alembic]\nscript_location = migrations\n"
VERSION = """
import sqlalchemy as sa
from alembic import op

revision = "{number}"
down_revision = {before}


def upgrade() -> None:
    {up}


def downgrade() -> None:
    {down}
"""


def version(number: int, up: str, down: str = "pass") -> dict[str, str]:
    before = repr(str(number - 1)) if number > 1 else None
    return {f"migrations/versions/{number}.py": VERSION.format(number=number, before=before, up=up, down=down)}


class Shop:
    """An app whose commits are released, as far as its database goes."""

    def __init__(self, place: Path, database: str, ledger: Ledger) -> None:
        self.repository = Repository(place / "repo")
        self.place = place
        self.ledger = ledger
        self.database = sa.create_engine(database)
        self.rules = Migrations(
            apply=f"{BIN}/alembic upgrade head",
            revert=f"{BIN}/alembic downgrade -$HEADWAY_MIGRATIONS",
            files=files_of("alembic"),
            rollback_window=0,
            timeout=60,
        )
        self.url = database

    def commit(self, **files: str) -> Source:
        sha = self.repository.commit(**files)
        return checkout(str(self.repository.path), sha, self.place / "workspaces")

    def write(self, files: dict[str, str]) -> Source:
        for name, content in files.items():
            path = self.repository.path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
        return self.commit()

    def spec(self, source: Source) -> LaunchSpec:
        bundle = self.place / "bundles" / source.sha
        if not bundle.exists():
            bundle.parent.mkdir(exist_ok=True)
            self.repository.git("worktree", "add", "--quiet", "--detach", str(bundle), source.sha)
        artifact = Artifact(digest=f"sha256:{source.sha.ljust(64, '0')}", location=str(bundle), size=1)
        return LaunchSpec(
            environment="production",
            target="process/production",
            artifact=artifact,
            run="true",
            env={"DATABASE_URL": self.url},
            migrations=self.rules,
        )

    async def release(self, source: Source, *, arrives: bool = True) -> tuple[ReleaseRecord, Revision]:
        """Migrate, and have the ledger say that the rollout has arrived."""
        release = self.ledger.releases.start("shop", "/r", "main", flow_run_id=None, requested_by="ann")
        spec = self.spec(source)
        revision = spec.revision("shop", source.sha)
        self.ledger.revisions.save(revision, spec)
        running = ReleaseSession(self.ledger, release)
        async with self.held(release.name) as session:
            await schema_migrations.migrate.fn(running, session, source, revision, spec)
            if arrives:
                plan = Plan(strategy="rolling", new=revision.id, old=None, steps=(Promote(revision=revision.id),))
                rollout = self.ledger.rollouts.start(
                    release.id, "shop", "production", plan, kind="release", reason="", token=session.lock.token
                )
                schema_migrations.schedule_contract(running, Environment(target="process/production"), spec)
                self.ledger.rollouts.finish(rollout.id, "done")
        return release, revision

    async def contract(self, revision: Revision) -> None:
        async with self.held("contract") as session:
            await schema_migrations.contract_schema.fn(session, revision.id)

    async def revert(self, change: SchemaChange) -> None:
        async with self.held("rollback") as session:
            await schema_migrations.revert_schema.fn(session, change)

    def held(self, holder: str) -> AbstractAsyncContextManager[EnvironmentSession]:
        return hold(self.ledger, "shop", "production", holder=holder, revision="")

    def changes(self, release: ReleaseRecord) -> list[SchemaChange]:
        return self.ledger.schema_changes.by_release(release.id)

    def columns(self, table: str = "orders") -> set[str]:
        inspected = sa.inspect(self.database)
        return {column["name"] for column in inspected.get_columns(table)} if inspected.has_table(table) else set()


@pytest.fixture
def database(postgres: str) -> Iterator[str]:
    """URL of a database of our own."""
    name = f"shop_{secrets.token_hex(4)}"
    server = sa.create_engine(postgres, isolation_level="AUTOCOMMIT")
    with server.connect() as connection:
        connection.execute(sa.text(f"CREATE DATABASE {name}"))
    yield postgres.replace("/postgres?", f"/{name}?")
    with server.connect() as connection:
        connection.execute(sa.text(f"DROP DATABASE {name} WITH (FORCE)"))
    server.dispose()


@pytest.fixture
def shop(tmp_path: Path, database: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shop]:
    target = ProcessTarget(directory=tmp_path / "target")

    async def load_target(slug: str) -> ProcessTarget:
        return target

    async def keep(**artifact: Any) -> None:
        pass

    monkeypatch.setattr(loading, "load_target", load_target)
    monkeypatch.setattr(artifacts, "acreate_markdown_artifact", keep)
    with Ledger.open(f"sqlite:///{tmp_path / 'ledger.db'}") as ledger:
        for module in (schema_migrations, environment_lock):
            monkeypatch.setattr(module, "get_run_logger", lambda: logging.getLogger("test"))
        made = Shop(tmp_path, database, ledger)
        yield made
        made.database.dispose()
    target.destroy()


FIRST = version(1, 'op.create_table("orders", sa.Column("id", sa.Integer()), sa.Column("note", sa.Text()))')
ADDS = version(2, 'op.add_column("orders", sa.Column("remark", sa.Text()))', 'op.drop_column("orders", "remark")')
TAKES = version(3, 'op.drop_column("orders", "note")', 'op.add_column("orders", sa.Column("note", sa.Text()))')


async def grown(shop: Shop) -> tuple[Revision, Revision]:
    """Released twice, by now with `note` and `remark`."""
    _, first = await shop.release(shop.write({"alembic.ini": INI, "migrations/env.py": ENV, **FIRST}))
    _, second = await shop.release(shop.write(ADDS))
    return first, second


async def test_expand_migration_runs_before_the_rollout(shop: Shop) -> None:
    shop.rules = shop.rules.model_copy(update={"check": f"{BIN}/alembic upgrade head --sql"})
    release, _ = await shop.release(shop.write({"alembic.ini": INI, "migrations/env.py": ENV, **FIRST}), arrives=False)
    assert shop.columns() == {"id", "note"}
    (change,) = shop.changes(release)
    assert (change.kind, change.state) == ("expand", "done")
    assert "CREATE TABLE orders" in change.output  # of the dry run
    assert [stage.state for stage in shop.ledger.stages.by_release(release.id)] == ["passed"]


async def test_contract_migration_runs_when_it_is_due_and_not_before(shop: Shop) -> None:
    _, second = await grown(shop)
    release, third = await shop.release(shop.write(TAKES))
    (change,) = shop.changes(release)
    assert (change.kind, change.state, change.files) == ("contract", "waiting", ("migrations/versions/3.py",))
    assert shop.columns() == {"id", "note", "remark"}
    assert [one.id for one in shop.ledger.schema_changes.due_contracts(datetime.now(UTC))] == [change.id]
    await shop.contract(third)
    assert shop.columns() == {"id", "remark"}
    assert shop.ledger.schema_changes.get(change.id).state == "done"
    # From now on a rollback to the previous version is refused.
    assert [one.id for one in shop.ledger.schema_changes.contracts_after("shop", "production", second.id)] == [
        change.id
    ]
    assert shop.ledger.schema_changes.contracts_after("shop", "production", third.id) == []
    await shop.contract(third)  # requested again: nothing to do


async def test_a_check_that_rewrites_a_migration_does_not_change_what_it_is(shop: Shop) -> None:
    await grown(shop)
    source = shop.write(TAKES)
    (Path(source.workspace) / "migrations/versions/3.py").write_text("# nothing to see")
    (Path(source.workspace) / "migrations/versions/4.py").symlink_to("/etc/passwd")
    release, _ = await shop.release(source)
    assert [(change.kind, change.state) for change in shop.changes(release)] == [("contract", "waiting")]


async def test_contract_migration_of_a_version_no_longer_live_is_not_run(shop: Shop) -> None:
    _, second = await grown(shop)
    release, third = await shop.release(shop.write(TAKES))
    lock = shop.ledger.locks.acquire("shop", "production", holder="rollback", revision=second.id, lease=30)
    assert lock is not None
    plan = Plan(strategy="rollback", new=second.id, old=third.id, steps=(Promote(revision=second.id),))
    back = shop.ledger.rollouts.start(None, "shop", "production", plan, kind="rollback", reason="", token=lock.token)
    shop.ledger.rollouts.finish(back.id, "done")
    shop.ledger.locks.release(lock)
    await shop.contract(third)
    assert shop.columns() == {"id", "note", "remark"}
    assert shop.changes(release)[0].state == "cancelled"


async def test_no_migration_runs_past_a_pending_contract_migration(shop: Shop) -> None:
    await grown(shop)
    await shop.release(shop.write(TAKES))
    with pytest.raises(MigrationRefused, match="the contract of shop#3 is pending"):
        await shop.release(shop.write(version(4, 'op.add_column("orders", sa.Column("x", sa.Text()))')))
    assert shop.columns() == {"id", "note", "remark"}
    (shop.repository.path / "migrations/versions/4.py").unlink()
    await shop.release(shop.commit(readme="a hotfix without migrations goes at any time"), arrives=False)
    assert "note" in shop.columns()


async def test_release_with_expand_and_contract_migrations_is_refused_up_front(shop: Shop) -> None:
    await grown(shop)
    both = version(3, 'op.drop_column("orders", "note"); op.add_column("orders", sa.Column("x", sa.Text()))')
    with pytest.raises(MigrationRefused, match=r"migrations/versions/3\.py:10: drops a column of orders"):
        await shop.release(shop.write(both))
    assert shop.columns() == {"id", "note", "remark"}


async def test_next_release_completes_a_migration_that_failed_halfway(shop: Shop) -> None:
    await grown(shop)
    broken = {
        **version(3, 'op.add_column("orders", sa.Column("third", sa.Text()))'),
        **version(4, 'op.execute("ALTER TABLE nowhere ADD COLUMN x int")'),
    }
    with pytest.raises(MigrationFailed, match=r"production: migrations/apply: exit code 1: .*") as failed:
        await shop.release(shop.write(broken))
    assert "still serves" in failed.value.hint
    assert shop.columns() == {"id", "note", "remark", "third"}  # the first of the two stays
    broken_release = shop.ledger.releases.recent("shop")[0]
    (change,) = shop.changes(broken_release)
    assert change.state == "failed"
    assert 'relation "nowhere" does not exist' in change.output
    release, _ = await shop.release(shop.write(version(4, 'op.add_column("orders", sa.Column("x", sa.Text()))')))
    assert shop.columns() == {"id", "note", "remark", "third", "x"}
    assert shop.changes(release)[0].state == "done"


async def test_a_dry_run_that_fails_changes_nothing(shop: Shop) -> None:
    shop.rules = shop.rules.model_copy(update={"check": f"{BIN}/alembic upgrade nowhere --sql"})
    with pytest.raises(MigrationFailed, match="migrations/check: exit code"):
        await shop.release(shop.write({"alembic.ini": INI, "migrations/env.py": ENV, **FIRST}))
    assert shop.columns() == set()
    assert [one.state for one in shop.changes(shop.ledger.releases.recent("shop")[0])] == ["cancelled"]


async def test_migration_waiting_for_a_database_lock_times_out(shop: Shop) -> None:
    await grown(shop)
    shop.rules = shop.rules.model_copy(update={"timeout": 4.0, "check": None})
    with shop.database.begin() as somebody:
        somebody.execute(sa.text("LOCK TABLE orders IN ACCESS SHARE MODE"))
        with pytest.raises(MigrationFailed, match="timed out after 4 s"):
            await shop.release(shop.write(version(3, 'op.add_column("orders", sa.Column("third", sa.Text()))')))
    until(lambda: waiting(shop) == 0)
    assert shop.columns() == {"id", "note", "remark"}


async def test_migrations_of_one_database_never_run_concurrently(shop: Shop) -> None:
    await grown(shop)
    with shop.database.begin() as somebody:
        somebody.execute(sa.text("LOCK TABLE orders IN ACCESS SHARE MODE"))
        third = shop.write(version(3, 'op.add_column("orders", sa.Column("third", sa.Text()))'))
        first = asyncio.create_task(shop.release(third))
        async with asyncio.timeout(30):
            while not waiting(shop):
                await asyncio.sleep(0.05)
        fourth = shop.write(version(4, 'op.add_column("orders", sa.Column("fourth", sa.Text()))'))
        with pytest.raises(EnvironmentLocked, match="production is held by shop#3"):
            await shop.release(fourth)
        assert waiting(shop) == 1  # no other session has reached the database
    await first
    assert shop.columns() == {"id", "note", "remark", "third"}
    await shop.release(fourth)
    assert shop.columns() == {"id", "note", "remark", "third", "fourth"}


async def test_rollback_undoes_a_contract_migration_with_a_declared_down_command(shop: Shop) -> None:
    await grown(shop)
    release, third = await shop.release(shop.write(TAKES))
    await shop.contract(third)
    await shop.revert(shop.changes(release)[0])
    assert shop.columns() == {"id", "note", "remark"}
    assert shop.changes(release)[0].state == "reverted"


async def test_rollback_past_an_irreversible_migration_is_refused(shop: Shop) -> None:
    shop.rules = shop.rules.model_copy(update={"revert": None})
    await grown(shop)
    release, third = await shop.release(shop.write(TAKES))
    await shop.contract(third)
    with pytest.raises(MigrationRefused, match="cannot be reverted"):
        await shop.revert(shop.changes(release)[0])
    assert shop.columns() == {"id", "remark"}


def until(done: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end
        time.sleep(0.05)


def waiting(shop: Shop) -> int:
    """Sessions that wait for a lock."""
    with shop.database.connect() as connection:
        asked = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
        return int(connection.scalar(sa.text(asked)) or 0)


# --- Django ------------------------------------------------------------------------------------------------------

SETTINGS = """
import os
from urllib.parse import parse_qs, urlsplit

url = urlsplit(os.environ["DATABASE_URL"])
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": url.path.strip("/"),
        "USER": "headway",
        "HOST": parse_qs(url.query)["host"][0],
    }
}
INSTALLED_APPS = ["orders"]
SECRET_KEY = "x"
USE_TZ = True
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
"""
MANAGE = """
import os, sys
from django.core.management import execute_from_command_line

os.environ["DJANGO_SETTINGS_MODULE"] = "settings"
execute_from_command_line(sys.argv)
"""
DJANGO = """
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [{after}]
    operations = [
        {operation},
    ]
"""


def django(number: int, operation: str) -> dict[str, str]:
    after = f'("orders", "{number - 1:04}")' if number > 1 else ""
    return {f"orders/migrations/{number:04}.py": DJANGO.format(after=after, operation=operation)}


async def test_django_migrations_expand_contract_and_roll_back(shop: Shop) -> None:
    manage = f"{sys.executable} manage.py"
    shop.rules = Migrations(
        apply=f"{manage} migrate --noinput",
        check=f"{manage} migrate --plan",
        revert=f"{manage} migrate orders 0002",
        files=files_of(f"{manage} migrate"),
        rollback_window=0,
    )
    fields = '("id", models.BigAutoField(primary_key=True)), ("note", models.TextField(null=True))'
    files = {
        "settings.py": SETTINGS,
        "manage.py": MANAGE,
        "orders/__init__.py": "",
        "orders/migrations/__init__.py": "",
        **django(1, f'migrations.CreateModel("Order", [{fields}])'),
    }
    await shop.release(shop.write(files))
    assert shop.columns("orders_order") == {"id", "note"}
    # As Django's own makemigrations writes it, and not as the old version could live with it.
    with pytest.raises(MigrationRefused, match="neither null nor db_default"):
        await shop.release(
            shop.write(django(2, 'migrations.AddField("order", "remark", models.TextField(default=""))'))
        )
    assert shop.columns("orders_order") == {"id", "note"}
    await shop.release(shop.write(django(2, 'migrations.AddField("order", "remark", models.TextField(null=True))')))
    assert shop.columns("orders_order") == {"id", "note", "remark"}
    release, third = await shop.release(shop.write(django(3, 'migrations.RemoveField("order", "note")')))
    assert shop.columns("orders_order") == {"id", "note", "remark"}
    await shop.contract(third)
    assert shop.columns("orders_order") == {"id", "remark"}
    (change,) = shop.changes(release)
    assert "Applying orders.0003... OK" in change.output
    await shop.revert(change)
    assert shop.columns("orders_order") == {"id", "note", "remark"}
