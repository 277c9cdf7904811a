"""Schema migrations: which ones a release has, what they change, and when they run. Pure: works on file contents.

An expand migration adds what the new version needs and removes nothing: it runs before the rollout. A contract
migration removes what only the old version needs: it runs when the rollback window is over (D. Sato, Parallel Change,
2014).
"""

from headway.config.migration_tools import FILES, files_of, is_migration
from headway.policy.schema_migrations.decision import Decision, decide
from headway.policy.schema_migrations.operation import Operation
from headway.policy.schema_migrations.operations import operations

__all__ = ["FILES", "Decision", "Operation", "decide", "files_of", "is_migration", "operations"]
