"""requests of people to the Prefect API"""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "prefect_requests",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("principal", sa.JSON(), nullable=False),
        sa.Column("method", sa.String(length=8), nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("flow_run_id", sa.String(length=36), nullable=True),
        sa.Column("requested_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_prefect_requests")),
    )
    with op.batch_alter_table("prefect_requests", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_prefect_requests_flow_run_id"), ["flow_run_id"], unique=False)
        batch_op.create_index("ix_prefect_requests_path_requested_at", ["path", "requested_at"], unique=False)


def downgrade() -> None:
    op.drop_table("prefect_requests")
