"""the branch that an app releases, in its registration"""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("apps", sa.Column("branch", sa.String(length=255), nullable=True))


def downgrade() -> None:
    op.drop_column("apps", "branch")
