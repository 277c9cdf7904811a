"""receipts of releases"""

import sqlalchemy as sa
from alembic import op

revision = "0023"
down_revision = "0022"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "receipts",
        sa.Column("release_id", sa.String(length=32), nullable=False),
        sa.Column("environment", sa.String(length=63), nullable=False),
        sa.Column("app", sa.String(length=63), nullable=False),
        sa.Column("digest", sa.String(length=71), nullable=False),
        sa.Column("signed_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("envelope", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(["release_id"], ["releases.id"], name=op.f("fk_receipts_release_id")),
        sa.PrimaryKeyConstraint("release_id", "environment", name=op.f("pk_receipts")),
    )
    op.create_index(op.f("ix_receipts_digest"), "receipts", ["digest"])


def downgrade() -> None:
    op.drop_table("receipts")
