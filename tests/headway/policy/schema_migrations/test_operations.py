"""Operations found in migration files of several tools."""

from __future__ import annotations

from textwrap import dedent

import pytest

from headway.policy.schema_migrations import operations


def kinds(path: str, text: str) -> list[tuple[str, int]]:
    found = operations(path, dedent(text))
    assert found is not None
    return [(one.kind, one.line) for one in found]


EXPANDS = [("expand", 1)]
CONTRACTS = [("contract", 1)]
BOTH = [("expand", 1), ("contract", 1)]


@pytest.mark.parametrize(
    ("statement", "wanted"),
    [
        ("CREATE TABLE orders (id bigserial PRIMARY KEY, note text NOT NULL)", EXPANDS),
        ("create table if not exists public.orders (id int)", EXPANDS),
        ("CREATE UNLOGGED TABLE orders (id int)", EXPANDS),
        ("CREATE OR REPLACE VIEW v AS SELECT 1", EXPANDS),
        ("ALTER TABLE orders ADD COLUMN note text", EXPANDS),
        ('ALTER TABLE ONLY public."orders" ADD note text NULL', EXPANDS),
        ("ALTER TABLE orders ADD COLUMN note text NOT NULL DEFAULT ''", EXPANDS),
        ("ALTER TABLE orders ADD COLUMN id bigint NOT NULL GENERATED ALWAYS AS IDENTITY", EXPANDS),
        ("ALTER TABLE orders ADD COLUMN note text NOT NULL", BOTH),
        ("ALTER TABLE orders ADD COLUMN a numeric(10, 2), DROP COLUMN b", BOTH),
        ("ALTER TABLE orders DROP COLUMN note", CONTRACTS),
        ("ALTER TABLE orders DROP note", CONTRACTS),
        ("ALTER TABLE orders DROP CONSTRAINT orders_note_check", EXPANDS),
        ("ALTER TABLE orders ALTER COLUMN note DROP NOT NULL", EXPANDS),
        ("ALTER TABLE orders ALTER COLUMN note SET DEFAULT ''", EXPANDS),
        ("ALTER TABLE orders ALTER note SET NOT NULL", CONTRACTS),
        ("ALTER TABLE orders ALTER COLUMN note TYPE varchar(10)", CONTRACTS),
        ("ALTER TABLE orders ALTER COLUMN note SET DATA TYPE int USING note::int", CONTRACTS),
        ("ALTER TABLE orders RENAME COLUMN note TO remark", CONTRACTS),
        ("ALTER TABLE orders RENAME TO sales", CONTRACTS),
        ("ALTER TABLE orders MODIFY note varchar(10)", CONTRACTS),
        ("ALTER TABLE orders ADD CONSTRAINT positive CHECK (total > 0) NOT VALID", CONTRACTS),
        ("ALTER TABLE orders ADD FOREIGN KEY (user_id) REFERENCES users (id)", CONTRACTS),
        ("ALTER TABLE orders ADD INDEX (note)", []),
        ("ALTER TYPE mood RENAME VALUE 'sad' TO 'blue'", CONTRACTS),
        ("ALTER TYPE mood ADD VALUE 'happy'", []),
        ("RENAME TABLE a TO b", CONTRACTS),
        ("DROP TABLE IF EXISTS orders", CONTRACTS),
        ("DROP MATERIALIZED VIEW totals", CONTRACTS),
        ("DROP INDEX orders_note", []),
        ("CREATE INDEX CONCURRENTLY orders_note ON orders (note)", []),
        ("CREATE UNIQUE INDEX one_note ON orders (note)", CONTRACTS),
        ("TRUNCATE orders", CONTRACTS),
        ("DELETE FROM orders WHERE old", CONTRACTS),
        ("UPDATE orders SET note = 'DROP TABLE users'", []),
        ("INSERT INTO notes VALUES ('; DROP TABLE users')", []),
        ("-- DROP TABLE users", []),
        ("/* ALTER TABLE users DROP COLUMN name */ SELECT 1", []),
        ("CREATE FUNCTION f() RETURNS void AS $x$ BEGIN DELETE FROM a; END $x$ LANGUAGE plpgsql", EXPANDS),
    ],
)
def test_sql(statement: str, wanted: list[tuple[str, int]]) -> None:
    assert kinds("migration.sql", f"{statement};\n") == wanted


