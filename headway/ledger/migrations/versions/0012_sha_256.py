"""ids of commits in repositories with SHA-256"""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

COLUMNS = (
    ("releases", "sha", True),
    ("releases", "tree", True),
    ("revisions", "sha", False),
    ("inbox", "sha", True),
    ("previews", "head", False),
)


def upgrade() -> None:
    _resize(64)


def downgrade() -> None:
    _resize(40)


def _resize(length: int) -> None:
    """SQLite ignores the length of a column."""
    if op.get_bind().dialect.name == "sqlite":
        return
    for table, column, nullable in COLUMNS:
        op.alter_column(table, column, type_=sa.String(length=length), existing_nullable=nullable)
