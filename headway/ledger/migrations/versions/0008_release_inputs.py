"""inputs of a release that are decided once"""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "release_inputs",
        sa.Column("release_id", sa.String(length=32), nullable=False),
        sa.Column("name", sa.String(length=80), nullable=False),
        sa.Column("value", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(["release_id"], ["releases.id"], name=op.f("fk_release_inputs_release_id")),
        sa.PrimaryKeyConstraint("release_id", "name", name=op.f("pk_release_inputs")),
    )


def downgrade() -> None:
    op.drop_table("release_inputs")