def test_dropping_a_table_created_in_the_same_script_is_safe() -> None:
    script = """\
        -- as Prisma writes it
        CREATE TABLE "Post" ("id" SERIAL NOT NULL, "authorId" INTEGER NOT NULL);

        CREATE UNIQUE INDEX "Post_slug_key" ON "Post"("slug");
        ALTER TABLE "Post" ADD CONSTRAINT "Post_authorId_fkey" FOREIGN KEY ("authorId") REFERENCES "User"("id");
        CREATE UNIQUE INDEX "User_mail_key" ON "User"("mail");
        """
    assert kinds("prisma/migrations/1_post/migration.sql", script) == [("expand", 2), ("contract", 6)]


ALEMBIC = """\
import sqlalchemy as sa
from alembic import op

revision = "2"
down_revision = "1"


def upgrade() -> None:
    {up}


def downgrade() -> None:
    op.drop_table("orders")
    op.drop_column("users", "name")
"""


@pytest.mark.parametrize(
    ("up", "wanted"),
    [
        ('op.create_table("orders", sa.Column("id", sa.Integer(), nullable=False))', ["expand"]),
        ('op.add_column("users", sa.Column("age", sa.Integer()))', ["expand"]),
        ('op.add_column("users", sa.Column("age", sa.Integer(), nullable=False, server_default="0"))', ["expand"]),
        ('op.add_column("users", sa.Column("id", sa.Integer(), sa.Identity(), nullable=False))', ["expand"]),
        ('op.add_column("users", sa.Column("age", sa.Integer(), nullable=False))', ["expand", "contract"]),
        ('op.drop_column("users", "name")', ["contract"]),
        ('op.drop_table("users")', ["contract"]),
        ('op.rename_table("users", "people")', ["contract"]),
        ('op.alter_column("users", "name", new_column_name="called")', ["contract"]),
        ('op.alter_column("users", "name", nullable=False)', ["contract"]),
        ('op.alter_column("users", "name", nullable=True)', ["expand"]),
        ('op.create_unique_constraint("one", "users", ["name"])', ["contract"]),
        ('op.create_index("one", "users", ["name"])', []),
        ('op.create_index("one", "users", ["name"], unique=True)', ["contract"]),
        ('op.drop_constraint("one", "users")', []),
        ('op.execute("ALTER TABLE users DROP COLUMN name")', ["contract"]),
        ('op.execute(sa.text("UPDATE users SET name = 1"))', []),
        ("pass", []),
    ],
)
def test_alembic_downgrade_is_ignored(up: str, wanted: list[str]) -> None:
    found = operations("migrations/versions/2_more.py", ALEMBIC.format(up=up))
    assert [one.kind for one in found or ()] == wanted
    assert {one.line for one in found or ()} <= {9}


def test_alembic_in_batches_and_on_its_own_tables() -> None:
    up = """op.create_table("orders", sa.Column("id", sa.Integer()))
    op.create_foreign_key("whose", "orders", "users", ["user_id"], ["id"])
    with op.batch_alter_table("orders") as batch:
        batch.drop_column("id")
    with op.batch_alter_table("users") as batch:
        batch.drop_column("name")"""
    found = operations("versions/2.py", ALEMBIC.format(up=up))
    # Both batches have one name: what is known of it is the last table, the careful reading.
    assert [one.kind for one in found or ()] == ["expand", "contract", "contract"]


DJANGO = """\
from django.db import migrations, models

class Migration(migrations.Migration):
    dependencies = [("shop", "0001_initial")]
    operations = [
        {operation},
    ]
"""


