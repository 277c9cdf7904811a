"""where an app answers after a rollout"""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("rollouts", sa.Column("url", sa.Text(), nullable=True))


def downgrade() -> None:
    op.drop_column("rollouts", "url")
