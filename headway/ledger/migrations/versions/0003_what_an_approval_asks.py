"""what an approval asks"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

BEFORE = "uq_approvals_release_id_environment_revision"
NOW = f"{BEFORE}_asks"


def upgrade() -> None:
    with op.batch_alter_table("approvals", schema=None) as batch_op:
        batch_op.add_column(sa.Column("asks", sa.String(length=40), nullable=False, server_default="approval"))
        batch_op.drop_constraint(BEFORE, type_="unique")
        batch_op.create_unique_constraint(NOW, ["release_id", "environment", "revision", "asks"])
    with op.batch_alter_table("approvals", schema=None) as batch_op:
        batch_op.alter_column("asks", server_default=None)


def downgrade() -> None:
    op.execute("DELETE FROM approvals WHERE asks != 'approval'")
    with op.batch_alter_table("approvals", schema=None) as batch_op:
        batch_op.drop_constraint(NOW, type_="unique")
        batch_op.drop_column("asks")
        batch_op.create_unique_constraint(BEFORE, ["release_id", "environment", "revision"])