@pytest.mark.parametrize(
    ("operation", "wanted"),
    [
        ('migrations.CreateModel(name="Order", fields=[("id", models.AutoField(primary_key=True))])', ["expand"]),
        ('migrations.AddField(model_name="order", name="note", field=models.TextField(null=True))', ["expand"]),
        ('migrations.AddField("order", "note", models.TextField(db_default=""))', ["expand"]),
        ('migrations.AddField(model_name="order", name="users", field=models.ManyToManyField(to="x"))', ["expand"]),
        # Django takes the default from the column again: the old version's INSERT would fail.
        ('migrations.AddField("order", "note", models.TextField(default=""))', ["expand", "contract"]),
        ('migrations.RemoveField(model_name="order", name="note")', ["contract"]),
        ('migrations.RenameField("order", "note", "remark")', ["contract"]),
        ('migrations.DeleteModel(name="Order")', ["contract"]),
        ('migrations.AddIndex("order", models.Index(fields=["note"]))', []),
        ('migrations.AddConstraint("order", models.UniqueConstraint(fields=["note"], name="x"))', ["contract"]),
        ('migrations.RunSQL("ALTER TABLE shop_order DROP COLUMN note")', ["contract"]),
        ("migrations.RunPython(fill)", []),
        ('migrations.SeparateDatabaseAndState(database_operations=[migrations.DeleteModel("Order")])', ["contract"]),
        ('migrations.SeparateDatabaseAndState(state_operations=[migrations.DeleteModel("Order")])', []),
    ],
)
def test_django(operation: str, wanted: list[str]) -> None:
    found = operations("shop/migrations/0002_more.py", DJANGO.format(operation=operation))
    assert [one.kind for one in found or ()] == wanted


RAILS = """\
class More < ActiveRecord::Migration[8.0]
  def {method}
    {call}
  end

  def down
    drop_table :orders
  end
end
"""


@pytest.mark.parametrize(
    ("call", "wanted"),
    [
        ("add_column :users, :age, :integer", ["expand"]),
        ("add_column :users, :age, :integer, null: false, default: 0", ["expand"]),
        ("add_column :users, :age, :integer, null: false", ["expand", "contract"]),
        ("remove_column :users, :name", ["contract"]),
        ("rename_column :users, :name, :called", ["contract"]),
        ("change_column :users, :age, :bigint", ["contract"]),
        ("change_column_default :users, :age, 1", []),
        ("change_column_null :users, :age, false", ["contract"]),
        ("add_index :users, :name, unique: true", ["contract"]),
        ("add_index :users, :name", []),
        ("add_reference :users, :team", ["expand"]),
        ("add_foreign_key :users, :teams", ["contract"]),
        ("# remove_column :users, :name", []),
        ("create_table :orders do |t|\n    end\n    add_foreign_key :orders, :users", ["expand"]),
        ('execute "ALTER TABLE users DROP COLUMN name"', ["contract"]),
        ("execute <<~SQL\n      DROP TABLE users;\n    SQL", ["contract"]),
    ],
)
@pytest.mark.parametrize("method", ["up", "change"])
def test_rails(method: str, call: str, wanted: list[str]) -> None:
    found = operations("db/migrate/2_more.rb", RAILS.format(method=method, call=call))
    assert [one.kind for one in found or ()] == wanted


@pytest.mark.parametrize("kind", ["expand", "contract"])
def test_comment_overrides_the_classification(kind: str) -> None:
    assert kinds("x.sql", f"DROP TABLE a;\n-- headway: {kind}\nCREATE TABLE b (id int);") == [(kind, 2)]
    assert kinds("x.ts", f"// headway: {kind}") == [(kind, 1)]


def test_other_languages_are_not_classified() -> None:
    assert operations("migrations/1.ts", "await knex.schema.dropTable('users')") is None


def test_invalid_python_is_not_classified() -> None:
    assert operations("versions/1.py", "def upgrade(:") == []
