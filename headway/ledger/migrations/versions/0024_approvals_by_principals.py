"""approvals by several principals"""

import sqlalchemy as sa
from alembic import op

revision = "0024"
down_revision = "0023"
branch_labels = None
depends_on = None

BEFORE = "uq_approvals_release_id_environment_revision_asks"
NOW = f"{BEFORE}_round"


def upgrade() -> None:
    with op.batch_alter_table("approvals", schema=None) as batch_op:
        batch_op.add_column(sa.Column("count", sa.Integer(), nullable=False, server_default="1"))
        batch_op.add_column(sa.Column("round", sa.Integer(), nullable=False, server_default="0"))
        batch_op.add_column(sa.Column("form", sa.Integer(), nullable=False, server_default="0"))
        batch_op.add_column(sa.Column("form_after", sa.Integer(), nullable=False, server_default="0"))
        batch_op.drop_constraint(BEFORE, type_="unique")
        batch_op.create_unique_constraint(NOW, ["release_id", "environment", "revision", "asks", "round"])
    with op.batch_alter_table("approvals", schema=None) as batch_op:
        for column in ("count", "round", "form", "form_after"):
            batch_op.alter_column(column, server_default=None)
    made = op.create_table(
        "approval_decisions",
        sa.Column("approval_id", sa.String(length=32), nullable=False),
        sa.Column("person", sa.String(length=255), nullable=False),
        sa.Column("principal", sa.JSON(), nullable=False),
        sa.Column("decision", sa.String(length=16), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("via", sa.String(length=16), nullable=False),
        sa.Column("decided_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["approval_id"], ["approvals.id"], name=op.f("fk_approval_decisions_approval_id_approvals")
        ),
        sa.PrimaryKeyConstraint("approval_id", "person", name=op.f("pk_approval_decisions")),
    )
    _keep_decisions(made)


def _keep_decisions(made: sa.Table) -> None:
    """Decisions of the version before, by the name that it recorded: their rollouts may not have begun yet."""
    approvals = sa.table(
        "approvals",
        *(sa.column(name) for name in ("id", "state", "decided_by", "reason", "via")),
        sa.column("decided_at", sa.DateTime(timezone=True)),
    )
    decided = sa.select(approvals).where(approvals.c.decided_by.is_not(None))
    rows = [
        {
            "approval_id": row["id"],
            "person": name.casefold()[:255],
            "principal": {"kind": "user", "name": name, "groups": []},
            "decision": row["state"],
            "reason": row["reason"] or "",
            "via": row["via"] or "",
            "decided_at": row["decided_at"],
        }
        for row in op.get_bind().execute(decided).mappings()
        if (name := " ".join(row["decided_by"].replace(":", " ").split()))
    ]
    if rows:
        op.bulk_insert(made, rows)


def downgrade() -> None:
    op.drop_table("approval_decisions")
    op.execute("DELETE FROM approvals WHERE round != 0")
    with op.batch_alter_table("approvals", schema=None) as batch_op:
        batch_op.drop_constraint(NOW, type_="unique")
        for column in ("count", "round", "form", "form_after"):
            batch_op.drop_column(column)
        batch_op.create_unique_constraint(BEFORE, ["release_id", "environment", "revision", "asks"])
